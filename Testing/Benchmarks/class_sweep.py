"""Measure peak memory and time for 10 to 2000 classes, ours and stock: training, loss, prediction, export.

    python Testing/Benchmarks/class_sweep.py [--quick] [--root FOLDER]

The cases are those of ``training_step.py`` (96^3), ``loss_memory_time.py`` (2 x 64^3 voxels), ``memory_growth.py``
(112^3, patch 64^3; here with the time of the prediction) and ``export_time.py`` (80^3 to 152^3), with more numbers of
classes, on one thread. Where stock would need more memory than is free, it is not run; the result then is "out of
memory" with the memory it would need. Each measurement is kept in the root folder, so the same command continues a
stopped sweep. The whole sweep takes half an hour. The results are ``results/class_sweep.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import HERE, Bar, free_bytes, in_own_process, mebibytes, parse, report
from memory_growth import IMAGE_SPACING, write_image
from random_model import RandomModel

CLASSES, QUICK = (10, 40, 118, 300, 1000, 2000), (10, 40)
SIDES = ("ours", "stock")


def training(side: str, classes: int, root: Path, quick: bool) -> dict[str, float]:
    size = 64 if quick else 96
    _refuse(0 if side == "ours" else 24 * classes * size**3)  # measured: 24 bytes per logit, with the coarser scales
    found = in_own_process(str(HERE / "training_step.py"), side=side, classes=classes, size=size, repeats=1)
    return {"seconds": found["seconds"], "MiB": mebibytes(found["bytes"])}


def loss(side: str, classes: int, root: Path, quick: bool) -> dict[str, float]:
    size = 16 if quick else 64
    need = 0 if side == "ours" else 22 * classes * 2 * size**3  # measured: 20 bytes per logit
    _refuse(need)
    repeats = 3 if side == "ours" else 1
    task = {"side": side, "classes": classes, "size": size, "repeats": repeats}
    found = in_own_process(str(HERE / "loss_memory_time.py"), **task)
    return {"seconds": found["seconds"], "MiB": mebibytes(found["bytes"])}


def prediction(side: str, classes: int, root: Path, quick: bool) -> dict[str, float]:
    patch, size = ((32,) * 3, 56) if quick else ((64,) * 3, 112)
    _refuse(0 if side == "ours" else classes * size**3 * (10 * IMAGE_SPACING**3 + 2))
    folder, image = root / f"{classes}_classes_patch_{patch[0]}", root / f"image_{size}.nii.gz"
    if not folder.exists():
        RandomModel(classes, patch).write(folder)
    if not image.exists():
        write_image(image, (size,) * 3)
    (model,) = folder.glob("*/*")
    task = {"engine": side, "model": str(model), "image": str(image)}
    task |= {"output": str(root / "stock")} if side == "stock" else {}
    found = in_own_process(str(HERE / "memory_growth.py"), **task)
    return {"seconds": found["seconds"], "MiB": mebibytes(found["peak"])}


def export(side: str, classes: int, root: Path, quick: bool) -> dict[str, float]:
    size, new_size = (40, 76) if quick else (80, 152)
    _refuse(0 if side == "ours" else classes * (10 * size**3 + 2 * new_size**3) + (2 << 30))
    task = {"classes": classes, "size": size, "new_size": new_size, "stock": side == "stock"}
    found = in_own_process(str(HERE / "export_time.py"), **task)
    return {"seconds": found["ours_s" if side == "ours" else "stock_s"]}


class OutOfMemory(Exception):
    """Stock would need ``args[0]`` bytes."""


def _refuse(need: float) -> None:
    if need > 0.9 * free_bytes():
        raise OutOfMemory(need)


def measured(kept: Path, work: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Return the result of ``work``, from the file ``kept`` if it was measured before."""
    if not kept.exists():
        try:
            found: dict[str, Any] = work()
        except OutOfMemory as error:
            found = {"out of memory, GiB": round(error.args[0] / 2**30, 1)}
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def main() -> int:
    options = parse(__doc__, "class_sweep")
    rows = []
    for classes in QUICK if options.quick else CLASSES:
        for work in (training, loss, prediction, export):
            for side in SIDES:
                kept = options.root / f"{work.__name__}-{side}-{classes}{'-quick' * options.quick}.json"

                def run(work=work, side=side, classes=classes) -> dict[str, float]:
                    return work(side, classes, options.root, options.quick)

                rows.append({"work": work.__name__, "side": side, "classes": classes, **measured(kept, run)})
    peaks = {(row["work"], row["classes"]): row["MiB"] for row in rows if row["side"] == "ours" and "MiB" in row}
    few, many = (10, 40) if options.quick else (10, 1000)
    bars = [
        Bar(f"peak of a {name}, {many} classes / {few}", peaks[name, many] / peaks[name, few], 1.05)
        for name in ("training", "prediction")
    ]
    bars.append(
        Bar(f"peak of a prediction, {many} classes / 40", peaks["prediction", many] / peaks["prediction", 40], 1.05)
    )
    return report(options, "class_sweep", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
