"""Head images synthesised from label maps alone: one finely labelled atlas subject, several coarsely labelled ones."""

from .cases import HeadCases, HeadOptions
from .label_maps import LabelMaps
from .tables import IGNORE_INDEX, HeadTables

__all__ = ["IGNORE_INDEX", "HeadCases", "HeadOptions", "HeadTables", "LabelMaps"]
