"""Trainers of Primus with the low-rank head, named as nnU-Net names its own: nnU-Net chooses a Primus by the trainer.

Optimiser, warm-up and clipping of gradients are those of nnU-Net's trainers of Primus. The plans, which describe a
U-Net, give all but the network: the patch, the spacing, the normalisation. The plans that are stored beside the
checkpoints name the Primus, so that the checkpoints say what they are.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models.architecture import check_architecture
from ClassScaleSegLib.models.networks import DEFAULT_RANK, RANK_ENTRY, SIZED, is_primus, sized_primus

from ..network.low_rank_head import decoder_of
from .environment import make_torchvision_importable
from .trainer import ClassScaleTrainer

make_torchvision_importable()
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from nnunetv2.training.nnUNetTrainer.primus.primus_trainers import AbstractPrimus  # noqa: E402


class _Schedule(AbstractPrimus):
    """Optimiser, warm-up and clipping of gradients of nnU-Net's trainers of Primus, which can be continued."""

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint as nnU-Net's other trainers do, after choosing the stage of the schedule.

        What nnU-Net 2.8 has for schedules with a warm-up opens the file in a way that refuses NumPy's numbers.
        """
        epoch = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=False)["current_epoch"]
        if not self.was_initialized:
            self.initialize()
        stage = "warmup_all" if epoch < self.warmup_duration_whole_net else "train"
        self.optimizer, self.lr_scheduler = self.configure_optimizers(stage)
        nnUNetTrainer.load_checkpoint(self, filename_or_checkpoint)


class ClassScaleTrainer_Primus(ClassScaleTrainer, _Schedule):
    """Trains the Primus that the plans name. The classes below train those of the published sizes under any plans.

    :cvar size: such as ``PrimusM``; None for the network of the plans.
    :raises ModelError: if the plans name another network, or the patch does not fit.
    """

    size: str | None = None
    trains_primus = True

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = True  # to nnU-Net, this is what makes the network return its bases: here, one
        entries = self.configuration_manager.configuration
        entries.update(self._with_primus(entries, self.label_manager.num_segmentation_heads))
        network = {key: entries[key] for key in ("architecture", RANK_ENTRY)}
        self.plans_manager.plans["configurations"][configuration].update(copy.deepcopy(network))

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """Build the Primus; the arguments are those of :class:`.ClassScaleTrainer`."""
        chosen = copy.copy(configuration_manager)
        chosen.configuration = cls._with_primus(configuration_manager.configuration, num_output_channels)
        return ClassScaleTrainer.build_network_architecture(
            plans_manager, chosen, num_input_channels, num_output_channels, enable_deep_supervision
        )

    @classmethod
    def _with_primus(cls, entries: dict, classes: int) -> dict:
        """Return the entries of a configuration with the checked architecture of the Primus, and its rank."""
        entries = copy.deepcopy(entries)
        if cls.size is not None:
            entries["architecture"] = sized_primus(cls.size, drop_path_rate=0.2)
        check_architecture(entries)
        if not is_primus(entries["architecture"]):
            raise ModelError(
                f"{cls.__name__} trains the Primus that the plans name, but they name a U-Net. Choose a trainer with a "
                "size, such as ClassScaleTrainer_Primus_M, or name the network in the plans."
            )
        if entries.get(RANK_ENTRY) is None:
            entries[RANK_ENTRY] = min(DEFAULT_RANK, classes)
        return entries

    def _get_deep_supervision_scales(self) -> list[list[float]]:
        return [[1.0, 1.0, 1.0]]

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Choose whether the network returns its basis, as in training, or logits."""
        decoder_of(self.bare_network).deep_supervision = enabled


def _trainers() -> dict[str, type]:
    """Return a trainer for each of nnU-Net's, and one without mirroring."""
    made = {}
    for size in SIZED:
        name = "ClassScaleTrainer_" + (size if "V" in size else f"Primus_{size[-1]}")
        for ending, mirroring in (("", True), ("_NoMirroring", False)):
            text = f"Trains {size}{'' if mirroring else ' without mirroring'} under any plans."
            entries = {"size": size, "mirroring": mirroring, "__module__": __name__, "__doc__": text}
            made[name + ending] = type(name + ending, (ClassScaleTrainer_Primus,), entries)
    return made


# such as ClassScaleTrainer_Primus_M, ClassScaleTrainer_PrimusV2S and ClassScaleTrainer_PrimusV3L_NoMirroring
globals().update(_trainers())
