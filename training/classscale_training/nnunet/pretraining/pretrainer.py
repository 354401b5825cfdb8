"""nnU-Net's trainer as a masked autoencoder: it learns an encoder from images and ignores their labels.

Plans, split, spatial augmentation, schedule and optimiser are nnU-Net's. The output folder holds the checkpoints, the
log, and ``reconstruction.png``.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models.architecture import check_architecture
from ClassScaleSegLib.models.network import construct_network
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from ...files import LATEST, PREVIOUS, read_newest, save_whole, whole
from ..label_augmentation import in_one_pass
from ..preprocessed_folder import used_for_images
from ..several_processes import TrainerOfSeveral
from .masking import MaskedAutoencoder, check_block, hidden_variance, reconstruction_error
from .nnssl_format import ENTRY, adaptation_plan, plain
from .options import PretrainingOptions
from .patches import Cases, MaskedPatches, Share, batches
from .picture import draw

_OWN = "classscale_pretraining"  # entry of a checkpoint with the options below
_DIGESTS = "names of images", "architecture, spacing and normalisation", "preparation of images"  # among them
_VALIDATION_SEED = 1  # added to the seed
_LEAST_VARIANCE = 1e-6  # of normalised voxels; below, there is nothing to explain


class ClassScalePretrainer(TrainerOfSeveral):
    """Pretrains the encoder of the plans' network; the arguments are those of nnU-Net's trainer.

    :ivar options: set them before anything else is called.
    :ivar more_cases: preprocessed cases without labels that are used beside those of the fold, as in :class:`.Cases`.
    :raises ModelError: if the configuration is the second stage of a cascade.
    """

    learns_labels = False

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_cascaded:
            raise ModelError(
                f"Configuration {configuration} is the second stage of a cascade, which takes label maps as input. "
                "Pretrain 3d_fullres instead."
            )
        self.options, self.more_cases = PretrainingOptions(), dict[str, tuple[Any, str]]()
        self.enable_deep_supervision = False

    def initialize(self) -> None:
        """Build network, loss and optimiser, and check what was chosen against the network.

        :raises ModelError: if it is no U-Net, or the blocks do not fit it.
        """
        self.num_epochs, self.num_iterations_per_epoch = self.options.epochs, self.options.steps
        self.num_val_iterations_per_epoch = max(1, self.options.steps // 25)
        self.initial_lr = self.options.learning_rate
        torch.manual_seed(self.options.seed)
        super().initialize()
        network, patch = self.bare_network.network, self.configuration_manager.patch_size
        strides = np.prod([np.broadcast_to(stride, len(patch)) for stride in network.encoder.strides], 0)
        block = self.options.block
        self.block = tuple(map(int, strides)) if block is None else (block,) * len(patch)
        check_block(patch, self.block, strides.tolist(), self.options.sparse)
        if self.options.sparse:
            self.bare_network.make_sparse()

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """Build the network of the plans with as many output as input channels, and make an autoencoder of it.

        :raises ModelError: if the network is not on the list, or no U-Net.
        """
        entries = copy.deepcopy(configuration_manager.configuration)
        check_architecture(entries)
        network = construct_network(entries, num_input_channels, num_input_channels, train=True)
        return MaskedAutoencoder(network)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Return nnU-Net's optimiser, or AdamW, and nnU-Net's schedule."""
        if self.options.optimizer == "sgd":
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _build_loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        sizes = self.of_all_processes(self.batch_size)
        weight = self.batch_size * len(sizes) / sum(sizes)  # DDP takes the mean over processes, whatever they have
        return lambda output, target: weight * reconstruction_error(output, target)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Change nothing: there is one output."""

    def plot_network_architecture(self) -> None:
        """Change nothing: nnU-Net's plot needs another package."""

    @staticmethod
    def get_training_transforms(*arguments: Any, **options: Any) -> Any:
        """Return nnU-Net's spatial transforms; grey values are what the network is to reconstruct."""
        found = nnUNetTrainer.get_training_transforms(*arguments, **{**options, "regions": None})
        found.transforms = [in_one_pass(t) for t in found.transforms if not isinstance(t, RandomTransform)]
        return found

    def get_dataloaders(self) -> tuple[Iterator[dict], Iterator[dict]]:
        """Return the batches of the remaining steps, and those of the validation over and over."""
        patch = self.configuration_manager.patch_size
        rotation, dummy_2d, drawn, axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        masks = self.configuration_manager.use_mask_for_norm
        training = self.get_training_transforms(patch, rotation, None, axes, dummy_2d, use_mask_for_norm=masks)
        validation = self.get_validation_transforms(None)
        known, unseen = (_cases(dataset) for dataset in self.get_tr_and_val_datasets())
        learned = Cases({**known.by_name, **self.more_cases})
        blocks = "x".join(map(str, self.block))
        self.print_to_log_file(
            f"Pretraining on {len(self.images)} images, of which blocks of {blocks} voxels are hidden."
        )
        ratio, seed, steps = self.options.mask_ratio, self.options.seed, self.options.steps
        patches = MaskedPatches(learned, drawn, patch, training, self.block, ratio, seed)
        fixed = MaskedPatches(unseen, patch, patch, validation, self.block, ratio, seed + _VALIDATION_SEED)
        sizes = self.of_all_processes(self.batch_size)
        share = Share(self.current_epoch * steps, self.options.epochs * steps, sizes, self.local_rank)
        workers, pinned = get_allowed_n_proc_DA(), self.device.type == "cuda"
        again = Share(0, self.num_val_iterations_per_epoch, sizes, self.local_rank)
        self.example = fixed[0]
        return batches(patches, share, workers, pinned), _repeated(fixed, again, pinned)

    def validation_step(self, batch: dict) -> dict:
        """Return the error of the hidden voxels, and their variance."""
        target = batch["target"].to(self.device, non_blocking=True)
        output = self.network(target)
        return {"loss": reconstruction_error(output, target).item(), "variance": hidden_variance(target).item()}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Log the error, and how much of the variance is explained."""
        found = [step for rank in self.of_all_processes(val_outputs) for step in rank]
        error, variance = (float(np.mean([step[key] for step in found])) for key in ("loss", "variance"))
        self.logger.log("val_losses", error, self.current_epoch)
        self.explained = 1 - error / variance if variance > _LEAST_VARIANCE else math.nan

    def on_epoch_end(self) -> None:
        """Log the epoch and write a checkpoint.

        :raises ModelError: if the loss is no longer finite. The last checkpoint is that of the epoch before.
        """
        epoch = self.current_epoch
        learned, unseen = (float(self.logger.get_value(key, step=-1)) for key in ("train_losses", "val_losses"))
        if not np.isfinite([learned, unseen]).all():
            raise ModelError(
                f"The error is {learned} in epoch {epoch}: the learning rate is too high. Start again with a lower "
                "--learning-rate."
            )
        self.print_to_log_file(
            f"error of hidden voxels: {learned:.4f} in training, {unseen:.4f} in validation"
            + ("" if math.isnan(self.explained) else f", where {self.explained:.1%} of the variance is explained")
        )
        if epoch != self.num_epochs - 1:
            self.save_checkpoint(str(Path(self.output_folder) / LATEST))
        self.current_epoch += 1

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint in nnssl's format, and replace an older one only once the new one is complete.

        :raises OutputError: if it cannot be written; the older checkpoints are then unchanged.
        """
        if self.local_rank or self.disable_checkpointing:
            return
        network, managers = self.bare_network.network, (self.plans_manager, self.configuration_name)
        content = {
            "network_weights": network.state_dict(),
            ENTRY: adaptation_plan(*managers, self.configuration_manager, network, self.num_input_channels),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if self.grad_scaler is None else self.grad_scaler.state_dict(),
            "logging": self.logger.get_checkpoint(),
            "current_epoch": self.current_epoch + 1,
            "trainer_name": type(self).__name__,
            _OWN: self._chosen(),
        }
        save_whole(Path(filename), lambda name: torch.save(plain(content), name))

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint, or from the one before if it is damaged.

        :raises ModelError: if none can be read, or it was pretrained with other options.
        """
        if not self.was_initialized:
            self.initialize()
        file = Path(filename_or_checkpoint)
        files = [file, file.with_name(PREVIOUS)] if file.name == LATEST else [file]
        content = read_newest(files, self._read, "Move the old pretraining away, and start again.")
        for name, value in self._chosen().items():
            before = content[_OWN].get(name, value)  # earlier versions did not say how images are prepared
            if before != value:
                what = f"other {name}" if name in _DIGESTS else f"{name} {before}, not {value}"
                raise ModelError(
                    f"{file} was pretrained with {what}: choose the same, or move the old pretraining away."
                )
        self.bare_network.network.load_state_dict(content["network_weights"])
        self.optimizer.load_state_dict(content["optimizer_state"])
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.logger.load_checkpoint(content["logging"])
        self.current_epoch = content["current_epoch"]

    def _read(self, file: Path) -> dict[str, Any]:
        content = torch.load(whole(file), map_location=self.device, weights_only=True)
        if not isinstance(content, dict) or _OWN not in content:
            raise ModelError("is no checkpoint of `classscaleseg-train pretrain`")
        return content

    def _chosen(self) -> dict[str, Any]:
        """Return what must not change in a pretraining."""
        batch = self.configuration_manager.batch_size
        more = {"batch": batch, "patch": list(self.configuration_manager.patch_size), "images": len(self.images)}
        entries = self.configuration_manager.configuration
        decides = {key: entries.get(key) for key in ("architecture", "spacing", "normalization_schemes")}
        images = used_for_images(entries, self.plans_manager.plans, self.dataset_json)
        more |= dict(zip(_DIGESTS, map(_digest, (self.images, decides, images)), strict=True))
        return {**asdict(self.options), "block": list(self.block), **more}

    @functools.cached_property
    def images(self) -> tuple[str, ...]:
        """The names of the images that are learned from."""
        return tuple(sorted([*map(str, self.do_split()[0]), *self.more_cases]))

    def on_train_end(self) -> None:
        """Finish as nnU-Net does, and remove ``checkpoint_previous.pth``."""
        super().on_train_end()
        if self.local_rank == 0:
            (Path(self.output_folder) / PREVIOUS).unlink(missing_ok=True)

    @torch.no_grad()
    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Draw a patch of the validation: the image, what is visible of it, and the reconstruction."""
        if self.local_rank == 0:
            self.network.eval()
            example = self.example[None].to(self.device)
            found = self.bare_network(example)
            draw(Path(self.output_folder) / "reconstruction.png", example[0].cpu(), found[0].float().cpu())


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _cases(dataset: Any) -> Cases:
    return Cases({name: (dataset, name) for name in dataset.identifiers})


def _repeated(patches: MaskedPatches, share: Share, pinned: bool) -> Iterator[dict]:
    while True:
        yield from batches(patches, share, 0, pinned)
