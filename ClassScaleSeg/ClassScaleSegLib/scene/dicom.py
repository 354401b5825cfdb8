"""Save a segmentation node as DICOM, for the series in Slicer's DICOM database that its volume was loaded from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OutputError
from ..images.dicom_seg import DicomSeg, UsedModel
from ..images.dicom_source import read_source
from ..images.segmentation import Segmentation
from ..labels.label import one_line

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

_INSTANCES = "DICOM.instanceUIDs"  # with which Slicer marks a volume that it has loaded from DICOM
_MODELS = "ClassScaleSeg.Models"


def remember_models(node: vtkMRMLSegmentationNode, models: Sequence[UsedModel]) -> None:
    """Note on a segmentation node which models found its structures."""
    node.SetAttribute(_MODELS, json.dumps([asdict(model) for model in models]))


def models_of(node: vtkMRMLSegmentationNode) -> tuple[UsedModel, ...]:
    """Return the models that :func:`remember_models` has noted. A scene from elsewhere is not trusted.

    >>> import slicer
    >>> node = slicer.vtkMRMLSegmentationNode()
    >>> remember_models(node, [UsedModel("Organs", licence="CC0-1.0")])
    >>> [model.name for model in models_of(node)]
    ['Organs']
    """
    try:
        noted = json.loads(node.GetAttribute(_MODELS) or "[]")
        texts = [[entry.get(key) for key in ("name", "licence", "sha256")] for entry in noted]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ()
    wanted = [(name, *more) for name, *more in texts if isinstance(name, str)]
    return tuple(
        UsedModel(one_line(name), *(one_line(text) if isinstance(text, str) else None for text in more))
        for name, *more in wanted
    )


def is_from_dicom(node: vtkMRMLSegmentationNode | None) -> bool:
    """Return whether the volume of a segmentation was loaded from Slicer's DICOM database."""
    volume = None if node is None else _volume(node)
    return volume is not None and bool(volume.GetAttribute(_INSTANCES))


def save_dicom(node: vtkMRMLSegmentationNode, result: Segmentation, path: str | Path) -> None:
    """Save what a segmentation node holds as DICOM, and replace the file if there is one.

    :param result: as :func:`~.results.segmentation_of` returns it.
    :param path: ``.seg.dcm``, or another DICOM format that `Segmentation.write` knows.
    :raises OutputError: if the series is not known, was changed, or the file cannot be written.
    :raises ImageError: if the series cannot be read.
    """
    volume = _volume(node)
    name = node.GetName() if volume is None else volume.GetName()
    if volume is None or not volume.GetAttribute(_INSTANCES):
        raise OutputError(
            f"{name} was not loaded from Slicer's DICOM database, so a DICOM file of its segmentation would have no "
            "patient and study. Import the series in the module DICOM, load it from there, and segment that volume; "
            "or save .seg.nrrd."
        )
    source = read_source(name, _files(volume))
    geometry, turn = result.geometry.turned_like(source.geometry)
    labels = np.ascontiguousarray(turn.apply(result.labels))
    turned = Segmentation(labels, result.table, geometry)
    turned.write(path, overwrite=True, source=DicomSeg(source, models=models_of(node)))


def _volume(node: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode | None:
    return node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())


def _files(volume: vtkMRMLScalarVolumeNode) -> list[Path]:
    """Return the files of the series; several frames may be in one.

    :raises OutputError: if the database does not have them, or they were moved.
    """
    import slicer

    database = slicer.dicomDatabase
    files: dict[Path, None] = {}
    for instance in volume.GetAttribute(_INSTANCES).split():
        file = database.fileForInstance(instance) if database is not None and database.isOpen else ""
        if not file or not Path(file).is_file():
            raise OutputError(
                f"The DICOM files of {volume.GetName()} are not in Slicer's DICOM database any more, and a DICOM "
                "segmentation refers to them. Import them again in the module DICOM, or save .seg.nrrd."
            )
        files[Path(file)] = None
    return list(files)
