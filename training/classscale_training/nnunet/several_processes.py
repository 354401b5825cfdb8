"""What nnU-Net's trainer needs when several processes train together, on CPUs too and on several machines.

nnU-Net takes the number of a process for that of a GPU of its machine, and lets every process copy the plans and divide
the cases into folds. Here each process computes on its own device, and only the first one writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock_trainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed
from torch._dynamo import OptimizedModule

from ..data.merged_labels import MERGED_FROM
from ..processes.group import from_first
from .earlier_plans import FINGERPRINT
from .preprocessed_folder import changed_since, check_cases, check_preprocessed, decided_for_images, decided_for_labels
from .splits import prepare_splits

_SECONDS_TO_APPEAR = 30.0  # of a new file on another machine: shared file systems keep lists of files for a while


class TrainerOfSeveral(nnUNetTrainer):
    """nnU-Net's trainer for one process or one of several; the arguments are nnU-Net's, but ``device`` counts.

    :cvar learns_labels: whether label maps are used.
    :ivar fold_cases: those for training and for validation, once they are known.
    :param device: with its number if it is a GPU of several; without a number, nnU-Net's choice remains.
    """

    learns_labels = True
    my_init_kwargs: dict[str, Any]  # nnU-Net's

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.fold_cases: tuple[list[str], list[str]] | None = None
        if self.is_ddp and (device.type != "cuda" or device.index is not None):
            self.device = device
            if device.type != "cuda":
                self.grad_scaler = None

    def initialize(self) -> None:
        """Make network, optimiser and loss as nnU-Net does, under DDP also on a CPU."""
        with _wrapped_on(self.device):
            super().initialize()

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return the cases for training and validation; only the first process reads or writes the folds.

        :raises ModelError: if the preprocessed cases are not complete, or plans or labels have changed since.
        :raises ClassScaleError: if the folds cannot be used.
        """
        training, validation = self.fold_cases = from_first(self._checked_split)
        return training, validation

    def check_preprocessed(self) -> None:
        """Check that the preprocessed cases are complete, and made as plans and labels say.

        :raises ModelError: if they are not.
        """
        entries = self.configuration_manager.configuration
        images = decided_for_images(entries, self.plans_manager.plans, self.dataset_json)
        own_labels = self.learns_labels and MERGED_FROM not in self.dataset_json
        labels = decided_for_labels(self.dataset_json) if own_labels else None
        check_preprocessed(Path(self.preprocessed_dataset_folder), images, labels)

    def _warn_of_changed_labels(self, folder: Path) -> None:
        raw = os.environ.get("nnUNet_raw")
        if self.local_rank or not self.learns_labels or not raw:
            return
        changed = changed_since(folder, Path(raw, self.plans_manager.dataset_name, "labelsTr"))
        if changed:
            names = f"{changed[0]} and {len(changed) - 1} more" if len(changed) > 1 else changed[0]
            self.print_to_log_file(
                f"WARNING: {names} in labelsTr changed after preprocessing, such as by a correction. To train on "
                "what they are now, run `classscaleseg-train preprocess` again."
            )

    def _checked_split(self) -> tuple[list[str], list[str]]:
        self.check_preprocessed()
        folder = Path(self.preprocessed_dataset_folder)
        cases = sorted(file.stem for file in folder.glob("*.pkl"))
        announced = self.dataset_json.get("numTraining")
        if self.fold == "all" and isinstance(announced, int) and announced != len(cases):
            self.print_to_log_file(
                f"WARNING: dataset.json has {announced} cases, but {len(cases)} are in {folder}. To use all, run "
                "`classscaleseg-train preprocess` again."
            )
        self._warn_of_changed_labels(folder)
        if self.fold != "all":
            prepare_splits(Path(self.preprocessed_dataset_folder_base), cases)
        training, validation = (list(map(str, names)) for names in super().do_split())
        check_cases(folder, [*training, *validation])
        if not training or not validation:
            raise ModelError(
                f"Fold {self.fold} of splits_final.json in {self.preprocessed_dataset_folder_base} has no case for "
                f"{'validation' if training else 'training'}. Add one, or train the fold all."
            )
        unused = sorted(set(cases).difference(training, validation))
        if unused:
            more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
            self.print_to_log_file(
                f"WARNING: {unused[0]}{more} of the preprocessed cases are not used, because splits_final.json in "
                f"{self.preprocessed_dataset_folder_base} has them neither for training nor for validation. If they "
                "are new, add them there, or delete the file, so that all cases are divided anew."
            )
        return training, validation

    def on_train_start(self) -> None:
        """Begin as nnU-Net does, but only the first process copies the plans.

        :raises ModelError: if the fingerprint is missing, which nnU-Net copies too.
        """
        fingerprint = Path(self.preprocessed_dataset_folder_base) / FINGERPRINT
        if not fingerprint.is_file():
            raise ModelError(f"{fingerprint} does not exist: run `classscaleseg-train plan` again.")
        with _copies_by_first(self):
            super().on_train_start()

    @property
    def bare_network(self) -> Any:
        """The network without what DDP and ``torch.compile`` put around it."""
        network = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def of_all_processes(self, own: Any) -> list:
        """Return what each process passed, in the order of the ranks; with one process, ``own`` alone."""
        if not self.is_ddp:
            return [own]
        ranks: list = [None] * distributed.get_world_size()
        distributed.all_gather_object(ranks, own)
        return ranks


