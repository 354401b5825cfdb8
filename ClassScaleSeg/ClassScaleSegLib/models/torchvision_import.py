"""A torchvision that can be imported: Primus needs timm, and timm imports it."""

from __future__ import annotations

import sys

# On import, torchvision registers Python shape functions for these operators; their exact signatures do not matter.
_OPERATORS = ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d", "qnms")
_BACKWARD = tuple(f"_{name}_backward" for name in _OPERATORS[1:6])


def make_torchvision_importable() -> None:
    """Import torchvision even if its compiled operators are missing.

    nnU-Net imports it with Primus, which it does when it looks up a trainer. With a CPU-only torch, the torchvision of
    PyPI raises "operator torchvision::nms does not exist" on import. nnU-Net never calls these operators, so it is
    enough to declare them. If torchvision works or is not installed, nothing changes.
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
