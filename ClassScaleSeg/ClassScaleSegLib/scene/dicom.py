"""Save a segmentation node as DICOM, for the series that its volume was loaded from.

That is a series of Slicer's DICOM database, or one in a folder, which this module has loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ClassScaleError, OutputError
from ..images.dicom.deflate import read_header
from ..images.dicom.headers import is_dicom, visible_files
from ..images.dicom.seg import KINDS, DicomSeg, UsedModel
from ..images.dicom.source import SourceSeries, read_source
from ..images.segmentation import Segmentation
from ..labels.label import one_line

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from ..images.counts import LabelVolume

_INSTANCES = "DICOM.instanceUIDs"  # with which Slicer marks a volume that it has loaded from DICOM
# with which this module marks one that it has loaded from a folder, and an image there: folders may get another patient
_FOLDER, _INSTANCE = "ClassScaleSeg.SeriesFolder", "ClassScaleSeg.SeriesInstance"
_ORIGIN = "ClassScaleSeg.Origin"


def remember_folder(volume: vtkMRMLScalarVolumeNode, folder: Path) -> None:
    """Note on a volume from which folder with a DICOM series it was loaded."""
    volume.SetAttribute(_FOLDER, str(folder))
    volume.SetAttribute(_INSTANCE, _instance_in(folder))


def remember_origin(node: vtkMRMLSegmentationNode, models: Sequence[UsedModel], volumes: Iterable[LabelVolume]) -> None:
    """Note on a segmentation node which models found its structures, and how these were called and how large they were.

    :param volumes: the statistics of the result.
    """
    noted = {"models": [asdict(model) for model in models], "voxels": _fingerprint(volumes)}
    node.SetAttribute(_ORIGIN, json.dumps(noted))


def origin_of(node: vtkMRMLSegmentationNode) -> tuple[tuple[UsedModel, ...], str]:
    """Return the models that :func:`remember_origin` has noted, and the fingerprint of what they found.

    A scene from elsewhere is not trusted: what cannot be understood is as if nothing had been noted.

    >>> import slicer
    >>> node = slicer.vtkMRMLSegmentationNode()
    >>> remember_origin(node, [UsedModel("Organs", licence="CC0-1.0")], [])
    >>> [model.name for model in origin_of(node)[0]]
    ['Organs']
    """
    try:
        noted = json.loads(node.GetAttribute(_ORIGIN) or "{}")
        texts = [[entry.get(key) for key in ("name", "licence", "sha256")] for entry in noted.get("models", ())]
        fingerprint = str(noted.get("voxels"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return (), ""
    named = [(name, *more) for name, *more in texts if isinstance(name, str)]
    models = (
        UsedModel(one_line(name), *(one_line(text) if isinstance(text, str) else None for text in more))
        for name, *more in named
    )
    return tuple(models), fingerprint


def is_result(node: vtkMRMLSegmentationNode) -> bool:
    """Return whether a run has filled a segmentation node, whatever was changed afterwards."""
    return node.GetAttribute(_ORIGIN) is not None


def unedited_result_of(node: vtkMRMLSegmentationNode, volumes: Iterable[LabelVolume]) -> tuple[UsedModel, ...]:
    """Return the models that found the structures of a node; none if somebody has edited them, or drawn them.

    :param volumes: the statistics of what the node holds now.
    """
    models, fingerprint = origin_of(node)
    return models if fingerprint == _fingerprint(volumes) else ()


def _fingerprint(volumes: Iterable[LabelVolume]) -> str:
    found = [[row.value, row.name, row.voxels] for row in volumes if row.voxels]
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def is_from_dicom(node: vtkMRMLSegmentationNode | None) -> bool:
    """Return whether the volume of a segmentation was loaded from DICOM: Slicer's database, or a folder."""
    volume = None if node is None else _volume(node)
    return volume is not None and _is_from_dicom(volume)


def frame_of_reference(volume: vtkMRMLScalarVolumeNode) -> str:
    """Return the FrameOfReferenceUID of a volume; "" if it was not loaded from DICOM."""
    try:
        if volume.GetAttribute(_INSTANCES):
            header = read_header(_files(volume)[0])
        elif _is_from_dicom(volume):
            header = _source(volume).header
        else:
            return ""
    except (ClassScaleError, OSError):
        return ""
    return str(header.get("FrameOfReferenceUID") or "")


