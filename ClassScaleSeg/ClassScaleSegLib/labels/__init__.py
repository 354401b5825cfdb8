"""What label values mean: names, colours, terminology codes."""

from .label import Code, Label
from .table import LabelTable

__all__ = ["Code", "Label", "LabelTable"]
