"""Variants of ClassScaleTrainer with fewer or more epochs or without mirroring, named as nnU-Net names its own."""

from .trainer import ClassScaleTrainer


class ClassScaleTrainer_NoMirroring(ClassScaleTrainer):
    """Trains without mirroring, for labels that differ between left and right: a mirrored image has them swapped."""

    mirroring = False


class ClassScaleTrainer_1epoch(ClassScaleTrainer):
    epochs = 1


class ClassScaleTrainer_5epochs(ClassScaleTrainer):
    epochs = 5


class ClassScaleTrainer_10epochs(ClassScaleTrainer):
    epochs = 10


class ClassScaleTrainer_20epochs(ClassScaleTrainer):
    epochs = 20


class ClassScaleTrainer_50epochs(ClassScaleTrainer):
    epochs = 50


class ClassScaleTrainer_100epochs(ClassScaleTrainer):
    epochs = 100


class ClassScaleTrainer_250epochs(ClassScaleTrainer):
    epochs = 250


class ClassScaleTrainer_500epochs(ClassScaleTrainer):
    epochs = 500


class ClassScaleTrainer_750epochs(ClassScaleTrainer):
    epochs = 750


class ClassScaleTrainer_2000epochs(ClassScaleTrainer):
    epochs = 2000


class ClassScaleTrainer_4000epochs(ClassScaleTrainer):
    epochs = 4000


class ClassScaleTrainer_8000epochs(ClassScaleTrainer):
    epochs = 8000


class ClassScaleTrainer_100epochs_NoMirroring(ClassScaleTrainer_NoMirroring):
    epochs = 100


class ClassScaleTrainer_250epochs_NoMirroring(ClassScaleTrainer_NoMirroring):
    epochs = 250


class ClassScaleTrainer_2000epochs_NoMirroring(ClassScaleTrainer_NoMirroring):
    epochs = 2000


class ClassScaleTrainer_4000epochs_NoMirroring(ClassScaleTrainer_NoMirroring):
    epochs = 4000


class ClassScaleTrainer_8000epochs_NoMirroring(ClassScaleTrainer_NoMirroring):
    epochs = 8000
