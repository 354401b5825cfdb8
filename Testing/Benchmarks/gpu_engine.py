"""Measure the engine on a GPU: agreement with the CPU, stock nnU-Net for comparison, and a GPU with little memory.

    python Testing/Benchmarks/gpu_engine.py [--device cuda] [--minutes 2.5] [--limit 60] [--folder FOLDER] [--quick]

The script needs torch, nnunetv2, SimpleITK, safetensors, psutil and this repository, and writes
``results/gpu_engine.json``. Until all rows are done, the finished ones are in ``gpu_engine.partial.json``. Each row
runs in its own process, which is killed after ``--limit`` seconds or at 85 % of the machine's memory. The most
important rows come first; rows for which no time is left are skipped. ``--quick --device cpu`` runs everything with
small sizes to show that the script works; use another ``--folder`` with it.

``bundles``: the embedded models on their samples, as shipped (with mirroring where the model allows it), on the CPU and
on the device. The row has the seconds of the second call, the voxels that differ, and the voxels that differ when the
device uses only float32.

``against_stock``: a full-size network (6 stages, 32 to 320 features, patch 128^3, random weights) on 256^3 voxels of
smooth noise at the model's spacing, and on 384^3 at half of it, so that the result is resampled. Stock is
``nnUNetPredictor`` with its defaults (everything on the device, step 0.5, Gaussian). Neither mirrors; each chooses its
number of threads. Seconds are from the image file to the array of labels; the model was loaded and one window was run
before. They are given for the whole, for preprocessing, for the rest, and for stock's export. Random weights give noisy
labels with many near ties.

``small_gpu``: 1000 classes with torch limited to a few GiB of the GPU, then with the engine's own memory limit.

Memory is in MiB, during the timed call: the peaks that torch allocated and reserved on the GPU, and the resident memory
of the process before the call and at its peak.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parents[1] / "training"), str(HERE.parents[1] / "ClassScaleSeg")]
from classscale_training.files import write_json  # noqa: E402
from ClassScaleSegLib.commands.demo import DEMOS  # noqa: E402
from measure import mebibytes  # noqa: E402
from random_model import RandomModel  # noqa: E402

FULL_SIZE = RandomModel(118, (128, 128, 128), features=(32, 64, 128, 256, 320, 320))
SMALL = RandomModel(12, (32, 32, 32), features=(8, 16, 32), convolutions=1)
MEMORY_SHARE = 0.85  # of the machine's memory, at which a row is stopped


class Workers:
    """Processes that do one task each; the next one imports its packages while the current one works."""

    def __init__(self, folder: Path):
        self.answer = folder / "answer.json"
        self._spare = self._new()

    def run(self, limit: float, **task: object) -> dict:
        """Run a task and return the row that it wrote, with a fault if the process failed or was stopped."""
        self.answer.unlink(missing_ok=True)
        process, self._spare = self._spare, self._new()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({**task, "answer": str(self.answer)}) + "\n")
            process.stdin.close()
        stopped, peak = _wait(process, limit)
        row = json.loads(self.answer.read_text()) if self.answer.exists() else {}
        if stopped:
            row |= {"fault": stopped, "host_peak_MiB": max(mebibytes(peak), row.get("host_peak_MiB", 0))}
        elif process.returncode:
            row["fault"] = f"ended with exit code {process.returncode}"
        return row

    def close(self) -> None:
        self._spare.kill()
        self._spare.wait()

    @staticmethod
    def _new() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(HERE / "gpu_engine_rows.py")], stdin=subprocess.PIPE, text=True)


def _wait(process: subprocess.Popen, limit: float) -> tuple[str | None, int]:
    """Wait until the process ends or has to be killed; return the reason and the largest resident size in bytes."""
    import psutil

    end, allowed, peak = time.monotonic() + limit, MEMORY_SHARE * psutil.virtual_memory().total, 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
        stopped = f"over {limit:.0f} s" if time.monotonic() > end else None
        stopped = f"over {allowed / 2**30:.0f} GiB of memory" if peak > allowed else stopped
        if stopped:
            process.kill()
            process.wait()
            return stopped, peak
        time.sleep(0.05)
    return None, peak


class Files:
    """Models and images of the rows, made on first use, and the files of the labels."""

    def __init__(self, folder: Path, quick: bool):
        self.folder, self.base, self.quick = folder, SMALL if quick else FULL_SIZE, quick

    def model(self, classes: int) -> str:
        folder = self.folder / f"model_{classes}"
        if not folder.exists():
            replace(self.base, classes=classes).write(folder)
        (found,) = folder.glob("*/*")
        return str(found)

    def image(self, size: int, spacing: float) -> str:
        """Return the file of an image of smooth noise with values like those of a CT, int16."""
        import numpy as np
        import SimpleITK as sitk
        from scipy.ndimage import zoom

        file = self.folder / f"image_{size}.nii"
        if not file.exists():
            coarse = np.random.default_rng(0).normal(0, 300, [size // 8] * 3).astype(np.float32)
            volume = sitk.GetImageFromArray(zoom(coarse, 8, order=1).astype(np.int16))
            volume.SetSpacing([spacing] * 3)
            sitk.WriteImage(volume, str(file))
        return str(file)

    def labels(self, engine: str, classes: int, size: int) -> str:
        return str(self.folder / f"labels_{engine}_{classes}_{size}.npy")


def rows(files: Files, device: str, quick: bool) -> list[tuple[str, dict, dict]]:
    """Return part, description and task of each row, the most important rows first."""
    same, finer = (48, 64) if quick else (256, 384)
    few, usual, many, most = (5, 12, 40, 80) if quick else (10, 118, 1000, 2000)

    def contender(engine: str, classes: int, size: int = same, spacing: float = 1.0):
        told = {"engine": engine, "classes": classes, "image": [size] * 3, "spacing": spacing}
        return "against_stock", told, {"do": engine, "labels": files.labels(engine, classes, size)}

    def small(gib: float, how: str):
        told = {"classes": many, "image": [same] * 3, "spacing": 1.0, "GiB": gib, "limited_by": how}
        names = {"labels": files.labels("limited", many, same), "reference": files.labels("ours", many, same)}
        return "small_gpu", told, {"do": "limited", "gib": gib, "how": how, **names}

    bundles = [
        ("bundles", {"model": demo.model}, {"do": "bundle", "name": demo.model, "sample": demo.sample})
        for demo in DEMOS.values()
    ]
    if quick:
        return [
            *bundles[:1],
            *(contender(engine, usual) for engine in ("ours", "stock")),
            small(4, "torch"),
            *(contender(engine, usual, finer, 0.5) for engine in ("ours", "stock")),
        ]
    return [
        *bundles,
        *(contender(engine, classes) for classes in (usual, many) for engine in ("ours", "stock")),
        *(small(*limit) for limit in ((4, "torch"), (2, "torch"), (2, "memory_limit"))),
        *(contender(engine, usual, finer, 0.5) for engine in ("ours", "stock")),
        *(contender(engine, few) for engine in ("ours", "stock")),
        contender("ours", most),
        *(contender(engine, many, 192) for engine in ("ours", "stock")),
    ]


def share_that_differs(files: Files, told: dict) -> float | None:
    """Return the share of voxels that differ between ours and stock, once both label maps exist."""
    import numpy as np

    both = [Path(files.labels(engine, told["classes"], told["image"][0])) for engine in ("ours", "stock")]
    if not all(file.exists() for file in both):
        return None
    first, second = (np.load(file) for file in both)
    return float((first != second).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=2.5, help="time for all rows together (default: 2.5)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that one row may take (default: 60)")
    parser.add_argument("--quick", action="store_true", help="use small sizes, to show that everything works")
    parser.add_argument(
        "--folder", type=Path, default=HERE / "results", help="folder of the JSON file (default: results)"
    )
    options = parser.parse_args()
    begin, device = time.monotonic(), options.device
    with tempfile.TemporaryDirectory(prefix="classscaleseg-gpu-") as name:
        workers = Workers(Path(name))  # before torch is imported here, so that the first process starts at once
        try:
            return measure(workers, Files(Path(name), options.quick), options, begin + 60 * options.minutes, device)
        finally:
            workers.close()


def measure(workers: Workers, files: Files, options: argparse.Namespace, end: float, device: str) -> int:
    """Measure all rows; return 1 if a row of ours has a fault, else 0."""
    content = {"machine": description(device), "quick": options.quick, "minutes": 0.0}
    content |= {"bundles": [], "against_stock": [], "small_gpu": []}
    begin, failed, partial = time.monotonic(), False, options.folder / "gpu_engine.partial.json"
    for part, told, task in rows(files, device, options.quick):
        left = end - time.monotonic()
        if left < 15:
            row = {**told, "skipped": "no time left"}
        else:
            try:
                if "image" in told:
                    task["image"] = files.image(told["image"][0], told["spacing"])
                    task["model"] = files.model(told["classes"])
                limit = min(options.limit, max(end - time.monotonic(), 5))
                row = {**told, **workers.run(limit, device=device, **task)}
                if told.get("engine") == "stock":
                    row["share_that_differs"] = share_that_differs(files, told)
            except Exception as fault:  # the other rows still run
                traceback.print_exc(file=sys.stdout)
                row = {**told, "fault": f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:300]}"}
        failed |= "fault" in row and told.get("engine") != "stock"
        content[part].append(row)
        content["minutes"] = round((time.monotonic() - begin) / 60, 2)
        write_json(partial, content)  # after each row, so that a killed run keeps its rows
        print(json.dumps({"part": part, **row}), flush=True)
    partial.replace(options.folder / "gpu_engine.json")
    return int(failed)


def description(device: str) -> dict[str, object]:
    from datetime import date
    from importlib.metadata import version

    import psutil
    import torch

    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "gpu_GiB": round(torch.cuda.mem_get_info()[1] / 2**30, 1) if device.startswith("cuda") else 0,
        "cores": os.cpu_count(),
        "memory_GiB": round(psutil.virtual_memory().total / 2**30, 1),
        "torch": torch.__version__,
        "nnunetv2": version("nnunetv2"),
        "date": date.today().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
