"""Everything of ClassScaleSeg that runs without Qt. Imports nothing heavy until it is used.

from ClassScaleSegLib import open_model, segment
segment("ct.nii.gz", open_model("Dataset297_X/nnUNetTrainer__nnUNetPlans__3d_fullres")).write("ct.seg.nrrd")
"""

from .errors import (
    Cancelled,
    ClassScaleError,
    ImageError,
    LabelTableError,
    ModelError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
)
from .inference.progress import Progress
from .inference.segmenter import Options, segment
from .labels import Code, Label, LabelTable
from .model import Model, open_model
from .packing import pack
from .segmentation import Geometry, Segmentation

__all__ = [
    "Cancelled",
    "ClassScaleError",
    "Code",
    "Geometry",
    "ImageError",
    "Label",
    "LabelTable",
    "LabelTableError",
    "Model",
    "ModelError",
    "Options",
    "OutOfMemoryError",
    "OutputError",
    "OutputExistsError",
    "Progress",
    "Segmentation",
    "open_model",
    "pack",
    "segment",
]
