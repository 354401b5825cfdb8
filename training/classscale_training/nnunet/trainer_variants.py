"""Variants of ClassScaleTrainer with fewer or more epochs or without mirroring, named as nnU-Net names its own."""

from .trainer import ClassScaleTrainer

LENGTHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)  # epochs, besides nnU-Net's 1000


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
