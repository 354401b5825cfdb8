"""Models of Auto3DSeg: our engine against MONAI's own pipeline, time and memory at 20 and 117 classes.

    python Testing/Benchmarks/auto3dseg.py [--root .benchmarks/auto3dseg] [--quick]

Networks with random weights, 32 filters and four levels, on a CT-like field of 150 x 150 x 120 voxels of 1 mm, which
becomes 100 x 100 x 80 of 1.5 mm: 27 windows of 64^3. MONAI's pipeline is that of SlicerMONAIAuto3DSeg
(``monai_pipeline.py``): its transforms, inferer and network, nearest labels on the way back. Ours is run in the same
way (``interpolation="nearest"``), whose labels are compared, and as it is by default, with the basis interpolated. Each
runs in its own process on one thread, 1000 classes by our engine alone. Seconds are those of the processor, because
other work may run beside.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from measure import Bar, in_own_process, parse, peak_bytes, report, reset_peak, resident_bytes

CLASSES = (20, 117, 1000)  # with 20, fewer than the 32 filters, the logits are the smaller basis
SIZE, PATCH, FILTERS, LEVELS = (150, 150, 120), [64, 64, 64], 32, [1, 2, 2, 4]
QUICK_SIZE, QUICK_PATCH, QUICK_FILTERS = (60, 60, 60), [32, 32, 32], 8


def run(folder: str, way: str, output: str) -> dict:
    """Segment in this process, and return seconds of the processor and the memory that was added."""
    import torch

    torch.set_num_threads(1)
    image = Path(folder, "image.nii.gz")
    if way == "MONAI":
        from monai_pipeline import monai_labels, network_of

        config = json.loads(Path(folder, "config.json").read_text())
        network = network_of(config)
        begin, before = time.process_time(), _start()
        labels = monai_labels(config, network, [image]).transpose(2, 1, 0)
    else:
        from ClassScaleSegLib import open_model, segment

        model = open_model(folder)
        begin, before = time.process_time(), _start()
        labels = segment(image, model, device="cpu", threads=1, interpolation=way).labels
    seconds, added = time.process_time() - begin, peak_bytes() - before
    np.save(output, np.ascontiguousarray(labels).astype(np.uint16))
    return {"seconds": round(seconds, 1), "added_MiB": round(added / 2**20)}


def _start() -> int:
    reset_peak()
    return resident_bytes()


def write(folder: Path, classes: int, quick: bool) -> None:
    """Write the model and the image, if they are not there."""
    import SimpleITK as sitk
    from monai_pipeline import configuration, network_of, write_package
    from scipy.ndimage import gaussian_filter

    if (folder / "image.nii.gz").exists():
        return
    network = {"init_filters": QUICK_FILTERS if quick else FILTERS, "blocks_down": LEVELS}
    config = configuration(classes, network=network, roi_size=QUICK_PATCH if quick else PATCH)
    write_package(folder, config, network_of(config))
    (folder / "config.json").write_text(json.dumps(config))
    size = QUICK_SIZE if quick else SIZE
    noise = np.random.default_rng(0).normal(size=size[::-1])
    voxels = sum(gaussian_filter(noise, sigma) * scale for sigma, scale in ((2, 500), (8, 8000)))
    sitk.WriteImage(sitk.GetImageFromArray((voxels + 100).astype(np.int16)), str(folder / "image.nii.gz"))


def main() -> int:
    options = parse(__doc__, "auto3dseg")
    if options.task:
        print(json.dumps(run(**options.task)))
        return 0
    rows, bars = [], []
    for classes in CLASSES:
        folder = options.root / f"{'quick' if options.quick else 'full'}-{classes}"
        write(folder, classes, options.quick)
        found, row = {}, {"classes": classes}
        for way in ("MONAI", "nearest", "linear") if classes < 1000 else ("linear",):
            output = str(options.root / f"{classes}-{way}.npy")
            done = in_own_process(__file__, folder=str(folder), way=way, output=output)
            found[way] = np.load(output)
            row |= {f"{way}_{key}": value for key, value in done.items()}
        rows.append(row)
        if "MONAI" not in found:
            continue
        row["voxels"] = found["MONAI"].size
        row["differ"] = int(np.count_nonzero(found["MONAI"] != found["nearest"]))
        row["found"] = len(np.unique(found["MONAI"]))
        row["otherwise"] = int(np.count_nonzero(found["MONAI"] != found["linear"]))
        row["time"] = round(row["linear_seconds"] / row["MONAI_seconds"], 3)
        row["memory"] = round(row["linear_added_MiB"] / row["MONAI_added_MiB"], 3)
        bars.append(Bar(f"voxels that differ of a million, {classes} classes", row["differ"] / row["voxels"] * 1e6, 10))
        bars.append(Bar(f"time as a multiple of MONAI's, {classes} classes", row["time"], 1.05))
        bars.append(Bar(f"memory as a multiple of MONAI's, {classes} classes", row["memory"], 1))
    growth = rows[2]["linear_added_MiB"] - rows[1]["linear_added_MiB"]
    bars.append(Bar("MiB that memory grows from 117 to 1000 classes", growth, 32))
    return report(options, "auto3dseg", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
