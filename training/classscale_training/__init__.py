"""Train segmentation networks with hundreds to a thousand classes in memory that does not grow with the classes.

The names below are what users import: the low-rank head, the sums that losses are made of, and the losses. Each is
loaded when it is first used, as commands that need no torch should not wait for it. This package imports with torch and
NumPy alone; ``commands`` and ``nnunet`` need nnU-Net as well.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loss.class_statistics import ClassStatistics, class_statistics
    from .loss.label_sets import LabelSets
    from .loss.losses import CrossEntropyDiceLoss, DeepSupervisionLoss, RegionLoss
    from .loss.region_statistics import RegionStatistics, region_statistics
    from .loss.soft_dice import SoftDice
    from .network.low_rank_head import ClassScaleHead

__all__ = [
    "ClassScaleHead",
    "ClassStatistics",
    "CrossEntropyDiceLoss",
    "DeepSupervisionLoss",
    "LabelSets",
    "RegionLoss",
    "RegionStatistics",
    "SoftDice",
    "class_statistics",
    "region_statistics",
]

_PLACES = {
    "ClassScaleHead": "network.low_rank_head",
    "ClassStatistics": "loss.class_statistics",
    "CrossEntropyDiceLoss": "loss.losses",
    "DeepSupervisionLoss": "loss.losses",
    "LabelSets": "loss.label_sets",
    "RegionLoss": "loss.losses",
    "RegionStatistics": "loss.region_statistics",
    "SoftDice": "loss.soft_dice",
    "class_statistics": "loss.class_statistics",
    "region_statistics": "loss.region_statistics",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(name)
    found = globals()[name] = getattr(import_module(f".{_PLACES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
