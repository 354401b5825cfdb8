"""Head images synthesised from label maps alone: one finely labelled atlas subject, several coarsely labelled ones."""

from .cases import BrainCases, BrainOptions
from .label_maps import LabelMaps
from .tables import IGNORE_INDEX, BrainTables

__all__ = ["IGNORE_INDEX", "BrainCases", "BrainOptions", "BrainTables", "LabelMaps"]
