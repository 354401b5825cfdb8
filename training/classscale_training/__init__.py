"""Train segmentation networks with hundreds to a thousand classes in memory that does not grow with the classes.

The names below are what users import: the low-rank head, the sums that losses are made of, and the losses. This package
imports with torch and NumPy alone; ``commands`` and ``nnunet`` need nnU-Net as well.
"""

from .loss.class_statistics import ClassStatistics, class_statistics
from .loss.label_sets import LabelSets
from .loss.losses import CrossEntropyDiceLoss, DeepSupervisionLoss, RegionLoss, SoftDice
from .loss.region_statistics import RegionStatistics, region_statistics
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
