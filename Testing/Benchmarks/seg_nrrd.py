"""Measure writing `.seg.nrrd` at 256^3 with 10 to 1000 classes, beside Slicer's writer: seconds, memory, correctness.

    python Testing/Benchmarks/seg_nrrd.py

The benchmark needs slicer-core and slicerio. Slicer's storage node and slicerio open every file, and names, layers and
voxels are compared. The shapes are always the same thousand cells; only the number of names that they share differs.
Slicer's writer saves the file that Slicer read, so both write the same segmentation.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ClassScaleSegLib.images.counts import voxel_counts
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.segmentation import Segmentation
from ClassScaleSegLib.labels.table import LabelTable
from measure import HERE, Bar, parse, report

sys.path.append(str(HERE.parent / "Python"))  # the helpers that open files in Slicer's MRML code


def frayed_cells(size: int, cells: int = 1000, seed: int = 0) -> np.ndarray:
    """Return cells 1..``cells`` around random points and a tenth background, with borders frayed by up to three voxels.

    Frayed borders compress worse, and take longer to scan, than those of real label maps.

    :returns: uint16 ``(size, size, size)``.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    coarse = np.stack(np.meshgrid(*[np.arange(size // 4) + 0.5] * 3, indexing="ij"), -1).reshape(-1, 3)
    distance, nearest = cKDTree(rng.random((cells, 3)) * size / 4).query(coarse)
    cell = np.where(distance > np.quantile(distance, 0.9), 0, nearest + 1).astype(np.uint16)
    axes = np.indices((size,) * 3, np.int16, sparse=True)
    place = [np.clip(axis + rng.integers(-3, 4, (size,) * 3, np.int16), 0, size - 1) // 4 for axis in axes]
    return cell.reshape((size // 4,) * 3)[tuple(place)]


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(cells: np.ndarray, classes: int, folder: Path) -> dict:
    import mrml
    import slicerio

    size = cells.shape[::-1]
    table = LabelTable.from_names({0: "background", **{value: f"structure {value}" for value in range(1, classes + 1)}})
    labels = np.where(cells > 0, (cells - 1) % classes + 1, 0).astype(np.uint16)
    ours = Segmentation(labels, table, Geometry(size, (0.8, 0.8, 1.0), (-100.0, -90.0, 20.0)))
    file, slicers = folder / f"{classes}.seg.nrrd", folder / f"{classes}-slicer.seg.nrrd"
    row = {"classes": classes, "present": 0, "write_s": seconds(lambda: ours.write(file, overwrite=True), 3)}
    row["MB"] = file.stat().st_size / 1e6
    tracemalloc.start()
    ours.write(file, overwrite=True)
    row["peak_MB"] = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()

    counts = voxel_counts(labels)
    row["present"] = int(np.count_nonzero(counts[1:]))
    names = [label.name for label in table.foreground if counts[label.value]]
    begin = time.perf_counter()
    node = mrml.read_segmentation(file)
    row["Slicer_reads_s"] = time.perf_counter() - begin
    found = mrml.segments(node)
    shown = mrml.label_map(next(iter(found.values())), size)
    row["layers"] = node.GetSegmentation().GetNumberOfLayers()
    row["names_right"] = [segment.GetName() for segment in found.values()] == names
    row["counts_right"] = bool(np.array_equal(voxel_counts(shown.astype(np.uint16)), counts))
    read = slicerio.read_segmentation(str(file))
    same_names = [segment["name"] for segment in read["segments"]] == names
    row["slicerio_identical"] = same_names and bool(np.array_equal(read["voxels"], labels.transpose()))
    node.GetStorageNode().SetFileName(str(slicers))
    row["Slicer_writes_s"] = seconds(lambda: node.GetStorageNode().WriteData(node))
    row["Slicers_MB"] = slicers.stat().st_size / 1e6
    return row


def main() -> int:
    options = parse(__doc__, "seg_nrrd")
    size, counts = (64, (10, 1000)) if options.quick else (256, (10, 100, 1000))
    cells = frayed_cells(size)
    rows = [measure(cells, classes, options.root) for classes in counts]
    right = all(r["layers"] == 1 and r["names_right"] and r["counts_right"] and r["slicerio_identical"] for r in rows)
    bars = [
        Bar("seconds to write 1000 classes at 256^3", rows[-1]["write_s"], 3.0),
        Bar("seconds for 1000 classes, as a multiple of those for 10", rows[-1]["write_s"] / rows[0]["write_s"], 3.0),
        Bar("one layer, names, voxel counts right in Slicer and slicerio", int(right), 1, at_least=True),
    ]
    return report(options, "seg_nrrd", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
