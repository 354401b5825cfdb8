"""Write a small dataset in the layout of the public TotalSegmentator dataset, to try a recipe without the download.

    python Testing/Tools/make_totalsegmentator_layout.py SOURCE OUTPUT --cases 6 --size 48

SOURCE is a folder with ``example_seg.nii.gz`` and, if possible, ``example_ct_sm.nii.gz``, both from
``tests/reference_files`` of TotalSegmentator's repository. Without the CT, a grey image is synthesised from the labels.
Each case is a shifted and slightly deformed copy of the source, reduced in size. The same arguments give the same
voxels.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.resources import resource
from scipy import ndimage

LABELS, CT = "example_seg.nii.gz", "example_ct_sm.nii.gz"
MAX_SHIFT = 2.0  # voxels of the result, on each axis
MAX_DEFORMATION = 1.0  # the same
FIELD = 4  # control points of the deformation, on each axis


@dataclass(frozen=True)
class Source:
    """The label map and the image that all cases are made from.

    :ivar labels: ``(X, Y, Z)`` uint8, values of TotalSegmentator's class map.
    :ivar image: ``(X, Y, Z)`` float32, Hounsfield units.
    :ivar affine: ``(4, 4)``, voxels to mm.
    """

    labels: np.ndarray
    image: np.ndarray
    affine: np.ndarray


def read_source(folder: Path) -> Source:
    """Read the label map, and read or synthesise the image.

    :raises SystemExit: if the label map is missing, or if the CT has another grid.
    """
    if not (folder / LABELS).is_file():
        sys.exit(f"{folder / LABELS} does not exist: copy it from tests/reference_files of TotalSegmentator.")
    segmentation = nibabel.load(folder / LABELS)
    labels = np.asanyarray(segmentation.dataobj).astype(np.uint8)
    if not (folder / CT).is_file():
        return Source(labels, synthetic_image(labels), segmentation.affine)
    ct = nibabel.load(folder / CT)
    if ct.shape != labels.shape or not np.allclose(ct.affine, segmentation.affine, atol=1e-3):
        sys.exit(f"{folder / CT} and {folder / LABELS} have different grids: take both from the same version.")
    return Source(labels, np.asanyarray(ct.dataobj).astype(np.float32), segmentation.affine)


def synthetic_image(labels: np.ndarray) -> np.ndarray:
    """Return an image with one grey value per label, slightly blurred: ``(X, Y, Z)`` float32."""
    grey = np.random.default_rng(0).uniform(-50, 400, 256).astype(np.float32)
    grey[0] = -500
    return ndimage.gaussian_filter(grey[labels], 0.5)


def make_case(source: Source, size: int, seed: int) -> Source:
    """Return a copy of the source whose longest side has ``size`` voxels of equal edges."""
    random = np.random.default_rng(seed)
    edges = np.linalg.norm(source.affine[:3, :3], axis=0)
    lengths = edges * source.labels.shape
    edge = lengths.max() / size
    shape = tuple(np.maximum(np.round(lengths / edge), 1).astype(int))
    step = edge / edges  # source voxels per voxel of the case
    positions = np.indices(shape, np.float32)
    for axis, field in enumerate(random.uniform(-MAX_DEFORMATION, MAX_DEFORMATION, (3, FIELD, FIELD, FIELD))):
        positions[axis] += random.uniform(-MAX_SHIFT, MAX_SHIFT)
        positions[axis] += ndimage.zoom(field, np.divide(shape, FIELD), order=3, mode="nearest", grid_mode=True)
        positions[axis] = (positions[axis] + 0.5) * step[axis] - 0.5
    labels = ndimage.map_coordinates(source.labels, positions, order=0, mode="nearest")
    smooth = ndimage.gaussian_filter(source.image, np.maximum(step - 1, 0) / 2)
    image = ndimage.map_coordinates(smooth, positions, order=1, mode="nearest")
    image += random.normal(0, 10, shape).astype(np.float32)
    affine = source.affine.copy()
    affine[:3, :3] *= step
    affine[:3, 3] += source.affine[:3, :3] @ (0.5 * step - 0.5)
    return Source(labels, image, affine)


def write_dataset(source: Source, output: Path, cases: int, size: int) -> None:
    """Write ``meta.csv`` and a folder per case. The last case is for testing, the one before it for validation."""
    table = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    rows = ["image_id;age;gender;split"]
    for number in range(cases):
        name, split = f"s{number:04d}", {cases - 1: "test", cases - 2: "val"}.get(number, "train")
        case = make_case(source, size, number)
        masks = output / name / "segmentations"
        masks.mkdir(parents=True, exist_ok=True)
        image = np.round(case.image).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, case.affine), output / name / "ct.nii.gz")
        for label in table.foreground:  # as in the public dataset, absent classes have an empty mask
            mask = (case.labels == label.value).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(mask, case.affine), masks / f"{label.name}.nii.gz")
        rows.append(f"{name};50;f;{split}")
        voxels = " x ".join(map(str, case.labels.shape))
        print(f"{output / name}: {split}, {voxels} voxels, {len(np.unique(case.labels)) - 1} classes")
    (output / "meta.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help=f"folder with {LABELS} and, if possible, {CT}")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder to write")
    parser.add_argument("--cases", type=int, default=6, help="at least 3 (default: 6)")
    parser.add_argument("--size", type=int, default=48, help="voxels along the longest side (default: 48)")
    options = parser.parse_args(arguments)
    if options.cases < 3:
        parser.error("--cases must be at least 3: one each for training, validation and testing")
    write_dataset(read_source(options.source), options.output, options.cases, options.size)


if __name__ == "__main__":
    main()
