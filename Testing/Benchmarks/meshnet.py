"""A published network with 104 classes on real heads: our engine against a plain forward pass, and manual labels.

    python Testing/Benchmarks/meshnet.py --weights FOLDER [--data FOLDER] [--cases 3] [--root .benchmarks/meshnet]

FOLDER has ``model.json``, ``group1-shard1of1.bin`` and ``colormap.json`` of Brainchop's ``model21_104class``
(github.com/neuroneural/brainchop at 4c87885, ``public/models``, MIT). The project does not contain them. The heads are
those of MICCAI 2012, see ``miccai2012.py``; they are used for measurements only.

The plain forward pass is written here, after the published description: FreeSurfer's conforming with the affine
matrices of nibabel and ``scipy.ndimage``, and convolutions of torch on the whole head. Of each head:

* ``differ``: voxels of the conformed head, as a file of 256 x 256 x 256 bytes, that our engine labels otherwise.
* Dice, with the labels of the original image, of the structures that both lists have (``miccai2012_meshnet.csv``):
  of our engine, which goes back to the image between the classes, and of the plain pass, whose nearest label is taken.

Each runs in its own process on one thread. Seconds are those of the processor, because other work may run beside.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import DATA, HERE, Bar, in_own_process, peak_bytes, report, reset_peak, resident_bytes

SIDE = 256
LIA = np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]])  # directions of the axes x, y, z, in RAS


def conform(file: str, output: str) -> dict:
    """Write an image as FreeSurfer conforms it: 256^3 bytes of 1 mm around the centre."""
    import nibabel
    from scipy.ndimage import affine_transform

    image = nibabel.load(file)
    voxels = np.asarray(image.dataobj).astype(np.float64)
    affine = np.eye(4)
    affine[:3, :3] = LIA
    centre = image.affine @ [*(n / 2 for n in voxels.shape), 1]
    affine[:3, 3] = centre[:3] - LIA @ ([SIDE / 2] * 3)
    between = np.linalg.inv(image.affine) @ affine
    shape = (SIDE, SIDE, SIDE)
    found = affine_transform(voxels, between[:3, :3], between[:3, 3], shape, order=1, mode="constant", cval=0)
    counts, edges = np.histogram(voxels, 1000)
    below = voxels.size - math.floor((1 - 0.999) * np.count_nonzero(voxels))
    top = int(np.flatnonzero(counts.cumsum()[1:] >= below)[0])
    low, high = voxels.min(), edges[top]
    levels = np.floor(np.clip(255 / (high - low) * (found - low), 0, 255)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(levels, affine), output)
    return {}


def plain(file: str, weights: str, output: str) -> dict:
    """Label a conformed head by a plain forward pass, and return seconds and the memory that was added."""
    import nibabel
    import torch
    from torch.nn.functional import conv3d

    torch.set_num_threads(1)
    levels = np.asarray(nibabel.load(file).dataobj)
    model = json.loads(Path(weights, "model.json").read_text())
    group = model["weightsManifest"][0]
    numbers, arrays = np.fromfile(Path(weights, group["paths"][0]), "<f4"), []
    for array in group["weights"]:
        count = math.prod(array["shape"])
        arrays.append(torch.from_numpy(numbers[:count].reshape(array["shape"])))
        numbers = numbers[count:]
    layers = model["modelTopology"]["model_config"]["config"]["layers"]
    dilations = [layer["config"]["dilation_rate"][0] for layer in layers if layer["class_name"] == "Conv3D"]
    begin, before = time.process_time(), _start()
    box = tuple(slice(line.min(), line.max() + 1) for line in np.nonzero(levels))
    with torch.inference_mode():
        x = torch.from_numpy(levels[box].astype(np.float32) / np.float32(levels.max()))[None, None]
        for number, dilation in enumerate(dilations):
            kernel, bias = arrays[2 * number].permute(4, 3, 0, 1, 2), arrays[2 * number + 1]
            x = conv3d(x, kernel, bias, padding=dilation * (kernel.shape[-1] // 2), dilation=dilation)
            if number < len(dilations) - 1:
                x = x.relu_()
        labels = np.zeros(levels.shape, np.uint8)
        labels[box] = x[0].argmax(0).numpy()
    np.save(output, labels)
    return _measured(begin, before)


def ours(file: str, weights: str, output: str) -> dict:
    """Label an image by the engine, and return seconds and the memory that was added."""
    from ClassScaleSegLib import open_model, segment

    model = open_model(weights)
    begin, before = time.process_time(), _start()
    labels = segment(file, model, device="cpu", threads=1).labels.transpose(2, 1, 0)
    done = _measured(begin, before)
    np.save(output, np.ascontiguousarray(labels).astype(np.uint8))
    return done


def _start() -> int:
    reset_peak()
    return resident_bytes()


def _measured(begin: float, before: int) -> dict:
    return {"seconds": round(time.process_time() - begin, 1), "MiB": round((peak_bytes() - before) / 2**20)}


def on_image(labels: np.ndarray, conformed: Path, image: Path) -> np.ndarray:
    """Return for each voxel of the image the label of the nearest voxel of the conformed head."""
    import nibabel
    from scipy.ndimage import affine_transform

    target = nibabel.load(image)
    between = np.linalg.inv(nibabel.load(conformed).affine) @ target.affine
    return affine_transform(labels, between[:3, :3], between[:3, 3], target.shape, order=0, mode="constant")


def groups(weights: Path, data: Path) -> list[tuple[str, str, list[int], list[int]]]:
    """Return of each structure that both lists have: name, kind, labels by hand, labels of the network."""
    names = json.loads((weights / "colormap.json").read_text())["labels"]
    own = {name.rstrip("*"): value for value, name in enumerate(names)}
    with open(data / "labels.csv", encoding="utf-8-sig") as stream:
        hand: dict[str, list[int]] = {}
        for row in csv.DictReader(stream):
            hand.setdefault(" ".join(row["Label Name"].split()), []).append(int(row["Label Number"]))
    with open(HERE / "miccai2012_meshnet.csv", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    return [
        (
            row["structure"],
            row["kind"],
            [value for name in row["miccai2012"].split(" + ") for value in hand[name]],
            [own[name] for name in row["model21_104class"].split(" + ")],
        )
        for row in table
    ]


def dice(found: np.ndarray, hand: np.ndarray, both: list[tuple[str, str, list[int], list[int]]]) -> np.ndarray:
    pairs = ((np.isin(hand, theirs), np.isin(found, own)) for _name, _kind, theirs, own in both)
    return np.array([2 * (r & f).sum() / max(r.sum() + f.sum(), 1) for r, f in pairs])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of model21_104class")
    parser.add_argument("--data", type=Path, default=DATA / "miccai2012", help="folder with the heads")
    parser.add_argument("--root", type=Path, default=Path(".benchmarks/meshnet"), help="folder for labels")
    parser.add_argument("--cases", type=int, default=3, help="number of heads (default: 3)")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        way = {"conform": conform, "plain": plain, "ours": ours}[options.task.pop("way")]
        print(json.dumps(way(**options.task)))
        return 0
    if options.weights is None:
        parser.error("--weights is needed: the folder of model21_104class")
    import nibabel

    root, weights = options.root.resolve(), options.weights.resolve()
    root.mkdir(parents=True, exist_ok=True)
    both = groups(weights, options.data)
    rows: list[dict[str, Any]] = []
    scores: dict[str, list[np.ndarray]] = {"ours": [], "plain": []}
    for image in sorted(options.data.resolve().glob("*_t1.nii.gz"))[: options.cases]:
        case = image.name.split("_")[0]
        conformed = root / f"{case}.nii.gz"
        done, labels = {}, {}
        in_own_process(__file__, way="conform", file=str(image), output=str(conformed))
        tasks = {"plain": ("plain", conformed), "conformed": ("ours", conformed), "ours": ("ours", image)}
        for name, (way, file) in tasks.items():
            output, note = root / f"{case}-{name}.npy", root / f"{case}-{name}.json"
            if not note.exists():  # a run that was stopped goes on
                task = {"way": way, "file": str(file), "weights": str(weights), "output": str(output)}
                note.write_text(json.dumps(in_own_process(__file__, **task)))
            done[name], labels[name] = json.loads(note.read_text()), np.load(output)
        hand = np.asarray(nibabel.load(image.with_name(f"{case}_labels.nii.gz")).dataobj).astype(np.int64)
        plain_there = on_image(labels["plain"], conformed, image)
        scores["ours"].append(dice(labels["ours"], hand, both))
        scores["plain"].append(dice(plain_there, hand, both))
        differ = int(np.count_nonzero(labels["plain"] != labels["conformed"]))
        rows.append(
            {
                "head": case,
                "voxels": list(hand.shape),
                "classes found": len(np.unique(labels["plain"])),
                "in the head": int(np.count_nonzero(labels["plain"])),
                "differ": differ,
                **{f"{key} {name}": done[name][key] for name in ("plain", "conformed", "ours") for key in done[name]},
                **{f"Dice {name}": round(float(score[-1].mean()), 3) for name, score in scores.items()},
            }
        )
    kinds = np.array([kind for _name, kind, *_labels in both])
    means = {name: np.mean(score, 0) for name, score in scores.items()}
    for kind in dict.fromkeys(kinds):
        chosen = {f"Dice {name}": round(float(mean[kinds == kind].mean()), 3) for name, mean in means.items()}
        rows.append({"head": f"{(kinds == kind).sum()} {kind}", **chosen})
    for index, (name, *_rest) in enumerate(both):
        rows.append({"head": name, **{f"Dice {way}": round(float(mean[index]), 3) for way, mean in means.items()}})
    heads = rows[: len(scores["ours"])]
    share = max(row["differ"] / row["in the head"] for row in heads) * 1e6
    bars = [
        Bar("voxels that differ, of a million in the head", share, 10),
        Bar("memory as a multiple of the plain pass", max(row["MiB conformed"] / row["MiB plain"] for row in heads), 1),
        Bar("mean Dice of ours minus that of the plain pass", float((means["ours"] - means["plain"]).mean()), 0, True),
    ]
    return report(argparse.Namespace(quick=False, root=root), "meshnet", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
