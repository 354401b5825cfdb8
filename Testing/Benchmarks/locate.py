"""Time 2 of 117 classes in a large scan, with and without a coarse model that locates them; compare results in a box.

    python Testing/Benchmarks/locate.py [--root .benchmarks/locate] [--quick]

The scan has 512 x 512 x 600 voxels of 0.8 mm with two bodies of the size of kidneys. The networks have the size of
TotalSegmentator's, for voxels of 1.5 and of 6 mm, and random weights, but for the last layer, which is fitted to find
the two bodies. Each job is a process of its own on a CPU, from the file to the result.

How much a box changes is measured with networks that were trained, the embedded ones, on their samples: structures of
the head, and cells of the toy atlas. The box is that of the structures in the result of the whole image, and a margin.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import Bar, in_own_process, mebibytes, parse, peak_bytes, report
from random_model import RandomModel

THREADS = 2
BODIES = ((0.5, 0.55, 0.28, 250.0), (0.48, 0.55, 0.72, -350.0))  # centre as a share of z, y, x; Hounsfield units
RADII = (55.0, 28.0, 32.0)  # mm along z, y, x
NAMES = ("structure 1", "structure 2")
FEATURES = (32, 64, 128, 256, 320)
HEAD = (("left hippocampus", "right hippocampus"), ("left putamen",), ("fourth ventricle",))


def bodies(shape: Sequence[int], spacing: float, first: int = 0) -> Any:
    """Return the labels of the two bodies, uint8 ``shape`` (z, y, x); of the whole scan from the row ``first``."""
    import numpy as np

    size = (shape[0] if first == 0 else 600, *shape[1:])
    labels = np.zeros(shape, np.uint8)
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    for value, (*centre, _units) in enumerate(BODIES, 1):
        distance = sum(
            ((axis - share * n) * spacing / radius) ** 2
            for axis, share, n, radius in zip(grid, centre, size, RADII, strict=True)
        )
        labels[distance < 1] = value
    return labels


def write_scan(file: Path, shape: Sequence[int], spacing: float) -> Path:
    """Write the scan: smooth tissue with noise, and the bodies, in Hounsfield units."""
    import numpy as np
    import SimpleITK as sitk

    if not file.exists():
        image = sitk.GetImageFromArray(intensities(bodies(shape, spacing)).astype(np.int16))
        image.SetSpacing([spacing] * 3)
        temporary = file.with_name("writing_" + file.name)
        sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
        temporary.rename(file)
    return file


def intensities(labels: Any, seed: int = 0) -> Any:
    """Return float32 Hounsfield units of the labels."""
    import numpy as np
    from scipy.ndimage import zoom

    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 30, [-(-n // 32) for n in labels.shape]).astype(np.float32)
    image = zoom(coarse, [n / m for n, m in zip(labels.shape, coarse.shape, strict=True)], order=1)
    units = np.array([40.0, *(body[3] for body in BODIES)], np.float32)
    for row, plane in zip(image, labels, strict=True):
        row += units[plane] + rng.normal(0, 10, row.shape).astype(np.float32)
    return image


def fitted(model: RandomModel) -> Any:
    """Return a network with random weights whose last layer finds the bodies: ridge regression on its own features."""
    import numpy as np
    import torch

    network = model.network()
    last = network.decoder.seg_layers[-1]
    features: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _module, inputs: features.append(inputs[0][0].flatten(1).T))
    spacing, extent = model.spacing[0], 0.8 * np.array([600, 512, 512])
    whole = bodies([int(n) for n in extent / spacing], spacing)
    image = (intensities(whole, seed=1).clip(-1000, 1000) - 50) / 250
    rows, targets, rng = [], [], np.random.default_rng(0)
    for centre in (*(body[:3] for body in BODIES), (0.2, 0.5, 0.5), (0.8, 0.3, 0.4), (0.5, 0.5, 0.5)):
        start = [
            int(np.clip(share * n - p // 2, 0, max(n - p, 0)))
            for share, n, p in zip(centre, whole.shape, model.patch, strict=True)
        ]
        box = tuple(slice(s, s + p) for s, p in zip(start, model.patch, strict=True))
        patch, labels = image[box], whole[box]
        pad = [(0, p - n) for p, n in zip(model.patch, patch.shape, strict=True)]
        patch, labels = np.pad(patch, pad), np.pad(labels, pad)
        with torch.inference_mode():
            network(torch.from_numpy(patch.astype(np.float32))[None, None])
        chosen = rng.choice(labels.size, 20000, replace=False)
        rows.append(features.pop()[chosen].double())
        targets.append(labels.ravel()[chosen])
    hook.remove()
    x = torch.cat(rows)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    y = torch.nn.functional.one_hot(torch.from_numpy(np.concatenate(targets)).long(), 3).double()
    weights = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).T
    with torch.no_grad():
        last.weight.mul_(0.01)  # the other classes compete, and lose
        last.bias.fill_(-3.0)
        last.weight[:3] = weights[:, :-1].float().view(3, -1, 1, 1, 1)
        last.bias[:3] = weights[:, -1].float()
    return network


def segment_it(file: str, model: str, output: str, coarse: str | None, margin: float) -> dict:
    """Segment the two classes, as the command does; return seconds, memory and what the user is told."""
    from ClassScaleSegLib import open_model, segment

    begin, told = time.perf_counter(), []
    located: dict[str, Any] = {}
    if coarse is not None:
        located = {"locate_with": open_model(coarse), "locate_margin": margin}
    opened = open_model(model)

    def progress(now: Any) -> None:
        told.extend([now.message] if now.message else [])

    result = segment(file, opened, device="cpu", mirroring=False, classes=NAMES, progress=progress, **located)
    result.write(output, overwrite=True)
    seconds = time.perf_counter() - begin
    share = float(told[0].split(" mm, ")[1].split("%")[0]) / 100 if told else 1.0
    return {"seconds": seconds, "MiB": mebibytes(peak_bytes()), "share": share}


def changed_by_a_box(model: str, sample: str, groups: Sequence[Sequence[str]], margins: Sequence[float]) -> dict:
    """Segment a sample with an embedded model as a whole and in boxes; compare the structures that a box is for.

    :param groups: names of structures, each group with a box of its own.
    """
    import numpy as np
    from ClassScaleSegLib import Options, open_model
    from ClassScaleSegLib.inference.segmenter import segment_with
    from ClassScaleSegLib.resources import resource

    opened, file = open_model(resource("Models", f"{model}.zip")), resource("SampleData", f"{sample}.nrrd")
    options = Options(device="cpu", mirroring=False)
    begin = time.perf_counter()
    whole = segment_with(file, opened, options)
    seconds, spacing = time.perf_counter() - begin, np.array(whole.geometry.spacing[::-1])
    rows = []
    for names in groups:
        values = [label.value for label in opened.table.select(names).foreground]
        found = np.argwhere(np.isin(whole.labels, values))
        for margin in margins:
            low = np.maximum(found.min(0) - np.ceil(margin / spacing), 0).astype(int).tolist()
            high = np.minimum(found.max(0) + 1 + np.ceil(margin / spacing), whole.labels.shape).astype(int).tolist()
            z, y, x = (slice(*ends) for ends in zip(low, high, strict=True))
            begin = time.perf_counter()
            part = segment_with(file, opened, options, box=(z, y, x))
            taken = time.perf_counter() - begin
            pairs = [(whole.labels == value, part.labels == value) for value in values]
            dice = [2 * int((a & b).sum()) / int(a.sum() + b.sum()) for a, b in pairs]
            inside = whole.labels[z, y, x] != part.labels[z, y, x]
            rows.append(
                {
                    "job": f"{model}: {', '.join(names)}",
                    "margin": margin,
                    "share": part.labels[z, y, x].size / part.labels.size,
                    "seconds": taken,
                    "times faster": seconds / taken,
                    "voxels that differ in the box": float(inside.mean()),
                    "lowest Dice": min(dice),
                }
            )
    return {"rows": rows}


def main() -> int:
    options = parse(__doc__, "locate")
    if options.task:
        task = dict(options.task)
        work = {"segment": segment_it, "box": changed_by_a_box}[task.pop("what")]
        print(json.dumps(work(**task)))
        return 0
    shape, spacing = ((120, 102, 102), 4.0) if options.quick else ((600, 512, 512), 0.8)
    patch, grid, features = (
        ((64,) * 3, (4.0,) * 3, FEATURES[:3]) if options.quick else ((128,) * 3, (1.5,) * 3, FEATURES)
    )
    fine = RandomModel(118, patch, grid, features)
    coarse = RandomModel(118, (64, 64, 64), (8.0 if options.quick else 6.0,) * 3, features, dataset="Dataset901_Coarse")
    file = write_scan(options.root / f"scan_{shape[0]}.nii.gz", shape, spacing)
    folders = []
    for model, name in ((fine, "fine"), (coarse, "coarse")):
        folder = options.root / f"{name}_{'quick' if options.quick else 'full'}"
        (ready,) = list(folder.glob("*/*/plans.json")) or [model.write(folder, [fitted(model)]) / "plans.json"]
        folders.append(str(ready.parent))
    rows: list[dict[str, Any]] = []
    for name, located, margin in (
        ("whole scan", None, 20.0),
        ("located", folders[1], 20.0),
        ("located", folders[1], 40.0),
    ):
        output = str(options.root / "result.seg.nrrd")
        task = {"file": str(file), "model": folders[0], "output": output, "coarse": located, "margin": margin}
        figures = in_own_process(__file__, THREADS, what="segment", **task)
        rows.append({"job": name, "seconds": figures["seconds"], "MiB": figures["MiB"]})
        if located is not None:
            rows[-1] |= {"margin": margin, "times faster": rows[0]["seconds"] / figures["seconds"]}
            rows[-1]["share"] = figures["share"]
        print(rows[-1], flush=True)
    of_toy = {"model": "toy-1000", "sample": "toy-1000", "groups": [["cell 1"], ["cell 500", "cell 501"]]}
    boxes = in_own_process(__file__, THREADS, what="box", **of_toy, margins=[20.0])["rows"]
    if not options.quick:
        of_head = {"model": "head-mr-312", "sample": "head-mr", "groups": HEAD, "margins": [5.0, 20.0, 40.0]}
        boxes += in_own_process(__file__, THREADS, what="box", **of_head)["rows"]
    wide = [row for row in boxes if row["margin"] == 20]
    bars = [
        Bar(
            "times faster, with a margin of 20 mm", rows[1]["times faster"], 1.2 if options.quick else 4, at_least=True
        ),
        Bar(
            "lowest Dice to the whole image's result, 20 mm",
            min(row["lowest Dice"] for row in wide),
            0.95,
            at_least=True,
        ),
    ]
    return report(options, "locate", [*rows, *boxes], bars)


if __name__ == "__main__":
    sys.exit(main())