def save_dicom(
    node: vtkMRMLSegmentationNode,
    result: Segmentation,
    volumes: Iterable[LabelVolume],
    path: str | Path,
    tell: Callable[[str], object],
) -> None:
    """Save what a segmentation node holds as DICOM, and replace the file if there is one.

    The file says that the structures were found automatically, or semi-automatically if somebody has edited them.

    :param result: as :func:`~.results.segmentation_of` returns it, with its statistics ``volumes``.
    :param path: ``.seg.dcm``, or another DICOM format that `Segmentation.write` knows.
    :param tell: called with each sentence that the user should see.
    :raises OutputError: if the series is not known or was changed, the structures were not found by this module, or the
        file cannot be written.
    :raises ImageError: if the series cannot be read.
    """
    volume = _volume(node)
    if volume is None:
        raise OutputError(
            f"The volume of {node.GetName()} was removed from the scene, and a DICOM file refers to its series. Load "
            "it again and segment it, or save .seg.nrrd."
        )
    name = volume.GetName()
    if not _is_from_dicom(volume):
        raise OutputError(
            f"{name} was not loaded from DICOM, so a DICOM file of its segmentation would have no patient and study. "
            "Import the series in the module DICOM, load it from there, and segment that volume; or save .seg.nrrd."
        )
    models = origin_of(node)[0]
    if not models:
        raise OutputError(
            f"It is not known which model found the structures of {node.GetName()}, which a DICOM file must say. In "
            "the module Data, right-click it and choose Export to DICOM."
        )
    edited = not unedited_result_of(node, volumes)
    source = _source(volume)
    geometry, turn = result.geometry.turned_like(source.geometry)
    labels, *more = (np.ascontiguousarray(turn.apply(layer)) for layer in result.layers)
    turned = Segmentation(labels, result.table, geometry, more_layers=tuple(more))
    kind = "binary" if more else KINDS[0]  # a label map cannot hold structures that overlap
    turned.write(path, overwrite=True, source=DicomSeg(source, kind, models, tell, edited))


def write_report(segmentation: Path, path: Path) -> None:
    """Measure what a DICOM segmentation holds, and write a structured report that refers to it.

    :param segmentation: a ``.seg.dcm`` that :func:`save_dicom` has written.
    :param path: ``.sr.dcm``; replaced if it is there.
    :raises ImageError: if the segmentation cannot be read.
    :raises OutputError: if the report cannot be written.
    """
    Segmentation.from_image(segmentation).write_statistics(path, overwrite=True, segmentation=segmentation)


def _volume(node: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode | None:
    return node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())


def _is_from_dicom(volume: vtkMRMLScalarVolumeNode) -> bool:
    return bool(volume.GetAttribute(_INSTANCES) or volume.GetAttribute(_FOLDER))


def _source(volume: vtkMRMLScalarVolumeNode) -> SourceSeries:
    """Read the headers of the series that a volume was loaded from.

    :raises OutputError: if its files are gone.
    :raises ImageError: if they are no volume.
    """
    if volume.GetAttribute(_INSTANCES):
        return read_source(volume.GetName(), _files(volume))
    folder = Path(volume.GetAttribute(_FOLDER))
    if not folder.is_dir():
        raise OutputError(
            f"{folder}, from which {volume.GetName()} was loaded, is gone, and a DICOM segmentation refers to its "
            "files. Put them there again, or save .seg.nrrd."
        )
    if _instance_in(folder) != volume.GetAttribute(_INSTANCE):
        raise OutputError(
            f"{folder} has other files than when {volume.GetName()} was loaded from it, and a DICOM segmentation would "
            "get the patient of these. Load the series again and segment it, or save .seg.nrrd."
        )
    return read_source(folder)


def _instance_in(folder: Path) -> str:
    """Return the SOPInstanceUID of the first DICOM file in a folder; "" if there is none that can be read."""
    try:
        file = next((file for file in visible_files(folder) if file.is_file() and is_dicom(file)), None)
        return "" if file is None else str(read_header(file).get("SOPInstanceUID") or "")
    except Exception:  # pydicom raises whatever a damaged header makes it raise
        return ""


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
