"""Measure structure sets and reports of 512 x 512 x 300 voxels: seconds, size, memory, every voxel read back.

    python Testing/Benchmarks/dicom_rtstruct.py [--quick]

The benchmark needs highdicom, and writes a DICOM series of its own. The classes are cells around random points, and a
tenth is background; their borders are in steps of two voxels. Each row runs in a process of its own. Memory is what
writing a structure set takes beyond the label map. Seconds are those of the processor, on one thread, because writing
waits for nothing. Some slices of the structure set are read with pydicom and filled by matplotlib. A report names the
segments of a DICOM segmentation, which is written before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib import DicomSeg, LabelTable, Segmentation
from ClassScaleSegLib.images.dicom.source import SourceSeries, read_source
from dicom_seg import cells, write_phantom
from measure import Bar, in_own_process, parse, peak_bytes, report, reset_peak, resident_bytes

LARGEST_SECONDS = 60.0
_CHECKED = 5  # slices


def processor_seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def same_voxels(file: Path, labels: np.ndarray, series: SourceSeries) -> bool:
    """Return whether filling the contours in some slices gives their labels."""
    import pydicom
    from matplotlib.path import Path as Polygon

    rows = {piece.instance: row for row, piece in enumerate(series.slices)}
    checked = set(np.linspace(0, len(labels) - 1, _CHECKED, dtype=int).tolist())
    found = {row: np.zeros_like(labels[row]) for row in checked}
    centres = np.indices(labels[0].shape)[::-1].reshape(2, -1).T
    for structure in pydicom.dcmread(file).ROIContourSequence:
        for contour in structure.get("ContourSequence", []):
            row = rows[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            if row in checked:
                places = np.reshape(np.array(contour.ContourData, float), (-1, 3)) - series.slices[row].position
                polygon = places[:, :2] / series.geometry.spacing[:2]  # the phantom is axial
                low, high = np.floor(polygon.min(0)).astype(int), np.ceil(polygon.max(0)).astype(int) + 1
                inside = ((centres >= low) & (centres < high)).all(1).nonzero()[0]
                inside = inside[Polygon(polygon, closed=False).contains_points(centres[inside])]
                found[row].reshape(-1)[inside] = structure.ReferencedROINumber
    return all(np.array_equal(found[row], labels[row]) for row in checked)


def measure(classes: int, root: str) -> dict[str, Any]:
    folder = Path(root)
    labels = np.load(folder / f"{classes}.npy")
    table = LabelTable.from_names({value: f"structure {value}" for value in range(1, classes + 1)})
    source = read_source(folder / "series")
    ours, row = Segmentation(labels, table, source.geometry), {"classes": classes}
    structures, segmentation, statistics = (folder / f"{classes}.{kind}.dcm" for kind in ("rtstruct", "seg", "sr"))
    before = resident_bytes()
    reset_peak()
    row["structure set (s)"] = processor_seconds(lambda: ours.write(structures, source=DicomSeg(source)))
    row["memory (MiB)"] = round((peak_bytes() - before) / 2**20)
    row["structure set (MB)"] = structures.stat().st_size / 1e6
    ours.write(segmentation, source=DicomSeg(source))
    image = np.zeros(labels.shape, np.int16)
    row["measures (s)"] = processor_seconds(lambda: ours.measures(image))
    whole = processor_seconds(lambda: ours.write_statistics(statistics, image=image, segmentation=segmentation))
    row["report (s)"] = whole - row["measures (s)"]
    row["report (MB)"] = statistics.stat().st_size / 1e6
    row["same"] = same_voxels(structures, labels, source)
    return row


def main() -> int:
    options = parse(__doc__, "dicom_rtstruct")
    if options.task:
        print(json.dumps(measure(**options.task)))
        return 0
    shape = (24, 64, 64) if options.quick else (300, 512, 512)
    write_phantom(options.root, shape)
    counts = (20, 100) if options.quick else (117, 1000)
    for classes in counts:
        np.save(options.root / f"{classes}.npy", cells(shape, False, classes))
    rows = [in_own_process(__file__, classes=classes, root=str(options.root)) for classes in counts]
    largest = rows[-1]
    bars = [
        Bar("seconds to write a structure set", largest["structure set (s)"], LARGEST_SECONDS),
        Bar("seconds to write a report, beyond the measuring", largest["report (s)"], LARGEST_SECONDS),
        Bar("filled contours are the voxels", int(all(row["same"] for row in rows)), 1, at_least=True),
    ]
    return report(options, "dicom_rtstruct", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
