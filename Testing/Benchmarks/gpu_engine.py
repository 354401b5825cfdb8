"""Measure the engine on a GPU: agreement with the CPU, stock nnU-Net for comparison, and a GPU with little memory.

    python Testing/Benchmarks/gpu_engine.py [--device cuda] [--minutes 2.5] [--limit 60] [--folder FOLDER]
        [--work FOLDER] [--quick]

The script needs torch, nnunetv2, SimpleITK, safetensors, psutil and this repository, and writes
``results/gpu_engine.json``. Until all rows are done, the finished ones are in ``gpu_engine.partial.json``,
and the same command goes on after them; with ``--work`` it also keeps models, images and label maps for that. Each row
runs in its own process, which is killed after ``--limit`` seconds or at 85 % of the machine's memory. The most
important rows come first; rows for which no time is left wait for the next call. ``--quick --device cpu`` runs
everything with small sizes to show that the script works; use another ``--folder`` with it.

``bundles``: the embedded models on their samples, as shipped (with mirroring where the model allows it), on the CPU and
on the device. The row has the seconds of the second call, the voxels that differ, and the voxels that differ when the
device uses only float32.

``against_stock``: a full-size network (6 stages, 32 to 320 features, patch 128^3, random weights) on 256^3 voxels of
smooth noise at the model's spacing, on 384^3 at half of it, so that the result is resampled, and on 512 x 512 x 531 at
0.7 mm. Stock is
``nnUNetPredictor`` with its defaults (everything on the device, step 0.5, Gaussian). Neither mirrors; each chooses its
number of threads. Seconds are from the image file to the array of labels; the model was loaded and one window was run
before. They are given for the whole, for preprocessing, for the rest, and for stock's export. Random weights give noisy
labels with many near ties.

``small_gpu``: 1000 classes with torch limited to a few GiB of the GPU, as on a card with 8 or 4 GB, then with the
engine's own memory limit.

``child``: the same job in the child process that the panel of 3D Slicer starts, from the start of the child to its end.

The bars: our engine reserves at most 3 GiB of the GPU in any row, and no row of ours has a fault.

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
PARTS = ("bundles", "against_stock", "small_gpu", "child")
GPU_LIMIT_MIB = 3072  # that our engine may reserve
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

    def image(self, shape: list[int], spacing: float) -> str:
        """Return the file of an image (z, y, x) of smooth noise with values like those of a CT, int16."""
        import numpy as np
        import SimpleITK as sitk
        from scipy.ndimage import zoom

        file = self.folder / f"image_{'_'.join(map(str, shape))}.nii"
        if not file.exists():
            coarse = np.random.default_rng(0).normal(0, 300, [-(-size // 8) for size in shape]).astype(np.float32)
            whole = zoom(coarse, 8, order=1).astype(np.int16)
            volume = sitk.GetImageFromArray(whole[: shape[0], : shape[1], : shape[2]])
            volume.SetSpacing([spacing] * 3)
            temporary = file.with_name(f"part_{file.name}")
            sitk.WriteImage(volume, str(temporary))
            temporary.replace(file)
        return str(file)

    def labels(self, engine: str, classes: int, shape: list[int]) -> str:
        return str(self.folder / f"labels_{engine}_{classes}_{'_'.join(map(str, shape))}.npy")


def rows(files: Files, device: str, quick: bool) -> list[tuple[str, dict, dict]]:
    """Return part, description and task of each row, the most important rows first."""
    same, finer, scan = ([48] * 3, [64] * 3, [70, 40, 40]) if quick else ([256] * 3, [384] * 3, [531, 512, 512])
    few, usual, many, most = (5, 12, 40, 80) if quick else (10, 118, 1000, 2000)

    def contender(engine: str, classes: int, shape: list[int] = same, spacing: float = 1.0):
        told = {"engine": engine, "classes": classes, "image": shape, "spacing": spacing}
        return "against_stock", told, {"do": engine, "labels": files.labels(engine, classes, shape)}

    def small(gib: float, how: str, shape: list[int] = same, spacing: float = 1.0):
        told = {"classes": many, "image": shape, "spacing": spacing, "GiB": gib, "limited_by": how}
        names = {"labels": files.labels("limited", many, shape), "reference": files.labels("ours", many, shape)}
        return "small_gpu", told, {"do": "limited", "gib": gib, "how": how, **names}

    child = "child", {"classes": many, "image": same, "spacing": 1.0}, {"do": "child"}

    bundles = [
        ("bundles", {"model": demo.model}, {"do": "bundle", "name": demo.model, "sample": demo.sample})
        for demo in DEMOS.values()
    ]
    if quick:
        return [
            *bundles[:1],
            *(contender(engine, usual) for engine in ("ours", "stock")),
            small(4, "torch"),
            child,
            contender("ours", usual, scan, 0.7),
        ]
    return [
        *bundles,
        *(contender(engine, classes) for classes in (usual, many) for engine in ("ours", "stock")),
        *(small(*limit) for limit in ((8, "torch"), (4, "torch"), (2, "torch"), (2, "memory_limit"))),
        child,
        *(contender("ours", classes, scan, 0.7) for classes in (usual, many)),
        *(small(gib, "torch", scan, 0.7) for gib in (8, 4)),
        contender("ours", few),
        contender("ours", most),
        contender("ours", most, scan, 0.7),
        *(contender(engine, usual, finer, 0.5) for engine in ("ours", "stock")),
        contender("stock", few),
        *(contender(engine, many, [192] * 3) for engine in ("ours", "stock")),
    ]


def share_that_differs(files: Files, told: dict) -> float | None:
    """Return the share of voxels that differ between ours and stock, once both label maps exist."""
    import numpy as np

    both = [Path(files.labels(engine, told["classes"], told["image"])) for engine in ("ours", "stock")]
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
    parser.add_argument("--work", type=Path, help="folder that keeps models and images for the next call")
    options = parser.parse_args()
    begin, device = time.monotonic(), options.device
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="classscaleseg-gpu-") as name:
        work = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        workers = Workers(Path(name))  # before torch is imported here, so that the first process starts at once
        try:
            return measure(workers, Files(work, options.quick), options, begin + 60 * options.minutes, device)
        finally:
            workers.close()


def measure(workers: Workers, files: Files, options: argparse.Namespace, end: float, device: str) -> int:
    """Measure the rows that are not done yet.

    :returns: 0 if all are done and the bars are met, 1 if one is missed, 2 if rows are left for the next call.
    """
    content = {"machine": description(device), "quick": options.quick, "minutes": 0.0}
    content |= {"bundles": [], "against_stock": [], "small_gpu": [], "child": []}
    partial = options.folder / "gpu_engine.partial.json"
    done = done_before(partial, content)
    begin, left_over = time.monotonic() - 60 * done["minutes"], False
    for part, told, task in rows(files, device, options.quick):
        before = [row for row in done[part] if all(row.get(key) == value for key, value in told.items())]
        left = end - time.monotonic()
        if before:
            content[part].append(before[0])
            continue
        if left < 15:
            left_over = True
            continue
        try:
            if "image" in told:
                task["image"] = files.image(told["image"], told["spacing"])
                task["model"] = files.model(told["classes"])
            limit = min(options.limit, max(end - time.monotonic(), 5))
            row = {**told, **workers.run(limit, device=device, **task)}
            if told.get("engine") == "stock":
                row["share_that_differs"] = share_that_differs(files, told)
        except Exception as fault:  # the other rows still run
            traceback.print_exc(file=sys.stdout)
            row = {**told, "fault": f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:300]}"}
        if limit_was_time(row, left, options.limit):
            left_over = True  # the next call has more time for it
            continue
        content[part].append(row)
        content["minutes"] = round((time.monotonic() - begin) / 60, 2)
        write_json(partial, content)  # after each row, so that a killed run keeps its rows
        print(json.dumps({"part": part, **row}), flush=True)
    if left_over:
        write_json(partial, content)
        return 2
    write_json(options.folder / "gpu_engine.json", content)
    partial.unlink(missing_ok=True)
    ours = [row for part in ("bundles", "against_stock", "small_gpu", "child") for row in content[part]]
    ours = [row for row in ours if row.get("engine") != "stock"]
    too_much = [row for row in ours if row.get("gpu_reserved_MiB", 0) > GPU_LIMIT_MIB]
    return int(bool(too_much) or any("fault" in row for row in ours))


def done_before(partial: Path, content: dict) -> dict:
    """Return what an earlier call with the same device and packages has done, or nothing."""
    try:
        before = json.loads(partial.read_text(encoding="utf-8"))
        same = all(before["machine"][key] == content["machine"][key] for key in ("device", "torch"))
        if same and before["quick"] == content["quick"] and all(isinstance(before[part], list) for part in PARTS):
            return before
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return content


def limit_was_time(row: dict, left: float, limit: float) -> bool:
    """Return whether a row was stopped although another call would give it more time."""
    return row.get("fault", "").startswith("over ") and row["fault"].endswith(" s") and left < limit


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
