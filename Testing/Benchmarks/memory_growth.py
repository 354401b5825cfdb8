"""Bar 3, memory: it grows neither with the number of classes nor with the length of the scan.

    python Testing/Benchmarks/memory_growth.py [--root .benchmarks/memory_growth] [--quick]

Each run has its own process. The figures are resident memory above that after all imports and reading the image. Stock
is nnU-Net's own predictor on the same model folder and image, with its export.

With 10 classes the logits themselves are the smaller basis (10 channels, not 32), so the row with 40 classes is the
better comparison.

``preprocessing``, ``windows`` and ``finish`` are the peaks of the three parts of a run. ``working`` is the peak of the
last two parts without one copy of the image on the model grid and without the label map.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from measure import (
    Bar,
    free_bytes,
    in_own_process,
    mebibytes,
    parse,
    peak_bytes,
    report,
    reset_peak,
    resident_bytes,
)
from random_model import RandomModel, stock_predictor
from stock import declare_torchvision_operators

IMAGE_SPACING = 0.7  # mm; the model has 1 mm


def write_image(file: Path, shape: tuple[int, int, int]) -> None:
    """Write a CT-like volume of smooth noise, int16, ``shape`` (z, y, x)."""
    import numpy as np
    import SimpleITK as sitk
    from scipy.ndimage import zoom

    generator = np.random.default_rng(0)
    coarse = generator.normal(0, 300, [n // 8 for n in shape])
    image = sitk.GetImageFromArray(zoom(coarse, [n / (n // 8) for n in shape], order=1).astype(np.int16))
    image.SetSpacing([IMAGE_SPACING] * 3)
    sitk.WriteImage(image, str(file))


def run_ours(model: str, image: str) -> dict:
    """Segment in this process; return bytes, and seconds from the model folder to the label map."""
    import ClassScaleSegLib.inference.backbone
    import ClassScaleSegLib.inference.preprocess
    import ClassScaleSegLib.inference.segmenter
    import ClassScaleSegLib.inference.windows
    import ClassScaleSegLib.models.network  # noqa: F401
    import nnunetv2.preprocessing.preprocessors.default_preprocessor
    import nnunetv2.utilities.get_network_from_plans  # noqa: F401
    import SimpleITK as sitk
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.process.allocator import return_memory_at_once

    return_memory_at_once()  # as the command does
    opened = sitk.ReadImage(image)
    opened.GetPixelID()
    base, peaks, stage = resident_bytes(), {}, "preprocessing"
    reset_peak()

    def progress(report) -> None:
        nonlocal stage
        following = stage
        if report.stage == "segment":
            following = "finish" if report.done == report.total else "windows"
        if following != stage:
            peaks[stage] = peak_bytes() - base
            stage = following
            reset_peak()

    begin = time.perf_counter()
    loaded = open_model(model)
    result = segment(opened, loaded, device="cpu", mirroring=False, threads=1, progress=progress)
    seconds = time.perf_counter() - begin
    peaks[stage] = peak_bytes() - base
    grid = [round(n * IMAGE_SPACING) for n in result.labels.shape]
    images = 4 * grid[0] * grid[1] * grid[2]
    return {
        "seconds": seconds,
        "peak": max(peaks.values()),
        "working": max(peaks["windows"], peaks["finish"]) - images - result.labels.nbytes,
        **peaks,
    }


def run_stock(model: str, image: str, output: str) -> dict:
    """Run nnU-Net's predictor in this process, with its export; return bytes and seconds."""
    declare_torchvision_operators()
    import nnunetv2.inference.predict_from_raw_data  # noqa: F401
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    recursive_find_trainer_class_by_name("nnUNetTrainer")  # imports every trainer
    array, properties = SimpleITKIO().read_images([image])
    base = resident_bytes()
    reset_peak()
    begin = time.perf_counter()
    predictor = stock_predictor(Path(model))
    predictor.predict_single_npy_array(array, properties, output_file_truncated=output)
    return {"seconds": time.perf_counter() - begin, "peak": peak_bytes() - base}


def main() -> int:
    options = parse(__doc__, "memory_growth")
    if options.task:
        engine = options.task.pop("engine")
        print(json.dumps((run_ours if engine == "ours" else run_stock)(**options.task)))
        return 0
    quick = options.quick
    patch, size = ((32,) * 3, 56) if quick else ((64,) * 3, 112)
    long = (4 * size, size, size)
    runs = [*(("ours", classes, (size,) * 3) for classes in (10, 40, 118, 1000)), ("ours", 118, long)]
    runs += [("stock", classes, (size,) * 3) for classes in ((10, 118) if quick else (10, 118, 1000))]
    rows = []
    for engine, classes, shape in runs:
        folder = options.root / f"{classes}_classes_patch_{patch[0]}"
        if not folder.exists():
            RandomModel(classes, patch).write(folder)
        (model,) = folder.glob("*/*")
        image = options.root / f"image_{'x'.join(map(str, shape))}.nii.gz"
        if not image.exists():
            write_image(image, shape)
        row = {"engine": engine, "classes": classes, "shape": shape}
        # float64 logits on the model grid and half-precision logits on the model and the image grid
        need = classes * size**3 * (10 * IMAGE_SPACING**3 + 2) if engine == "stock" else 0
        if need > 0.8 * free_bytes():
            rows.append({**row, "skipped": f"stock would need {need / 2**30:.0f} GiB, more than is free"})
            continue
        task = {"output": str(options.root / "stock")} if engine == "stock" else {}
        measured = in_own_process(__file__, engine=engine, model=str(model), image=str(image), **task)
        row["seconds"] = measured.pop("seconds")
        rows.append({**row, **{f"{key}_MiB": mebibytes(value) for key, value in measured.items()}})
    figures = {(row["engine"], row["classes"], row["shape"]): row for row in rows if "skipped" not in row}

    def ours(key: str, classes: int, shape=(size,) * 3) -> float:
        return figures["ours", classes, shape][f"{key}_MiB"]

    bars = [
        Bar("peak at 1000 classes / at 10 classes", ours("peak", 1000) / ours("peak", 10), 1.05),
        Bar("working memory, four times longer / short", ours("working", 118, long) / ours("working", 118), 1.10),
    ]
    largest = figures.get(("stock", 118 if quick else 1000, (size,) * 3))
    if largest is not None and not quick:
        ratio = ours("peak", 1000) / largest["peak_MiB"]
        bars.append(Bar("peak of ours / of stock, 1000 classes", ratio, 1 / 8))
    return report(options, "memory_growth", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
