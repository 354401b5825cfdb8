"""Bar 6, geometry: segment a real CT in many positions and orientations, as scanners and users produce them.

    python Testing/Benchmarks/real_ct.py [--root .benchmarks/real_ct] [--quick]

The image is TotalSegmentator's example CT; the network has 118 outputs and random weights. Each case must give a label
map on exactly the grid of its image, also after both were written in the same format and read again. If only the
storage of the image differs, the label map must be the same: an oblique image has the same voxels, and a model that
requires RAS gets the same voxels for any order of the axes in the file. nnU-Net's own label map of the unchanged image
is compared too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from measure import DATA, Bar, parse, report
from random_model import RandomModel, stock_predictor

if TYPE_CHECKING:
    import SimpleITK as sitk

FOLDER = DATA / "totalsegmentator"
FORMATS = (".nii.gz", ".mha", ".nrrd", ".seg.nrrd")
ORIENTATIONS = ("RAS", "LPI", "ASL", "PIR", "SAR", "IPL")
AS_STORED = RandomModel(118, (48, 48, 32), (4.0, 4.0, 4.0), (32, 32, 32), convolutions=1)
TURNED_TO_RAS = replace(AS_STORED, dataset="Dataset297_TotalSegmentator_total_3mm")


def oblique(image: sitk.Image, degrees: float = 17.0) -> sitk.Image:
    """Return the same voxels with their axes turned about all three axes of space."""
    import SimpleITK as sitk

    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turned = sitk.Image(image)
    turned.SetDirection((x @ y @ z @ np.reshape(image.GetDirection(), (3, 3))).ravel())
    return turned


def cases(image: sitk.Image) -> Iterator[tuple[str, RandomModel, sitk.Image, str]]:
    """Yield name, model, image, and the orientation to which the reference must be turned (``""``: same voxels)."""
    import SimpleITK as sitk

    yield "as it is", AS_STORED, image, ""
    yield "oblique", AS_STORED, oblique(image), ""
    moved = sitk.Image(image)
    moved.SetOrigin((-123.456789, 0.1, 1e4 / 3))
    yield "elsewhere", AS_STORED, moved, ""
    yield "RAS model, as it is", TURNED_TO_RAS, image, ""
    yield "RAS model, oblique", TURNED_TO_RAS, oblique(image), ""
    for code in ORIENTATIONS:
        yield f"RAS model, {code}", TURNED_TO_RAS, sitk.DICOMOrient(image, code), code
    flipped = sitk.Flip(image, [True, False, True])
    code = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(flipped.GetDirection())
    yield "RAS model, flipped axes", TURNED_TO_RAS, flipped, code
    yield "RAS model, oblique ASL", TURNED_TO_RAS, sitk.DICOMOrient(oblique(image), "ASL"), "ASL"


def deviation(one: sitk.Image, other: sitk.Image) -> float:
    """Return the largest difference of spacing (relative), direction, or position of a corner (in voxels).

    It is infinite if the sizes differ.
    """
    if one.GetSize() != other.GetSize():
        return math.inf
    spacing = np.array(other.GetSpacing())
    corners = [[0, 0, 0], [n - 1 for n in one.GetSize()]]
    places = [
        np.subtract(one.TransformIndexToPhysicalPoint(c), other.TransformIndexToPhysicalPoint(c)) / spacing
        for c in corners
    ]
    differences = [
        np.subtract(one.GetSpacing(), spacing) / spacing,
        np.subtract(one.GetDirection(), other.GetDirection()),
        *places,
    ]
    return max(float(np.abs(d).max()) for d in differences)


def main() -> int:
    import SimpleITK as sitk
    from ClassScaleSegLib import Segmentation, open_model, segment

    options = parse(__doc__, "real_ct")
    file = FOLDER / ("example_ct_sm.nii.gz" if options.quick else "example_ct.nii.gz")
    if not file.exists():
        raise SystemExit(f"{file} is missing: the benchmark needs this CT.")
    image = sitk.ReadImage(str(file))
    folders = {model: model.write(options.root) for model in (AS_STORED, TURNED_TO_RAS)}
    models = {model: open_model(folder) for model, folder in folders.items()}
    rows, first = [], {}
    for name, spec, case, code in cases(image):
        result = segment(case, models[spec], device="cpu", mirroring=False, threads=1)
        labels = result.to_image()
        reference = first.setdefault(spec, labels)
        expected = sitk.DICOMOrient(reference, code) if code else reference
        row = {
            "case": name,
            "size": case.GetSize(),
            "orientation": sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(case.GetDirection()),
            "classes_found": len(np.unique(result.labels)),
            "geometry_off": deviation(labels, case),
            "labels_off": int((result.labels != sitk.GetArrayFromImage(expected)).sum()),
            "written_wrong": [],
        }
        for suffix in FORMATS:
            target, image_file = options.root / f"labels{suffix}", options.root / f"image{suffix.removeprefix('.seg')}"
            result.write(target, overwrite=True)
            again = Segmentation.from_image(target, result.table)
            # NIfTI stores the geometry in 32 bits, so the reference is the image written in the same format
            sitk.WriteImage(case, str(image_file))
            off = deviation(again.to_image(), sitk.ReadImage(str(image_file)))
            if off > 1e-12 or not np.array_equal(again.labels, result.labels):
                row["written_wrong"].append(suffix)
        if name == "as it is":
            row["stock_agreement"] = float((_stock_labels(folders[spec], file) == result.labels).mean())
        rows.append(row)
    bars = [
        Bar("largest deviation of a grid in memory", max(row["geometry_off"] for row in rows), 0),
        Bar("voxels that depend on how the image is stored", sum(row["labels_off"] for row in rows), 0),
        Bar("files whose labels or grid differ", sum(len(row["written_wrong"]) for row in rows), 0),
    ]
    return report(options, "real_ct", rows, bars)


def _stock_labels(folder: Path, image: Path) -> np.ndarray:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    array, properties = SimpleITKIO().read_images([str(image)])
    return stock_predictor(folder).predict_single_npy_array(array, properties)


if __name__ == "__main__":
    sys.exit(main())
