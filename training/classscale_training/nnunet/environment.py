"""What nnU-Net's commands need to know before they run: where our trainers are, and a torchvision that imports."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError

# torchvision registers Python shape functions for these at import; their exact signatures do not matter for that
_OPERATORS = ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d", "qnms")
_BACKWARD = tuple(f"_{name}_backward" for name in _OPERATORS[1:6])


def trainer_folder() -> Path:
    """The folder that the environment variable ``nnUNet_extTrainer`` is to name: beside or inside this package."""
    here = Path(__file__).resolve().parents[1]
    inside, beside = here / "nnunet_trainers", here.parent / "nnunet_trainers"
    return inside if inside.is_dir() else beside


def register_trainers() -> None:
    """Add :func:`trainer_folder` to ``nnUNet_extTrainer`` of this process and its children; keep what is there."""
    folders = [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if folder]
    if str(trainer_folder()) not in folders:
        os.environ["nnUNet_extTrainer"] = os.pathsep.join([*folders, str(trainer_folder())])


def require_folders(*names: str) -> None:
    """:raises ClassScaleError: naming the first of these environment variables that is not set."""
    for name in names:
        if not os.environ.get(name):
            raise ClassScaleError(
                f"The environment variable {name} is not set: nnU-Net finds its data by nnUNet_raw, "
                "nnUNet_preprocessed and nnUNet_results."
            )


def make_torchvision_importable() -> None:
    """Import torchvision, which nnU-Net's trainer lookup does, where its compiled operators may be missing.

    PyPI's torchvision beside a CPU-only torch raises "operator torchvision::nms does not exist". Nothing in nnU-Net
    calls the operators, so declaring them lets the import pass. Changes nothing where torchvision works or is absent.
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
            del sys.modules[name]  # half imported
        for name in _OPERATORS + _BACKWARD:
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
        import torchvision  # noqa: F401
