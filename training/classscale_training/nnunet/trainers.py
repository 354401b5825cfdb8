"""Find a trainer by its name: ours, nnU-Net's or the user's own."""

from __future__ import annotations

import os

from ClassScaleSegLib.errors import ModelError

from .environment import TRAINER, make_torchvision_importable, register_trainers, trainer_folder

_NO_TRAINER = "Could not find requested nnunet trainer"  # nnU-Net's words


def find_trainer(name: str) -> type:
    """Return nnU-Net's trainer, ours or the user's own with this name.

    :raises ModelError: if there is none.
    """
    register_trainers()
    if os.environ["nnUNet_extTrainer"] == str(trainer_folder()) and (ours := _ours(name)) is not None:
        return ours
    make_torchvision_importable()
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        if _NO_TRAINER not in str(error):
            raise
        raise ModelError(
            f"There is no trainer {name}. Name {TRAINER}, {TRAINER}_NoMirroring, {TRAINER}_250epochs or another "
            "one, and set nnUNet_extTrainer to the folder if it is one of your own."
        ) from error


def _ours(name: str) -> type | None:
    """Return our trainer without nnU-Net's search, which first imports all of its own, with Primus and torchvision.

    That takes a second. A folder of the user's may have a trainer of the same name, and is searched.
    """
    if not name.startswith(TRAINER):
        return None
    from . import trainer_variants

    found = getattr(trainer_variants, name, None)
    if found is None and "Primus" in name:
        from . import primus_trainers

        found = getattr(primus_trainers, name, None)
    return found