@contextmanager
def _wrapped_on(device: torch.device) -> Iterator[None]:
    """Let nnU-Net's trainer wrap its network by DDP for this device, while the context lasts."""
    stock = stock_trainer.DDP
    ids = [device] if device.type == "cuda" else None
    stock_trainer.DDP = lambda network, **_: stock(network, device_ids=ids)
    try:
        yield
    finally:
        stock_trainer.DDP = stock


@contextmanager
def _copies_by_first(trainer: Any) -> Iterator[None]:
    """Let the first process alone copy plans and dataset.json to the results, while the context lasts.

    What the trainers of the others write goes to a folder that is removed.
    """
    if trainer.local_rank == 0:
        yield
        return
    kept = trainer.output_folder_base
    with TemporaryDirectory(prefix="classscaleseg-") as folder:
        trainer.output_folder_base = folder
        try:
            yield
        finally:
            trainer.output_folder_base = kept


def check_batch(configuration: Any, processes: int) -> None:
    """Check that each process gets a patch of a batch.

    :param configuration: nnU-Net's ``ConfigurationManager``.
    :raises ModelError: if there are more processes.
    """
    batch = configuration.batch_size
    if batch < processes:
        raise ModelError(
            f"{processes} processes need a batch of as many patches, but the plans have a batch of {batch}. Start "
            "fewer processes, or raise batch_size in the plans."
        )


def check_folders(trainer: Any) -> None:
    """Check that this process sees the results of the first one, and has the same plans.

    :raises ModelError: if it does not.
    """
    file = Path(from_first(lambda: trainer.log_file))
    end = time.monotonic() + _SECONDS_TO_APPEAR
    while not file.exists():
        if time.monotonic() > end:
            raise ModelError(
                f"{file} was written by the first process, but does not exist here. nnUNet_results must be one folder "
                "that all machines share, under one path."
            )
        time.sleep(0.2)
    own = trainer.plans_manager.plans, trainer.dataset_json
    if from_first(lambda: own) != own:
        raise ModelError(
            f"Plans or dataset.json in {trainer.preprocessed_dataset_folder_base} are not those of the first process. "
            "Share the folder, or copy it again."
        )


def share_weights(network: torch.nn.Module) -> None:
    """Give all processes the weights of the first one."""
    for tensor in network.state_dict().values():
        distributed.broadcast(tensor, 0)
