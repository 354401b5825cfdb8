"""Measure DICOM segmentations of 512 x 512 x 300 voxels beside `.seg.nrrd`: seconds, size, memory, read back the same.

    python Testing/Benchmarks/dicom_seg.py [--quick]

The benchmark needs highdicom and dcmqi, and writes a DICOM series of its own. The classes are cells around random
points, and a tenth is background. Smooth borders are in steps of two voxels; frayed ones move every voxel by up to
three, which compresses worse. Each row runs in a process of its own. Memory is what writing takes beyond the label map.
The time for reading the headers of the series, before the computation, is given apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib import DicomSeg, LabelTable, Segmentation
from ClassScaleSegLib.images.counts import voxel_counts
from ClassScaleSegLib.images.dicom.source import read_source
from measure import HERE, Bar, in_own_process, parse, peak_bytes, report, reset_peak, resident_bytes
from seg_nrrd import seconds

sys.path.append(str(HERE.parent / "Python"))  # the phantom

LARGEST_SECONDS, LARGEST_SIZE = 20.0, 2.0


def cells(shape: tuple[int, int, int], frayed: bool, count: int = 1000, seed: int = 0) -> np.ndarray:
    """Return cells 1..``count`` around random points, and a tenth background, uint16 ``(z, y, x)``; sides are even."""
    from scipy.spatial import cKDTree

    rng, small = np.random.default_rng(seed), tuple(side // 2 for side in shape)
    tree = cKDTree(rng.random((count, 3)) * small)
    plane = np.stack(np.meshgrid(*map(np.arange, small[1:]), indexing="ij"), -1).reshape(-1, 2)
    found = [tree.query(np.column_stack([np.full(len(plane), z), plane])) for z in range(small[0])]
    distance, nearest = (np.stack(part).reshape(small) for part in zip(*found, strict=True))
    cell = np.where(distance > np.quantile(distance, 0.9), 0, nearest + 1).astype(np.uint16)
    axes = np.indices(shape, np.int16, sparse=True)
    moved = [axis + rng.integers(-3, 4, shape, np.int16) if frayed else axis for axis in axes]
    return cell[tuple(np.clip(axis, 0, side - 1) // 2 for axis, side in zip(moved, shape, strict=True))]


def write_phantom(folder: Path, shape: tuple[int, int, int]) -> Path:
    from dicom_phantom import Plane, write_series

    empty = np.zeros(shape[1:], np.int16)
    volume = [Plane(empty, (-200.0, -200.0, float(z)), spacing=(0.8, 0.8)) for z in range(shape[0])]
    return write_series(folder / "series", volume, FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.9")


def dcmqi_reads(file: Path, labels: np.ndarray) -> bool:
    """Return whether dcmqi, with which 3D Slicer reads, finds the same label map on the same axes."""
    import dcmqi
    import SimpleITK as sitk

    program = next(Path(dcmqi.__file__).parent.glob("bin/segimage2itkimage*"))
    command = [str(program), "--inputDICOM", str(file), "--outputDirectory", str(file.parent), "-t", "nrrd", "-p", "q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return bool(np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(file.parent / "q-1.nrrd"))), labels))


def measure(kind: str, borders: str, classes: int, root: str) -> dict[str, Any]:
    folder = Path(root)
    labels = np.load(folder / f"{borders}.npy")
    labels = np.where(labels > 0, (labels - 1) % classes + 1, 0).astype(np.uint16)
    table = LabelTable.from_names({0: "background", **{value: f"structure {value}" for value in range(1, classes + 1)}})
    source = read_source(folder / "series")
    row: dict[str, Any] = {"kind": kind, "borders": borders, "classes": classes}
    row["headers (s)"] = seconds(lambda: read_source(folder / "series"))
    ours = Segmentation(labels, table, source.geometry)
    plain, written = folder / "plain.seg.nrrd", folder / "written.seg.dcm"
    row[".seg.nrrd (s)"] = seconds(lambda: ours.write(plain, overwrite=True))
    ours.write(written, overwrite=True, source=DicomSeg(source, "labelmap"))  # imports highdicom
    before = resident_bytes()
    reset_peak()
    row["write (s)"] = seconds(lambda: ours.write(written, overwrite=True, source=DicomSeg(source, kind)))
    row["memory (MiB)"] = round((peak_bytes() - before) / 2**20)
    row["MB"], row[".seg.nrrd (MB)"] = written.stat().st_size / 1e6, plain.stat().st_size / 1e6
    row["size / .seg.nrrd"] = row["MB"] / row[".seg.nrrd (MB)"]
    read = []
    row["read (s)"] = seconds(lambda: read.append(Segmentation.from_image(written)))
    (theirs,) = read
    counts = voxel_counts(labels)
    present = [label for label in table.foreground if counts[label.value]]
    row["same"] = (
        bool(np.array_equal(theirs.labels, labels))
        and theirs.geometry.distance(source.geometry) < 1e-6
        and [(label.value, label.name, label.color) for label in theirs.table]
        == [(label.value, label.name, label.color) for label in present]
        and (kind == "binary" or dcmqi_reads(written, labels))
    )
    return row


def main() -> int:
    options = parse(__doc__, "dicom_seg")
    if options.task:
        print(json.dumps(measure(**options.task)))
        return 0
    shape = (24, 64, 64) if options.quick else (300, 512, 512)
    write_phantom(options.root, shape)
    tasks = [("labelmap", borders, classes) for borders in ("smooth", "frayed") for classes in (100, 1000)]
    tasks += [("binary", "smooth", 100), ("binary", "smooth", 1000)]
    for borders in ("smooth", "frayed"):
        np.save(options.root / f"{borders}.npy", cells(shape, borders == "frayed"))
    rows = [
        in_own_process(__file__, kind=kind, borders=borders, classes=classes, root=str(options.root))
        for kind, borders, classes in tasks
    ]
    maps = [row for row in rows if row["kind"] == "labelmap"]
    bars = [
        Bar("seconds to write a label map of 1000 classes", max(row["write (s)"] for row in maps), LARGEST_SECONDS),
        Bar("size of a label map, beside .seg.nrrd", max(row["size / .seg.nrrd"] for row in maps), LARGEST_SIZE),
        Bar(
            "labels, names, colours and places read back the same", int(all(r["same"] for r in rows)), 1, at_least=True
        ),
    ]
    return report(options, "dicom_seg", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
