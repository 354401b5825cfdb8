"""The part of ClassScaleSeg that runs without Qt. Importing it does not import torch or nnunetv2.

Segment an image with an nnU-Net v2 model::

    from ClassScaleSegLib import open_model, segment

    model = open_model("Dataset297_X/nnUNetTrainer__nnUNetPlans__3d_fullres")
    segment("ct.nii.gz", model).write("ct.seg.nrrd")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog.opening import open_model
    from .errors import (
        Cancelled,
        ClassScaleError,
        ImageError,
        LabelTableError,
        ModelError,
        OutOfMemoryError,
        OutputError,
        OutputExistsError,
        ServerError,
    )
    from .images.dicom.seg import DicomSeg, UsedModel
    from .images.geometry import Geometry
    from .images.segmentation import Segmentation
    from .inference.progress import Progress
    from .inference.segmenter import segment
    from .labels.label import Code, Label
    from .labels.table import LabelTable
    from .models.model import Model
    from .models.packing import pack
    from .options import Options
    from .remote.segmenter import RemoteSegmenter
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
    "RemoteSegmenter",
    "Report",
    "Segmentation",
    "ServerError",
    "UsedModel",
    "open_model",
    "pack",
    "segment",
]

# Where each name is. It is imported when it is first used, because Slicer imports this package while it starts.
_PLACES = {
    "Cancelled": "errors",
    "ClassScaleError": "errors",
    "Code": "labels.label",
    "DicomSeg": "images.dicom.seg",
    "Geometry": "images.geometry",
    "ImageError": "errors",
    "Label": "labels.label",
    "LabelTable": "labels.table",
    "LabelTableError": "errors",
    "Model": "models.model",
    "ModelError": "errors",
    "Options": "options",
    "OutOfMemoryError": "errors",
    "OutputError": "errors",
    "OutputExistsError": "errors",
    "Progress": "inference.progress",
    "RemoteSegmenter": "remote.segmenter",
    "Report": "report.report",
    "Segmentation": "images.segmentation",
    "ServerError": "errors",
    "UsedModel": "images.dicom.seg",
    "open_model": "catalog.opening",
    "pack": "models.packing",
    "segment": "inference.segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(name)
    found = globals()[name] = getattr(import_module(f".{_PLACES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
