"""Series, and segmentations of them, for the tests of results in DICOM: every pixel tells what its label must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from ClassScaleSegLib import LabelTable, Segmentation
from ClassScaleSegLib.images.reading import read_image
from dicom_phantom import Plane, planes, tilted, write_series

REFERENCE = {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.7", "StudyID": "4"}
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.9393727128, 0.3428978075, 0.0, -0.3360623883, 0.9206473254, -0.1986693308)
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])
VOLUMES = {
    "axial": planes(),
    "negated columns": planes(directions=(1, 0, 0, 0, -1, 0)),
    "negated columns, descending": planes(step=(0, 0, -5), directions=(1, 0, 0, 0, -1, 0)),
    "negated rows": planes(directions=(-1, 0, 0, 0, 1, 0)),
    "both negated": planes(directions=(-1, 0, 0, 0, -1, 0)),
    "descending": planes(step=(0, 0, -5)),
    "sagittal": planes(step=(-1.5, 0, 0), directions=SAGITTAL),
    "oblique": planes(step=np.multiply(5, NORMAL).tolist(), directions=OBLIQUE),
    "oblique descending": planes(step=np.multiply(-0.7, NORMAL).tolist(), directions=OBLIQUE),
    "rounded positions": planes(step=(0, 0, 1.3333333), decimals=1),
    "tilted": planes(20, directions=tilted(15)),
    "tilted back, descending": planes(20, step=(0, 0, -5), directions=tilted(-7.5)),
    "two slices": planes(2),
    "one slice": planes(1, tags={"SliceThickness": "2.5"}),
    "one column": planes(shape=(7, 1)),
    "one voxel": planes(1, shape=(1, 1), tags={"SliceThickness": "2.5"}),
}
TABLE = LabelTable.from_names({0: "background", 1: "liver", 2: "kidney_left", 3: "cell 3", 4: "vertebrae_C1", 5: "x"})
TABLES = {
    "8 bit": TABLE,
    "16 bit": LabelTable(tuple(replace(label, value=label.value * 13000) for label in TABLE)),
}


def labelled(stored: np.ndarray, factor: int = 1) -> np.ndarray:
    """The label of each pixel of a slice, so that any slice tells what its labels must be."""
    return ((stored.astype(int) % 6) * factor).astype(np.uint16)


def segmented(source: Path, table: LabelTable = TABLE) -> Segmentation:
    image = read_image(source, 1)
    factor = max(label.value for label in table) // 5
    assert image.voxels is not None
    return Segmentation(labelled(image.voxels[0], factor), table, image.geometry)


def series(folder: Path, volume: list[Plane] | None = None, **tags) -> Path:
    return write_series(folder / "series", planes() if volume is None else volume, **(REFERENCE | tags))


def written(folder: Path, name: str = "result.seg.dcm", volume: list[Plane] | None = None, **tags):
    """Write a series and a segmentation of it; return the segmentation, its path, and its pydicom data set."""
    source = series(folder, volume, **tags)
    ours = segmented(source)
    ours.write(folder / name, source=source)
    return ours, folder / name, pydicom.dcmread(folder / name)


def comparable(table: LabelTable) -> list[tuple]:
    return [(label.value, label.name, label.color, label.codes) for label in table.foreground]
