"""Training folders to be collected: small images with segmentations that Slicer, planning systems and others write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from classscale_training.data.collect.command import add_arguments, run
from ClassScaleSegLib import Geometry, LabelTable, Segmentation

GRID = Geometry((10, 8, 6), (1.0, 2.0, 3.0), (-7.0, 8.0, 9.0))
SHAPE = GRID.size[::-1]
FOLDER = "Dataset300_Collected"


def save(array: np.ndarray, file: Path, grid: Geometry = GRID) -> Path:
    image = sitk.GetImageFromArray(array)
    grid.apply(image)
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file))
    return file


def voxels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 500, SHAPE).astype(np.int16)


def boxes(*values: int) -> np.ndarray:
    """Return a label map with a box of each value, in rows of its own: 12 voxels that have no symmetry."""
    array = np.zeros(SHAPE, np.uint16)
    for index, value in enumerate(values):
        array[1:3, 1 + 2 * index : 3 + 2 * index, 2:5] = value
    return array


def read(file: Path) -> np.ndarray:
    image = sitk.ReadImage(str(file))
    assert Geometry.from_image(image).distance(GRID) < 1e-4
    return sitk.GetArrayFromImage(image)


class Training:
    """A training folder, and the folder of raw datasets."""

    def __init__(self, root: Path) -> None:
        self.folder, self.raw = root / "corrected", root / "raw"
        self.images, self.segmentations = self.folder / "images", self.folder / "segmentations"
        for folder in (self.raw, self.images, self.segmentations):
            folder.mkdir(parents=True)

    def image(self, case: str, ending: str = "_0000.nii.gz", grid: Geometry = GRID) -> Path:
        return save(voxels(ord(case[0])), self.images / f"{case}{ending}", grid)

    def case(
        self, case: str, names: Mapping[int, str], labels: np.ndarray | None = None, ending: str = ".seg.nrrd"
    ) -> Path:
        """Write an image and its segmentation, by default with a box of each structure."""
        if not list(self.images.glob(f"{case}_*")):
            self.image(case)
        return self.segmentation(
            case, LabelTable.from_names(names), [boxes(*names) if labels is None else labels], ending
        )

    def segmentation(
        self,
        case: str,
        table: LabelTable,
        layers: Sequence[np.ndarray],
        ending: str = ".seg.nrrd",
        grid: Geometry = GRID,
    ) -> Path:
        file = self.segmentations / f"{case}{ending}"
        found = Segmentation(layers[0], table, grid, more_layers=tuple(layers[1:]))
        found.write(file, overwrite=True, keep_empty=True)
        return file

    def collect(self, *words: object, channels: str = "CT", folder: object = None) -> int:
        arguments = [folder or self.folder, "-d", 300, "--no_pbar", *words]
        return main(*arguments, *(["--channels", *channels.split()] if channels else []))

    @property
    def dataset(self) -> Path:
        return self.raw / FOLDER

    @property
    def json(self) -> dict:
        return json.loads((self.dataset / "dataset.json").read_text())

    def label(self, case: str) -> np.ndarray:
        return read(self.dataset / "labelsTr" / f"{case}.nii.gz")

    def content(self) -> dict[str, tuple[int, bytes]]:
        """Inode and content of every file of the dataset."""
        files = [file for file in self.dataset.rglob("*") if file.is_file() and file.name != ".lock"]
        return {file.relative_to(self.dataset).as_posix(): (file.stat().st_ino, file.read_bytes()) for file in files}


def main(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(list(map(str, words))))


def turned(grid: Geometry, axes: Sequence[int], flips: Sequence[bool]) -> Geometry:
    """Return the same voxels with their axes in another order, some of them backwards."""
    ends = [(grid.size[axis] - 1) * flip for axis, flip in zip(axes, flips, strict=True)]
    direction = np.reshape(grid.direction, (3, 3))[:, axes] * np.where(flips, -1, 1)
    origin = np.array(grid.origin) + grid.axes[:, axes] @ ends
    size, spacing = (tuple(np.array(every)[list(axes)].tolist()) for every in (grid.size, grid.spacing))
    return replace(
        grid, size=size, spacing=spacing, origin=tuple(origin.tolist()), direction=tuple(direction.ravel().tolist())
    )


@pytest.fixture
def training(tmp_path, monkeypatch) -> Training:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return Training(tmp_path)
