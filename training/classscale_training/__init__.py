"""Training with hundreds to a thousand classes in the memory of a low-rank basis.

Importable with torch and numpy alone.
"""

from .loss.class_statistics import ClassStatistics, class_statistics
from .loss.label_sets import LabelSets
from .loss.losses import CrossEntropyDiceLoss, DeepSupervisionLoss, RegionLoss
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
    "class_statistics",
    "region_statistics",
]
