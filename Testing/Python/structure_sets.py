"""Write RT Structure Sets as planning systems do, and as no program should."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
FRAME = "1.2.826.0.1.3680043.8.498.7"


@dataclass
class Contour:
    """A contour: its points, ``(n, 3)`` LPS in mm, or the text that is written in their place."""

    points: Sequence[Sequence[float]] | np.ndarray | str
    kind: str = "CLOSED_PLANAR"
    declared: int | None = None


@dataclass
class Drawn:
    """A structure; `references` is the number by which its contours name it, if that differs."""

    name: str
    contours: Sequence[Contour] = ()
    number: object = None
    frame: str = FRAME
    color: Sequence[int] | None = (255, 0, 1)
    references: int | None = None
    codes: dict[str, tuple[str, str, str]] = field(default_factory=dict)


def rectangle(z: float, x: tuple[float, float], y: tuple[float, float], kind: str = "CLOSED_PLANAR") -> Contour:
    """Return a rectangle in an axial plane, from and to these coordinates in mm."""
    return Contour([(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)], kind)


def write_structures(path: Path, drawn: Sequence[Drawn], syntax: str = ImplicitVRLittleEndian, **tags) -> Path:
    """Write a structure set; `tags` are further elements, ``None`` removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = STRUCTURE_SET, syntax
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    found.SOPClassUID, found.SOPInstanceUID = STRUCTURE_SET, meta.MediaStorageSOPInstanceUID
    found.Modality, found.StructureSetLabel = "RTSTRUCT", "drawn"
    found.SpecificCharacterSet = "ISO_IR 192"
    found.StructureSetROISequence, found.ROIContourSequence, found.RTROIObservationsSequence = [], [], []
    for index, one in enumerate(drawn, 1):
        number = index if one.number is None else one.number
        listed, contours, observation = Dataset(), Dataset(), Dataset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, on long names
            listed.ROIName = one.name
        listed.ROINumber, listed.ReferencedFrameOfReferenceUID = number, one.frame
        contours.ReferencedROINumber = number if one.references is None else one.references
        if one.color is not None:
            contours.ROIDisplayColor = list(one.color)
        if one.contours:
            contours.ContourSequence = [_contour(contour) for contour in one.contours]
        observation.ObservationNumber, observation.ReferencedROINumber = index, number
        for keyword, code in one.codes.items():
            setattr(observation, keyword, [_code(*code)])
        found.StructureSetROISequence.append(listed)
        found.ROIContourSequence.append(contours)
        found.RTROIObservationsSequence.append(observation)
    for keyword, value in tags.items():
        if value is None:
            delattr(found, keyword)
        else:
            setattr(found, keyword, value)
    found.save_as(path, enforce_file_format=True)
    return path


def _contour(contour: Contour) -> Dataset:
    item = Dataset()
    item.ContourGeometricType = contour.kind
    if isinstance(contour.points, str):
        # an element of bytes is written as it is
        item.add_new(0x30060050, "OB", contour.points.encode())
        count = len(contour.points.split("\\")) // 3
    else:
        points = np.asarray(contour.points, float)
        item.add_new(0x30060050, "OB", "\\".join(f"{value:.4f}" for value in points.ravel()).encode())
        count = len(points)
    item.NumberOfContourPoints = count if contour.declared is None else contour.declared
    return item


def _code(scheme: str, value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
