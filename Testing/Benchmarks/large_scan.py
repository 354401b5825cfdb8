"""Time a large scan, 512 x 512 x 600 voxels of 0.8 mm through a 1.5 mm model, and its memory, stage by stage.

    python Testing/Benchmarks/large_scan.py [--root .benchmarks/large_scan] [--quick]

The scan is an int16 ``.nii.gz``; the networks have random weights and 118 or 1000 classes. Every job is a process of
its own on a CPU. nnU-Net itself is measured for its preprocessing alone: after it, the logits of 118 classes on this
scan would take 74 GiB. The second table compares the estimate that users see before a job with what the job takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from classscale_training.loop.model_folder import CONFIGURATION
from measure import Bar, in_own_process, mebibytes, parse, peak_bytes, report, reset_peak
from random_model import RandomModel

THREADS, STEP = 2, 1.0  # with neighbouring windows that do not overlap, memory is the same and time shorter
LARGE, TWICE = (600, 512, 512), (1200, 512, 512)
MODEL = RandomModel(118, (64, 64, 64), (1.5, 1.5, 1.5), (32, 32, 32), 1)
# image (z, y, x), its spacing, and the model: features, patch, spacing, channels, classes; then what is peculiar
JOBS: tuple[tuple[Sequence[int], Sequence[float], dict], ...] = (
    ((96, 96, 96), (1.5, 1.5, 1.5), {}),
    ((200, 200, 200), (1.5, 1.5, 1.5), {}),
    ((200, 200, 200), (1.5, 1.5, 1.5), {"classes": 1000}),
    ((200, 200, 200), (3.0, 3.0, 3.0), {}),
    ((300, 300, 300), (1.0, 1.0, 1.0), {}),
    ((300, 300, 300), (1.0, 1.0, 1.0), {"patch": (96, 96, 96)}),
    ((300, 300, 300), (1.0, 1.0, 1.0), {"patch": (96, 96, 96), "features": (16, 32, 32)}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"patch": (48, 96, 96)}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"channels": 2}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"channels": 4}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"dtype": "float32"}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"dtype": "uint8"}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"dataset": "Dataset300_TotalSegmentator"}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"confidence": True}),
    ((40, 512, 512), (5.0, 0.7, 0.7), {"spacing": (5.0, 1.0, 1.0), "patch": (16, 128, 128)}),
    ((40, 512, 512), (5.0, 0.7, 0.7), {}),
    ((400, 400, 400), (0.5, 0.5, 0.5), {}),
    ((512, 512, 300), (0.8, 0.8, 0.8), {"features": (8, 16, 32)}),
    ((300, 512, 512), (0.8, 0.8, 0.8), {"patch": (80, 80, 80), "features": (24, 32, 32)}),
    ((200, 512, 512), (1.6, 0.8, 0.8), {"patch": (32, 128, 128), "features": (16, 32, 32)}),
    ((256, 256, 256), (1.0, 1.0, 1.0), {"patch": (128, 128, 128), "architecture": "ResidualEncoderUNet"}),
    ((150, 150, 150), (1.0, 1.0, 1.0), {"patch": (96, 96, 96), "mirror_axes": (0, 1, 2)}),
)


def write_scan(file: Path, shape: Sequence[int], spacing: Sequence[float], dtype: str = "int16", seed: int = 0) -> Path:
    """Write a scan of smooth blobs with noise, in Hounsfield units.

    :param shape: voxels (z, y, x); ``spacing`` in mm, in the same order.
    """
    import numpy as np
    import SimpleITK as sitk
    from scipy.ndimage import zoom

    if file.exists():
        return file
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 400, [-(-n // 32) for n in shape]).astype(np.float32)
    array = np.empty(shape, dtype)
    rows = zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
    for plane, row in zip(array, rows, strict=True):
        noisy = row + rng.normal(0, 10, row.shape)
        plane[:] = noisy.clip(1, 255) if dtype == "uint8" else noisy
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    temporary = file.with_name("writing_" + file.name)
    sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
    temporary.rename(file)
    return file


def quiet_network(model: RandomModel) -> Any:
    """Return a random network whose classes form regions, as trained ones do, instead of noise in every voxel."""
    import torch

    network = model.network()
    with torch.no_grad():
        last = network.decoder.seg_layers[-1]
        last.weight.mul_(0.05)
        last.bias.normal_()
    return network


def segment_it(files: list[str], model: str, output: str, step: float, confidence: bool, cores: int) -> dict:
    """Segment and write the result; return the seconds and the peak of memory of each stage, and of all."""
    from ClassScaleSegLib import open_model
    from ClassScaleSegLib.inference.progress import Progress
    from ClassScaleSegLib.inference.segmenter import segment_with
    from ClassScaleSegLib.options import Options

    opened = open_model(model)
    stages: dict[str, dict[str, float]] = {}
    current = ["load", time.perf_counter()]

    def end_stage(following: str) -> None:
        stages[current[0]] = {"seconds": time.perf_counter() - current[1], "MiB": mebibytes(peak_bytes())}
        current[:] = [following, time.perf_counter()]
        reset_peak()

    def progress(now: Progress) -> None:
        if now.stage != current[0]:
            end_stage(now.stage)

    reset_peak()
    options = Options("cpu", step, True, None, confidence, None, cores)
    result = segment_with(files, opened, options, progress)
    end_stage("write")
    result.write(output, overwrite=True)
    end_stage("end")
    return {"stages": stages, "peak": max(stage["MiB"] for stage in stages.values())}


def stock_preprocessing(files: list[str], model: str) -> dict:
    """Preprocess with nnU-Net's own code, from the image in memory; return the seconds and the peak of memory."""
    from ClassScaleSegLib import open_model
    from ClassScaleSegLib.images.reading import read_image

    opened = open_model(model)
    image = read_image(files, 1)
    preprocessor, properties = opened.configuration.preprocessor_class(verbose=False), {"spacing": list(image.spacing)}
    reset_peak()
    begin = time.perf_counter()
    case = (image.voxels, None, properties, opened.plans_manager, opened.configuration, opened.dataset)
    preprocessor.run_case_npy(*case)
    return {"seconds": time.perf_counter() - begin, "MiB": mebibytes(peak_bytes())}


