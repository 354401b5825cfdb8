"""Merge three real brain datasets of 482 labels, and train one network on them without a class-sized volume anywhere.

    python Testing/Benchmarks/merged_brains.py [--quick] [--root FOLDER]

* 291: five mice with 37 structures (DAMA mouse brain atlas). Their spacing is multiplied by eight, as if they were as
  large as the others.
* 292: the SPL brain atlas with 311 structures; it has no image, so three are made from its label map.
* 500: fifteen people with 134 structures (MICCAI 2012: images of OASIS, labels provided by Neuromorphometrics, Inc.
  under academic subscription).

``classscaleseg-train merge`` makes one dataset of them, by ``merged_brains.csv``; it is planned, preprocessed and
trained on one thread. For comparison, the same is done with the labels united at random to 40 classes (with fewer
classes than the 32 channels of the basis, memory would be smaller for another reason). What more classes cost in memory
is given as a share of a class-sized volume, which is float32 logits of all classes for a batch or for the largest case.
The results are ``results/merged_brains.json``. The data are used for measurements only; the project contains no weights
of them.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from classscale_training.data.merged_labels import ENTRY, Merged
from measure import DATA, Bar, Job, mebibytes, parse, report
from nnunet_runs import model_folder, ours, prepare, train
from raw_datasets import labels_of, people, read_case, unique, write_dataset

MOUSE, ATLAS, PEOPLE, MERGED, UNITED = 291, 292, 500, 900, 901
FEW = 40  # classes
PATCH, BATCH = (64, 64, 64), 2
MICE_AS_LARGE = 8
TAXONOMY = Path(__file__).with_name("merged_brains.csv")


def write_datasets(root: Path, data: Path, quick: bool) -> None:
    """Write the raw datasets, the merged one, and the same with few classes."""
    mice = [(f"image_{number}.nii.gz", f"label_{number}.nii.gz") for number in range(1, 3 if quick else 6)]
    values = np.unique(np.concatenate([np.unique(labels_of(data / "mouse_fvb" / label)[0]) for _, label in mice]))
    names = {int(value): f"mouse structure {value}" for value in values if value}
    write_dataset(
        root, MOUSE, "Mouse", names, [read_case(data / "mouse_fvb", *files, scale=MICE_AS_LARGE) for files in mice]
    )
    atlas, image = labels_of(data / "spl_brain" / "hncma-atlas.nrrd")
    atlas[atlas == 1] = 0  # one stray voxel without a name
    present = set(np.unique(atlas).tolist()) - {0}
    with open(data / "spl_brain" / "hncma-atlas-lut.tsv", encoding="utf-8") as stream:
        named = {int(row["value"]): row["label"] for row in csv.DictReader(stream, delimiter="\t")}
    made = [(_synthetic(atlas, seed), atlas, image) for seed in range(1 if quick else 3)]
    write_dataset(root, ATLAS, "SPLBrain", unique({value: named[value] for value in sorted(present)}), made)
    write_dataset(root, PEOPLE, "People", *people(data / "miccai2012", 2 if quick else None))
    ours(root, "merge", "-d", MOUSE, ATLAS, PEOPLE, "--into", MERGED, "--name", "Brains", "--taxonomy", TAXONOMY)
    _unite(root)


def _synthetic(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return an image in which each structure has a random grey, blurred and noisy."""
    random = np.random.default_rng(seed)
    greys = random.uniform(100, 1000, labels.max() + 1)
    greys[0] = 0
    image = sitk.GetImageFromArray(greys[labels].astype(np.float32))
    blurred = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, 0.7))
    return (blurred + random.normal(0, 20, labels.shape)).clip(0, 32767).astype(np.int16)


def _unite(root: Path) -> None:
    merged, united = root / "raw" / f"Dataset{MERGED}_Brains", root / "raw" / f"Dataset{UNITED}_United"
    if (united / "dataset.json").exists():
        return
    shutil.copytree(merged / "imagesTr", united / "imagesTr", dirs_exist_ok=True)
    (united / "labelsTr").mkdir(exist_ok=True)
    for file in (merged / "labelsTr").iterdir():
        labels, geometry = labels_of(file)
        written = sitk.GetImageFromArray(np.where(labels > 0, labels % FEW + 1, 0).astype(np.uint8))
        written.CopyInformation(geometry)
        sitk.WriteImage(written, str(united / "labelsTr" / file.name), useCompression=True)
    content = json.loads((merged / "dataset.json").read_text(encoding="utf-8"))
    del content[ENTRY]
    shutil.copy(merged / "splits_final.json", united)
    names = {"background": 0, **{f"class {number}": number for number in range(1, FEW + 1)}}
    (united / "dataset.json").write_text(json.dumps({**content, "labels": names}), encoding="utf-8")


def _cycle(root: Path, dataset: int, epochs: int, steps: int) -> dict[str, Any]:
    """Plan, preprocess and train, unless it has been done; return seconds and peaks."""
    kept = root / f"{dataset}-{epochs}-{steps}.json"
    if not kept.exists():
        prepared = prepare(root, dataset, PATCH)
        jobs: dict[str, Job] = {**prepared, "train and validate": train(root, dataset, "0", epochs, steps)}
        peaks = {name: {"seconds": round(job.seconds), "MiB": mebibytes(job.peak)} for name, job in jobs.items()}
        kept.write_text(json.dumps(peaks))
    return json.loads(kept.read_text())


def main() -> int:
    options = parse(__doc__, "merged_brains")
    root = options.root / ("quick" if options.quick else "whole")
    epochs, steps = (1, 2) if options.quick else (3, 100)
    write_datasets(root, DATA, options.quick)
    content = json.loads((root / "raw" / f"Dataset{MERGED}_Brains" / "dataset.json").read_text(encoding="utf-8"))
    merged = Merged.of(content)
    assert merged is not None
    classes, rows, found = len(merged.names), [], {}
    for dataset, number in ((UNITED, FEW + 1), (MERGED, classes)):
        found[dataset] = _cycle(root, dataset, epochs, steps)
        rows += [{"classes": number, "what": what, **figures} for what, figures in found[dataset].items()]
    folder = root / "preprocessed" / f"Dataset{MERGED}_Brains"
    largest = max(
        np.prod(shape) for shape in json.loads((folder / "dataset_fingerprint.json").read_text())["shapes_after_crop"]
    )
    volume = {"train and validate": BATCH * int(np.prod(PATCH)), "preprocess": int(largest)}
    bars = []
    for what, voxels in volume.items():
        more = found[MERGED][what]["MiB"] - found[UNITED][what]["MiB"]
        share = more / mebibytes(4 * classes * voxels)
        bars.append(Bar(f"memory that more classes cost, of a class-sized volume: {what}", share, 0.25))
    summary = json.loads((model_folder(root, MERGED) / "fold_0" / "validation" / "summary.json").read_text())
    print(f"{classes} classes; mean Dice of the validation {summary['foreground_mean']['Dice']:.3f}")
    rows[-1] |= {"mean Dice": round(summary["foreground_mean"]["Dice"], 3)}
    return report(options, "merged_brains", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
