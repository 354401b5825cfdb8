"""nnU-Net's trainer with the low-rank head: memory does not grow with the number of classes.

Run it with ``nnUNetv2_train DATASET CONFIGURATION FOLD -tr ClassScaleTrainer`` after setting the environment variable
``nnUNet_extTrainer`` to the folder ``nnunet_trainers``; ``classscaleseg-train train`` sets it by itself. It is written
for nnU-Net 2.8. Data loading, augmentation, schedule and optimiser are nnU-Net's. It replaces only what would hold
arrays with both a class axis and volume axes: the last layer, the loss, and both validations.
"""

from __future__ import annotations

import copy
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ClassScaleSegLib.errors import LabelTableError, ModelError
from ClassScaleSegLib.images.counts import dice
from ClassScaleSegLib.inference.devices import has_bfloat16
from ClassScaleSegLib.labels.sides import pair_of_sides
from ClassScaleSegLib.models.architecture import basis_channels, check_architecture
from ClassScaleSegLib.models.network import construct_network
from ClassScaleSegLib.models.networks import PACKAGE, RANK_ENTRY, find_network, is_primus
from ClassScaleSegLib.models.projection import Projection
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.helpers import dummy_context

from ..data.merged_labels import Merged
from ..evaluation.class_counts import class_counts
from ..evaluation.dice import mean_of_known
from ..files import LATEST, PREVIOUS, read_newest, save_whole, whole
from ..loss.losses import CrossEntropyDiceLoss, DeepSupervisionLoss, RegionLoss
from ..loss.soft_dice import SoftDice
from ..loss.tiles import LabelOutsideError
from ..network.fast_on_cpu import train_in_bfloat16
from ..network.low_rank_head import add_head, decoder_of
from ..processes.group import from_first
from .case_sampling import CaseSampler, drawn_by_share
from .checkpoint_check import CASES, cases_of_fold, check_continued, check_fold, check_weights
from .label_augmentation import in_one_pass
from .label_index import label_index
from .merged_training import MergedLoss, Output, of_network, with_datasets
from .optimizers import ChosenOptimizer
from .several_processes import TrainerOfSeveral
from .whole_cases import CaseValidation

BFLOAT16 = "CLASSSCALE_BFLOAT16"  # environment variable, named and read as nnU-Net's nnUNet_compile is
MINUTES_BETWEEN_CHECKPOINTS = 5.0  # nnU-Net writes one every 50 epochs, which may take hours


@dataclass(frozen=True)
class _HeadLoss:
    """A loss that nnU-Net can call: with the output of the network and the target, at one scale or several."""

    loss: DeepSupervisionLoss

    def __call__(
        self,
        output: Output,
        target: list[torch.Tensor] | torch.Tensor,
    ) -> torch.Tensor:
        return self.loss(*output, target if isinstance(target, list) else [target])


