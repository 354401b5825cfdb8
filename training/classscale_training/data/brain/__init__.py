"""Synthesise head images from the label maps of one finely labelled atlas and several coarsely labelled heads."""

from .cases import BrainCases, BrainOptions
from .label_maps import LabelMaps
from .tables import IGNORE_INDEX, BrainTables

__all__ = ["IGNORE_INDEX", "BrainCases", "BrainOptions", "BrainTables", "LabelMaps"]
