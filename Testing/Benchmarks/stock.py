"""Run one of nnU-Net's own commands, unmodified, where torchvision's compiled operators may be missing.

``python Testing/Benchmarks/stock.py nnUNetv2_train 901 small 0`` runs ``nnUNetv2_train 901 small 0``. With a CPU-only
torch, PyPI's torchvision raises "operator torchvision::nms does not exist" when nnU-Net's search for trainers imports
timm. Declaring the schemas first lets the import succeed; nothing here calls the operators.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

# torchvision registers Python shape functions for these at import; their exact signatures do not matter for that.
_OPERATORS = ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d", "qnms")
_BACKWARD = tuple(f"_{name}_backward" for name in _OPERATORS[1:6])


def declare_torchvision_operators() -> None:
    """Define torchvision's operators if its compiled library did not define them."""
    import torch

    for name in _OPERATORS + _BACKWARD:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")


def main() -> None:
    command = sys.argv[1]
    declare_torchvision_operators()
    (entry,) = [e for e in entry_points(group="console_scripts") if e.name == command]
    sys.argv = sys.argv[1:]
    entry.load()()


if __name__ == "__main__":
    main()
