"""Everything of ClassScaleSeg that runs without Qt. Imports nothing heavy until it is used."""

from .inference.segmenter import segment, segment_array
from .model import Model, ModelError, open_model

__all__ = ["Model", "ModelError", "open_model", "segment", "segment_array"]
