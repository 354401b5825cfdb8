"""Time 2 of 117 classes in a large scan, with and without a coarse model that locates them; compare results in a box.

    python Testing/Benchmarks/locate.py [--root .benchmarks/locate] [--quick]

The scan has 512 x 512 x 600 voxels of 0.8 mm with two bodies of the size of kidneys. The networks have the size of
TotalSegmentator's, for voxels of 1.5 and of 6 mm, and random weights, but for the last layer, which is fitted to find
the two bodies. Each job is a process of its own on a CPU, from the file to the result.

How much a box changes is measured with an embedded network, which was trained: structures of two real heads
(`shared/data/miccai2012`) in a field of view of 320 mm, which takes several windows. The box is that of the structures
in the result of the whole image, and a margin; both results are also compared with the structures drawn by hand. The
figures of the scan are kept in the root folder; remove it to measure them again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import DATA, Bar, in_own_process, mebibytes, parse, peak_bytes, report
from random_model import RandomModel

THREADS = 2
BODIES = ((0.5, 0.55, 0.28, 250.0), (0.48, 0.55, 0.72, -350.0))  # centre as a share of z, y, x; Hounsfield units
RADII = (55.0, 28.0, 32.0)  # mm along z, y, x
NAMES = ("structure 1", "structure 2")
FEATURES = (32, 64, 128, 256, 320)
# with their values in the label maps of the heads
STRUCTURES = ({"left hippocampus": 48, "right hippocampus": 47}, {"left putamen": 58}, {"fourth ventricle": 11})
MARGINS = (5.0, 20.0, 40.0)


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
    located_by = [message for message in told if message.startswith("Located by")]
    share = float(located_by[0].split(" mm, ")[1].split("%")[0]) / 100 if located_by else 1.0
    return {"seconds": seconds, "MiB": mebibytes(peak_bytes()), "share": share}


def wide_view(head: Path, root: Path, millimetres: float = 320.0) -> Path:
    """Write a head with as much noisy air around it as makes a field of view of this size."""
    import numpy as np
    import SimpleITK as sitk

    image = sitk.ReadImage(str(head), sitk.sitkFloat32)
    missing = [max(int(millimetres / s - n), 0) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    wide = sitk.ConstantPad(image, [n // 2 for n in missing], [n - n // 2 for n in missing], 0.0)
    array = sitk.GetArrayFromImage(wide)
    array += np.abs(np.random.default_rng(0).normal(0, 0.01 * np.percentile(array, 99), array.shape)).astype(np.float32)
    noisy = sitk.GetImageFromArray(array)
    noisy.CopyInformation(wide)
    file = root / head.name.replace(".nii.gz", "_wide.nrrd")
    sitk.WriteImage(noisy, str(file), useCompression=True)
    return file


def dice(a: Any, b: Any) -> float:
    return 2 * int((a & b).sum()) / int(a.sum() + b.sum())


def changed_by_a_box(
    model: str, image: str, groups: Sequence[dict[str, int]], reference: str, margins: Sequence[float]
) -> dict:
    """Segment an image with an embedded model as a whole and in boxes; compare the structures that a box is for.

    :param groups: names of structures, each group with a box of its own, and their values in the ``reference``.
    """
    import numpy as np
    from ClassScaleSegLib import Options, Segmentation, open_model
    from ClassScaleSegLib.inference.memory_estimate import estimate
    from ClassScaleSegLib.inference.segmenter import segment_with
    from ClassScaleSegLib.resources import resource

    opened, file = open_model(resource("Models", f"{model}.zip")), image
    options = Options(device="cpu", mirroring=False)
    segment_with(file, opened, options)  # loads what the first run of a process loads
    begin = time.perf_counter()
    whole = segment_with(file, opened, options)
    seconds, spacing = time.perf_counter() - begin, np.array(whole.geometry.spacing[::-1])
    need = estimate(opened, whole.labels.shape, tuple(spacing))
    rows = []
    drawn = Segmentation.from_image(reference).labels
    inner = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(whole.labels.shape, drawn.shape, strict=True))
    for names in groups:
        values = [opened.table.by_name(name).value for name in names]
        truth = {value: drawn == known for value, known in zip(values, names.values(), strict=True)}
        found = np.argwhere(np.isin(whole.labels, values))
        for margin in margins:
            low = np.maximum(found.min(0) - np.ceil(margin / spacing), 0).astype(int).tolist()
            high = np.minimum(found.max(0) + 1 + np.ceil(margin / spacing), whole.labels.shape).astype(int).tolist()
            z, y, x = (slice(*ends) for ends in zip(low, high, strict=True))
            begin = time.perf_counter()
            part = segment_with(file, opened, options, box=(z, y, x))
            taken = time.perf_counter() - begin
            pairs = [(whole.labels == value, part.labels == value) for value in values]
            by_hand = [[dice(r.labels[inner] == value, truth[value]) for value in values] for r in (whole, part)]
            inside = whole.labels[z, y, x] != part.labels[z, y, x]
            rows.append(
                {
                    "job": f"{model}: {', '.join(names)}",
                    "margin": margin,
                    "windows of the whole": need.windows,
                    "share": part.labels[z, y, x].size / part.labels.size,
                    "seconds": taken,
                    "times faster": seconds / taken,
                    "voxels that differ in the box": float(inside.mean()),
                    "lowest Dice of both": min(dice(a, b) for a, b in pairs),
                    "Dice to the hand, whole": sum(by_hand[0]) / len(values),
                    "Dice to the hand, box": sum(by_hand[1]) / len(values),
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
        known = options.root / f"{shape[0]}_{name}_{margin:g}.json"
        if not known.exists():
            known.write_text(json.dumps(in_own_process(__file__, THREADS, what="segment", **task)))
        figures = json.loads(known.read_text())
        rows.append({"job": name, "seconds": figures["seconds"], "MiB": figures["MiB"]})
        if located is not None:
            rows[-1] |= {"margin": margin, "times faster": rows[0]["seconds"] / figures["seconds"]}
            rows[-1]["share"] = figures["share"]
        print(rows[-1], flush=True)
    heads = [] if options.quick else sorted((DATA / "miccai2012").glob("*_t1.nii.gz"))[:2]
    boxes = []
    for head in heads:
        files = {"image": str(wide_view(head, options.root)), "reference": str(head).replace("_t1", "_labels")}
        task = {"model": "head-mr-312", **files, "groups": STRUCTURES, "margins": MARGINS}
        boxes += in_own_process(__file__, THREADS, what="box", **task)["rows"]
    bars = [Bar("times faster, with a margin of 20 mm", rows[1]["times faster"], 1.2 if options.quick else 4, True)]
    return report(options, "locate", [*rows, *boxes], bars)


if __name__ == "__main__":
    sys.exit(main())
