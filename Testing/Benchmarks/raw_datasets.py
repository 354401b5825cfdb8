"""Write raw datasets of nnU-Net from the label maps and images that benchmarks use."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

Case = tuple[np.ndarray, np.ndarray, sitk.Image]  # image, labels, and an image with their geometry
NOT_SCORED = (42, 43, 63, 64, 15, 65, 66, 74)  # of MICCAI 2012; see the README of the data


def people(folder: Path, count: int | None = None) -> tuple[dict[int, str], list[Case]]:
    """Return the names by label value and the cases of MICCAI 2012, ordered by subject.

    :param folder: with the files of the data set.
    :param count: number of cases; all of them if None.
    """
    files = sorted(folder.glob("*_t1.nii.gz"))[:count]
    with open(folder / "labels.csv", encoding="utf-8-sig") as stream:
        table = {int(row["Label Number"]): " ".join(row["Label Name"].split()) for row in csv.DictReader(stream)}
    cases = [read_case(folder, file.name, file.name.replace("_t1", "_labels")) for file in files]
    scored = sorted(set(np.unique(np.concatenate([np.unique(case[1]) for case in cases]))) - {0, *NOT_SCORED})
    return unique({int(value): table[int(value)] for value in scored}), cases


def labels_of(file: Path) -> tuple[np.ndarray, sitk.Image]:
    image = sitk.ReadImage(str(file))
    return np.rint(sitk.GetArrayFromImage(image)).astype(np.int64), image


def read_case(folder: Path, image: str, label: str, scale: float = 1) -> Case:
    labels, geometry = labels_of(folder / label)
    geometry.SetSpacing([scale * width for width in geometry.GetSpacing()])
    geometry.SetOrigin([scale * place for place in geometry.GetOrigin()])
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / image))), labels, geometry


def unique(names: dict[int, str]) -> dict[int, str]:
    """Number the names that occur twice in a table."""
    seen: dict[str, int] = {}
    for value, name in names.items():
        seen[name] = seen.get(name, 0) + 1
        names[value] = name if seen[name] == 1 else f"{name} {seen[name]}"
    return names


def write_dataset(
    root: Path,
    number: int,
    name: str,
    names: dict[int, str],
    cases: Sequence[Case],
) -> None:
    """Write a raw dataset; label values become 1, 2, 3 ... in the order of ``names``, and 0 where they have no name."""
    folder = root / "raw" / f"Dataset{number}_{name}"
    table = np.zeros(max(int(labels.max()) for _, labels, _ in cases) + 1, np.uint16)
    table[list(names)] = range(1, len(names) + 1)
    for index, (image, labels, geometry) in enumerate(cases, 1):
        for part, voxels, ending in (("imagesTr", image, "_0000"), ("labelsTr", table[labels], "")):
            file = folder / part / f"{name}_{index:02d}{ending}.nii.gz"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                written = sitk.GetImageFromArray(voxels)
                written.CopyInformation(geometry)
                sitk.WriteImage(written, str(file), useCompression=True)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, **{label: value for value, label in enumerate(names.values(), 1)}},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
