"""Write DICOM series and multi-frame objects with pydicom, and compare what is read with what was written.

Every plane is described by itself, so that any of them can be odd. The comparison goes by places in space: at the
place of each pixel that was written, the volume must have a voxel of its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PET = "1.2.840.10008.5.1.4.1.1.128"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass
class Plane:
    """One plane of a volume.

    :ivar stored: ``(rows, columns)``, the values in the file.
    :ivar tags: further elements of its header by keyword; ``None`` removes one.
    """

    stored: np.ndarray
    position: Sequence[float]
    directions: Sequence[float] = (1, 0, 0, 0, 1, 0)
    spacing: Sequence[float] = (3.0, 2.0)
    slope: float = 1.0
    intercept: float = 0.0
    decimals: int | None = None
    tags: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> np.ndarray:
        return self.stored * float(self.slope) + float(self.intercept)

    @property
    def places(self) -> np.ndarray:
        """``(rows, columns, 3)``: LPS in mm."""
        row, column = np.reshape(np.array(self.directions, float), (2, 3))
        rows, columns = np.indices(self.stored.shape)
        return (
            np.array(self.position)
            + columns[..., None] * self.spacing[1] * row
            + rows[..., None] * self.spacing[0] * column
        )

    def written_position(self) -> list[str]:
        return [f"{x:.{self.decimals}f}" if self.decimals is not None else f"{x:.10g}" for x in self.position]


def planes(
    count: int = 6,
    shape: tuple[int, int] = (5, 4),
    origin: Sequence[float] = (-40.0, 12.0, 7.0),
    step: Sequence[float] = (0.0, 0.0, 5.0),
    dtype: Any = np.int16,
    seed: int = 0,
    **common: Any,
) -> list[Plane]:
    """Return planes of random values at equal steps."""
    random = np.random.default_rng(seed)
    low = -1000 if np.dtype(dtype).kind == "i" else 0
    return [
        Plane(random.integers(low, 2000, shape).astype(dtype), np.add(origin, np.multiply(k, step)).tolist(), **common)
        for k in range(count)
    ]


def tilted(degrees: float) -> tuple[float, ...]:
    """Return the directions of slices that are tilted about the x axis, as those of a tilted gantry."""
    angle = np.deg2rad(degrees)
    return (1, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle)))


def write_series(
    folder: Path, volume: Sequence[Plane], series: str = "", name: str = "IM{:04}.dcm", **tags: Any
) -> Path:
    """Write one file for each plane."""
    folder.mkdir(exist_ok=True, parents=True)
    series = series or generate_uid()
    for number, plane in enumerate(volume):
        dataset = _dataset(plane.stored.shape, plane.stored.dtype, series, number + 1)
        _set(dataset, _place(plane) | {"RescaleSlope": plane.slope, "RescaleIntercept": plane.intercept})
        _set(dataset, tags | plane.tags)
        dataset.PixelData = np.ascontiguousarray(plane.stored).tobytes()
        dataset.save_as(folder / name.format(number), enforce_file_format=True)
    return folder


def write_frames(
    file: Path, volume: Sequence[Plane], sop: str = ENHANCED_CT, shared: Sequence[str] = (), **tags: Any
) -> Path:
    """Write all planes as frames of one object.

    :param shared: groups of the first plane that hold for all frames: "orientation", "measures", "rescale".
    """
    file.parent.mkdir(exist_ok=True, parents=True)
    dataset = _dataset(volume[0].stored.shape, volume[0].stored.dtype, generate_uid(), 1, sop)
    dataset.NumberOfFrames = len(volume)
    groups = [_groups(plane) for plane in volume]
    dataset.SharedFunctionalGroupsSequence = [_group({name: groups[0][name] for name in shared})]
    dataset.PerFrameFunctionalGroupsSequence = [
        _group({name: content for name, content in group.items() if name not in shared}) for group in groups
    ]
    _set(dataset, tags)
    dataset.PixelData = np.stack([plane.stored for plane in volume]).tobytes()
    dataset.save_as(file, enforce_file_format=True)
    return file


def write_structure_set(file: Path) -> None:
    dataset = _dataset((1, 1), np.dtype(np.int16), generate_uid(), 1, STRUCTURE_SET)
    pixels = (
        "Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation"
    )
    for keyword in pixels.split():
        delattr(dataset, keyword)
    dataset.Modality = "RTSTRUCT"
    dataset.save_as(file, enforce_file_format=True)


def localizer(shape: tuple[int, int] = (5, 4), directions: Sequence[float] = (1, 0, 0, 0, 0, -1)) -> Plane:
    """Return a plane across the others, whose header says that it is a localizer."""
    return Plane(
        np.full(shape, 700, np.int16),
        (-40, 60, 150),
        directions,
        tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    )


def without(volume: Sequence[Plane], *indices: int) -> list[Plane]:
    return [plane for index, plane in enumerate(volume) if index not in indices]


def but(volume: Sequence[Plane], index: int, **changes: Any) -> list[Plane]:
    """Return the planes with one of them changed."""
    return [replace(plane, **changes) if number == index else plane for number, plane in enumerate(volume)]


def compare(read: Any, volume: Sequence[Plane], value_tolerance: float = 0.0) -> float:
    """Return how far voxels are from the places of the pixels that were written, mm.

    :param read: as `read_image` returns it.
    :raises AssertionError: if the number of planes, or a value, differs.
    """
    array, geometry = read.voxels[0], read.geometry
    assert len(array) == len(volume), f"{len(array)} slices were read, {len(volume)} written"
    inverse, worst = np.linalg.inv(geometry.axes), 0.0
    for plane in volume:
        places = plane.places
        index = np.rint((places - geometry.origin) @ inverse.T).astype(int)
        assert (index >= 0).all() and (index < geometry.size).all(), "a pixel is outside of the volume"
        found = array[index[..., 2], index[..., 1], index[..., 0]].astype(float)
        assert np.abs(found - plane.values).max() <= value_tolerance, (
            f"values differ by {np.abs(found - plane.values).max()}"
        )
        worst = max(worst, float(np.linalg.norm(index @ geometry.axes.T + geometry.origin - places, axis=-1).max()))
    return worst


def _dataset(shape: Sequence[int], dtype: np.dtype, series: str, number: int, sop: str = CT) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "P", "Phantom"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1", series
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(dtype.kind == "i")
    return dataset


def _place(plane: Plane) -> dict[str, Any]:
    return {
        "ImagePositionPatient": plane.written_position(),
        "ImageOrientationPatient": [f"{x:.10g}" for x in plane.directions],
        "PixelSpacing": [f"{x:.10g}" for x in plane.spacing],
    }


def _groups(plane: Plane) -> dict[str, tuple[str, dict[str, Any]]]:
    place = {keyword: value for keyword, value in _place(plane).items() if plane.tags.get(keyword, value) is not None}
    content = {
        "position": ("PlanePositionSequence", ["ImagePositionPatient"]),
        "orientation": ("PlaneOrientationSequence", ["ImageOrientationPatient"]),
        "measures": ("PixelMeasuresSequence", ["PixelSpacing"]),
    }
    groups = {
        name: (sequence, {keyword: place[keyword] for keyword in keywords if keyword in place})
        for name, (sequence, keywords) in content.items()
    }
    rescale = {"RescaleSlope": plane.slope, "RescaleIntercept": plane.intercept, "RescaleType": "HU"}
    return groups | {"rescale": ("PixelValueTransformationSequence", rescale)}


def _group(content: dict[str, tuple[str, dict[str, Any]]]) -> Dataset:
    group = Dataset()
    for sequence, elements in content.values():
        item = Dataset()
        _set(item, elements)
        setattr(group, sequence, [item])
    return group


def _set(dataset: Dataset, elements: dict[str, Any]) -> None:
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, f"{value:.10g}" if isinstance(value, float) else value)
        elif keyword in dataset:
            delattr(dataset, keyword)
