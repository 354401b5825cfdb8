"""The part of ClassScaleSeg that runs without Qt. Importing it does not import torch or nnunetv2.

Segment an image with an nnU-Net v2 model::

    from ClassScaleSegLib import open_model, segment

    model = open_model("Dataset297_X/nnUNetTrainer__nnUNetPlans__3d_fullres")
    segment("ct.nii.gz", model).write("ct.seg.nrrd")
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
from .images.dicom_seg import DicomSeg, UsedModel
from .images.geometry import Geometry
from .images.segmentation import Segmentation
from .inference.progress import Progress
from .inference.segmenter import segment
from .labels.label import Code, Label
from .labels.table import LabelTable
from .models.model import Model, open_model
from .models.packing import pack
from .options import Options
from .report.report import Report

__all__ = [
    "Cancelled",
    "ClassScaleError",
    "Code",
    "DicomSeg",
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
    "Report",
    "Segmentation",
    "UsedModel",
    "open_model",
    "pack",
    "segment",
]
