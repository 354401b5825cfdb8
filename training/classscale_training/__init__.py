"""Training with hundreds to a thousand classes in the memory of a low-rank basis.

Importable with torch and numpy alone.
"""

from .head import ClassScaleHead
from .label_sets import LabelSets
from .losses import CrossEntropyDiceLoss, DeepSupervisionLoss, RegionLoss
from .region_statistics import RegionStatistics, region_statistics
from .statistics import ClassStatistics, class_statistics

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
