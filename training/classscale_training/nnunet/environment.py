"""Prepare the environment of nnU-Net's commands: the folder of our trainers, and a torchvision that can be imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError

# On import, torchvision registers Python shape functions for these operators; their exact signatures do not matter.
_OPERATORS = ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d", "qnms")
_BACKWARD = tuple(f"_{name}_backward" for name in _OPERATORS[1:6])


def trainer_folder() -> Path:
    """Return the folder ``nnunet_trainers``, for the environment variable ``nnUNet_extTrainer``.

    An installation has it inside this package, a checkout of the repository next to it.
    """
    here = Path(__file__).resolve().parents[1]
    inside, beside = here / "nnunet_trainers", here.parent / "nnunet_trainers"
    return inside if inside.is_dir() else beside


def register_trainers() -> None:
    """Add :func:`trainer_folder` to the folders of ``nnUNet_extTrainer``, for this process and its children."""
    folders = [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if folder]
    if str(trainer_folder()) not in folders:
        os.environ["nnUNet_extTrainer"] = os.pathsep.join([*folders, str(trainer_folder())])


def require_folders(*names: str) -> None:
    """Check that environment variables are set.

    :param names: of nnU-Net's variables that a command needs.
    :raises ClassScaleError: naming the first variable that is not set.
    """
    for name in names:
        if not os.environ.get(name):
            raise ClassScaleError(
                f"The environment variable {name} is not set. Set nnUNet_raw, nnUNet_preprocessed and nnUNet_results "
                "to the folders in which nnU-Net keeps its data."
            )


def make_torchvision_importable() -> None:
    """Import torchvision even if its compiled operators are missing; nnU-Net imports it when it looks up a trainer.

    With a CPU-only torch, the torchvision of PyPI raises "operator torchvision::nms does not exist" on import. nnU-Net
    never calls these operators, so it is enough to declare them. If torchvision works or is not installed, nothing
    changes.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # remove what was imported before the error
        for name in _OPERATORS + _BACKWARD:
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
        import torchvision  # noqa: F401
