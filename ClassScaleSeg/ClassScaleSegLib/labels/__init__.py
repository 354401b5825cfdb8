"""Label tables: the name, colour and terminology codes of each label value."""

from .label import Code, Label
from .table import LabelTable

__all__ = ["Code", "Label", "LabelTable"]
