"""Variants of ClassScaleTrainer with fewer or more epochs or without mirroring, named as nnU-Net names its own."""

from .environment import LENGTHS
from .trainer import ClassScaleTrainer


class ClassScaleTrainer_NoMirroring(ClassScaleTrainer):
    """Trains without mirroring, for labels that differ between left and right: a mirrored image has them swapped."""

    mirroring = False


def _add_lengths(base: type[ClassScaleTrainer], ending: str) -> None:
    for epochs in LENGTHS:
        name = f"ClassScaleTrainer_{epochs}epoch{'s' if epochs > 1 else ''}{ending}"
        globals()[name] = type(name, (base,), {"epochs": epochs})


# such as ClassScaleTrainer_1epoch, ClassScaleTrainer_250epochs and ClassScaleTrainer_250epochs_NoMirroring
_add_lengths(ClassScaleTrainer, "")
_add_lengths(ClassScaleTrainer_NoMirroring, "_NoMirroring")