class ClassScaleTrainer(CaseValidation, ChosenOptimizer, TrainerOfSeveral):
    """Trains a network with a :class:`.ClassScaleHead`; the arguments are those of nnU-Net's trainer.

    :cvar epochs: number of epochs; None for nnU-Net's 1000.
    :cvar mirroring: whether to mirror images in training and prediction.
    :ivar merged: the datasets, if ``classscaleseg-train merge`` made the dataset of several; otherwise None.
    :raises ModelError: if the configuration is the second stage of a cascade, or its network is not one of the list in
        :mod:`ClassScaleSegLib.models.networks`.
    """

    epochs: int | None = None
    mirroring = True
    save_every: int  # nnU-Net's

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        self._saved = time.monotonic()  # when checkpoint_latest.pth was written, or the training began
        self.merged = Merged.of(dataset_json)
        if self.merged is not None:
            dataset_json = of_network(dataset_json, self.merged)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_cascaded:
            raise ModelError(
                f"Configuration {configuration} is the second stage of a cascade: it would need one input channel for "
                "each class. Train 3d_fullres instead."
            )
        if self.epochs is not None:
            self.num_epochs = self.epochs
        check_architecture(self.configuration_manager.configuration)
        name, network = find_network(self.configuration_manager.configuration["architecture"])
        if network.package != PACKAGE:
            raise ModelError(f"Configuration {configuration} names {name} of {network.package}, which only runs here.")
        if is_primus(self.configuration_manager.configuration["architecture"]) and not self.trains_primus:
            raise ModelError(
                f"Configuration {configuration} names a Primus, which needs another optimiser and a warm-up: train it "
                "with -tr ClassScaleTrainer_Primus."
            )

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """Build the network of the plans with a :class:`.ClassScaleHead` as its last layer.

        :param configuration_manager: nnU-Net's manager of the configuration, with the rank if one was chosen; a Primus
            needs one.
        :param num_output_channels: number of classes or regions.
        :param enable_deep_supervision: whether the network returns bases, as in training, instead of logits.
        :raises ModelError: if the network is not on the list, or the rank does not fit it.
        """
        entries = copy.deepcopy(configuration_manager.configuration)
        check_architecture(entries)
        # The channels of the last layer are of no account in a U-Net, where add_head replaces it.
        outputs = basis_channels(entries, num_output_channels) if is_primus(entries["architecture"]) else 1
        network = construct_network(entries, num_input_channels, outputs, train=True)
        network = add_head(network, num_output_channels, entries.get(RANK_ENTRY))
        decoder_of(network).deep_supervision = enable_deep_supervision
        return network

    def initialize(self) -> None:
        """Make network, optimiser and loss as nnU-Net does; on a processor that is fast in bfloat16, train in it."""
        super().initialize()
        if self.device.type == "cpu" and os.environ.get(BFLOAT16, "t").lower() in ("true", "1", "t") and has_bfloat16():
            train_in_bfloat16(self.bare_network)
            self.print_to_log_file(f"Training steps compute in bfloat16 on this processor. {BFLOAT16}=f: in float32.")

    def _build_loss(self) -> _HeadLoss | MergedLoss:
        regions, ignore = self._regions(), self.label_manager.ignore_label
        soft_dice = SoftDice(self.configuration_manager.batch_dice, do_bg=bool(regions), ddp=self.is_ddp)
        if self.merged is not None:
            return MergedLoss(self.merged, soft_dice, self.is_ddp)
        loss = RegionLoss(regions, soft_dice, ignore) if regions else CrossEntropyDiceLoss(soft_dice, ignore)
        return _HeadLoss(DeepSupervisionLoss(loss, ddp=self.is_ddp))

    def _regions(self) -> tuple[tuple[int, ...], ...]:
        """Return the label values of each region; nothing if the classes are ordinary labels."""
        regions = self.label_manager.foreground_regions if self.label_manager.has_regions else ()
        return tuple(tuple(map(int, np.atleast_1d(region))) for region in regions)

    @staticmethod
    def get_training_transforms(*arguments: Any, **options: Any) -> Any:
        """Return nnU-Net's transforms, without the one that turns the label map into a channel for each region.

        Label maps are rotated and scaled in one pass (:mod:`.label_augmentation`).
        """
        found = nnUNetTrainer.get_training_transforms(*arguments, **{**options, "regions": None})
        found.transforms = [in_one_pass(transform) for transform in found.transforms]
        return found

    @staticmethod
    def get_validation_transforms(*arguments: Any, **options: Any) -> Any:
        """Return nnU-Net's transforms, without the one that turns the label map into a channel for each region."""
        return nnUNetTrainer.get_validation_transforms(*arguments, **{**options, "regions": None})

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """Return nnU-Net's settings of the augmentation, without mirroring if it is switched off.

        Warn if left and right are told apart, and images are mirrored.
        """
        rotation, dummy_2d, initial_patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.mirroring:
            axes = self.inference_allowed_mirroring_axes = None
        elif axes and (sides := pair_of_sides(self.dataset_json["labels"])) is not None:
            self.print_to_log_file(
                f"WARNING: {sides[0]} and {sides[1]} are different labels, but images are mirrored, which makes it "
                "hard to tell left from right. Trainers such as ClassScaleTrainer_NoMirroring (-tr) do not mirror."
            )
        return rotation, dummy_2d, initial_patch, axes

    def get_dataloaders(self) -> tuple:
        """Return nnU-Net's loaders; for a merged dataset, they draw by shares and labels (:mod:`.case_sampling`)."""
        if self.merged is None:
            return super().get_dataloaders()
        training, validation = self.do_split()
        cases = sorted({*map(str, training), *map(str, validation)})
        folder, merged = Path(self.preprocessed_dataset_folder), self.merged
        index = from_first(lambda: label_index(folder, cases, merged))
        for line in CaseSampler(self.merged, {case: index[case] for case in map(str, training)}).describe():
            self.print_to_log_file(line)
        if isinstance(self.loss, MergedLoss):
            order = f"The pseudo Dice is that of {', '.join(self.loss.names)}, in this order."
            self.print_to_log_file(order, also_print_to_console=False)
        with drawn_by_share(self.merged, index):
            return super().get_dataloaders()

    def train_step(self, batch: dict) -> dict:
        """Train on one batch as nnU-Net does.

        :raises LabelTableError: naming the cases, if a label map holds a label that ``dataset.json`` does not have.
        """
        try:
            return super().train_step(batch if self.merged is None else with_datasets(self.merged, batch))
        except LabelOutsideError as error:
            raise LabelTableError(
                f"One of the cases {', '.join(sorted(set(batch['keys'])))} does not fit dataset.json: {error} "
                "Correct the label map or dataset.json, then preprocess again."
            ) from error

    def validation_step(self, batch: dict) -> dict:
        """Return nnU-Net's loss and counts of hits and misses, computed by :func:`.class_counts`."""
        if self.merged is not None:
            batch = with_datasets(self.merged, batch)
        target = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        target = [scale.to(self.device, non_blocking=True) for scale in target]
        with torch.autocast("cuda") if self.device.type == "cuda" else dummy_context():
            output = self.network(batch["data"].to(self.device, non_blocking=True))
            loss = self.loss(output, target)
        hits, predicted, reference = self._counts(output, target)
        return {
            "loss": loss.detach().cpu().numpy(),
            "tp_hard": hits,
            "fp_hard": predicted - hits,
            "fn_hard": reference - hits,
        }

    def _counts(self, output: Output, target: list[torch.Tensor]) -> np.ndarray:
        """Return hits, predicted and reference voxels ``(3, K)`` of the K classes that are evaluated in each epoch."""
        if isinstance(self.loss, MergedLoss):
            return self.loss.counts(output, target)
        bases, projection, bias = output
        regions, ignore = self._regions(), self.label_manager.ignore_label
        head = Projection(projection.float(), bias.float(), regions=bool(regions))
        counts = class_counts(bases[0], head, target[0], ignore, regions).cpu().numpy()
        return counts if regions else counts[:, 1:]  # without the background

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Log losses and Dice as nnU-Net does, but as rounded Python numbers.

        Every checkpoint holds the log, which a thousand NumPy numbers for each epoch would make large.
        """
        collated = collate_outputs(val_outputs)
        sums = np.stack([np.sum(collated[name], 0) for name in ("tp_hard", "fp_hard", "fn_hard")])
        ranks = self.of_all_processes((sums, np.mean(collated["loss"])))
        hits, false, missed = sum(rank[0] for rank in ranks)
        by_class = dice(np.stack([hits, hits + false, hits + missed]))
        self.logger.log("mean_fg_dice", mean_of_known(by_class), self.current_epoch)
        self.logger.log("dice_per_class_or_region", [round(float(d), 5) for d in by_class], self.current_epoch)
        self.logger.log("val_losses", float(np.mean([rank[1] for rank in ranks])), self.current_epoch)

    def on_epoch_end(self) -> None:
        """Finish an epoch as nnU-Net does, and write ``checkpoint_latest.pth`` also if it is five minutes old."""
        every = self.save_every
        if time.monotonic() - self._saved > 60 * MINUTES_BETWEEN_CHECKPOINTS:
            self.save_every = 1
        try:
            super().on_epoch_end()
        finally:
            self.save_every = every

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint as nnU-Net does, and replace an older one only once the new one is complete.

        :raises OutputError: if it cannot be written; the older checkpoints are then unchanged.
        """
        if self.local_rank or self.disable_checkpointing:
            super().save_checkpoint(filename)
        else:
            if self.fold_cases is not None:
                self.my_init_kwargs[CASES] = cases_of_fold(self.my_init_kwargs, *self.fold_cases)
            save_whole(Path(filename), super().save_checkpoint)
        if Path(filename).name == LATEST:
            self._saved = time.monotonic()

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint, or an older one if ``checkpoint_latest.pth`` is damaged.

        :raises ModelError: if it is missing or damaged and no other can be used, or it is of another network, or of
            other labels, or of images that were prepared in another way, or was trained on a case of the validation.
        """
        file = Path(filename_or_checkpoint)
        older = [file.with_name(PREVIOUS), file.with_name("checkpoint_best.pth")] if file.name == LATEST else []
        advice = "Name another checkpoint, or start the training again without it."
        found = read_newest([file, *older], whole, advice)
        if not self.was_initialized:
            self.initialize()
        check_weights(found, self.network)
        before = self.my_init_kwargs
        super().load_checkpoint(str(found))
        there, self.my_init_kwargs = self.my_init_kwargs, before
        told = check_continued(found, there, before, self.merged is not None)
        if CASES in there:
            told += check_fold(found, there[CASES], *self.do_split())
            self.my_init_kwargs[CASES] = there[CASES]
        for sentence in told:
            self.print_to_log_file(f"WARNING: {sentence}")

    def on_train_end(self) -> None:
        """Finish as nnU-Net does, and remove ``checkpoint_previous.pth``."""
        super().on_train_end()
        if self.local_rank == 0:
            (Path(self.output_folder) / PREVIOUS).unlink(missing_ok=True)