def job(
    root: Path, name: str, shape: Sequence[int], spacing: Sequence[float], model: RandomModel, more: dict, threads: int
) -> tuple[dict, list[str], Path]:
    """Run one job in a process of its own; return its figures, its files, and the model folder.

    The figures are kept in ``root``, so that an interrupted benchmark goes on; remove the folder to measure them again.

    :param more: "dtype" of the image, and whether the "confidence" is wanted.
    """
    dtype = more.get("dtype", "int16")
    size = "x".join(map(str, shape)) + "_" + "x".join(f"{s:g}" for s in spacing)
    files = [write_scan(root / f"{dtype}_{size}_{c}.nii.gz", shape, spacing, dtype, c) for c in range(model.channels)]
    folder = root / name / model.dataset / f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
    if not folder.exists():
        model.write(root / name, [quiet_network(model)])
    known = root / f"{name}.json"
    if not known.exists():
        task = {"files": list(map(str, files)), "model": str(folder), "output": str(root / "result.seg.nrrd")}
        choices = {"step": STEP, "confidence": more.get("confidence", False), "cores": threads}
        known.write_text(json.dumps(in_own_process(__file__, threads, what="segment", **task, **choices)))
    return json.loads(known.read_text()), list(map(str, files)), folder


def large_rows(root: Path, quick: bool) -> tuple[list[dict], list[Bar]]:
    """Measure the large scan."""
    large, twice = ((60, 128, 128), (120, 128, 128)) if quick else (LARGE, TWICE)
    rows, peaks, seconds = [], {}, 0.0
    for what, shape, classes in (
        ("118 classes", large, 118),
        ("1000 classes", large, 1000),
        ("twice as long", twice, 118),
    ):
        model = RandomModel(**{**asdict(MODEL), "classes": classes})
        name = what.replace(" ", "_")
        figures, files, folder = job(root, name, shape, (0.8, 0.8, 0.8), model, {}, THREADS)
        peaks[what] = figures["peak"]
        for stage, measured in figures["stages"].items():
            rows.append({"job": what, "image": shape, "stage": stage, **measured})
        if what == "118 classes":
            seconds = figures["stages"]["preprocess"]["seconds"]
            stock = in_own_process(__file__, THREADS, what="stock", files=files, model=str(folder))
    rows.append({"job": "nnU-Net, 118 classes", "image": large, "stage": "preprocess", **stock})
    bars = [
        Bar("GiB of the large scan in all", peaks["118 classes"] / 1024, 2.0),
        Bar("seconds of its preprocessing", seconds, 8.0),
        Bar("seconds of its preprocessing / of nnU-Net's", seconds / stock["seconds"], 0.2),
        Bar("memory with 1000 classes / with 118", peaks["1000 classes"] / peaks["118 classes"], 1.03),
        Bar("memory of a scan twice as long", peaks["twice as long"] / peaks["118 classes"], 1.25),
    ]
    return rows, bars


def estimate_rows(root: Path, quick: bool) -> tuple[list[dict], list[Bar]]:
    """Compare the estimate with what each of the `JOBS` takes."""
    from ClassScaleSegLib import open_model
    from ClassScaleSegLib.inference.memory_estimate import estimate

    rows = []
    for number, (shape, spacing, peculiar) in enumerate(JOBS[:2] if quick else JOBS):
        model = RandomModel(**{**asdict(MODEL), **{k: v for k, v in peculiar.items() if k in asdict(MODEL)}})
        figures, _files, folder = job(root, f"job{number}", shape, spacing, model, peculiar, threads=1)
        size = {"uint8": 1, "float32": 4}.get(peculiar.get("dtype", ""), 2)
        wanted = (peculiar.get("confidence", False), size, bool(peculiar.get("mirror_axes")))
        need = estimate(open_model(folder), shape, spacing, STEP, *wanted)
        told = mebibytes(need.placement("cpu", "cpu").host_bytes)
        rows.append(
            {
                "image": shape,
                "spacing": spacing,
                "peculiar": ", ".join(f"{key} {value}" for key, value in peculiar.items()),
                "peak_MiB": figures["peak"],
                "estimate_MiB": told,
                "estimate / peak": told / figures["peak"],
            }
        )
        print(rows[-1], flush=True)
    shares = [row["estimate / peak"] for row in rows]
    return rows, [
        Bar("the largest estimate / what the job took", max(shares), 1.15),
        Bar("the smallest", min(shares), 0.95, at_least=True),
    ]


def main() -> int:
    options = parse(__doc__, "large_scan")
    if options.task:
        task = dict(options.task)
        work = {"segment": segment_it, "stock": stock_preprocessing}[task.pop("what")]
        print(json.dumps(work(**task)))
        return 0
    large, bars = large_rows(options.root, options.quick)
    estimates, more = estimate_rows(options.root, options.quick)
    return report(options, "large_scan", [*large, *estimates], [*bars, *more])


if __name__ == "__main__":
    sys.exit(main())
