"""Small raw datasets to be merged."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from classscale_training.data.merge.command import MergeOptions, add_arguments, run

SHAPE, SPACING, ORIGIN = (4, 5, 6), (1.0, 2.0, 3.0), (-7.0, 8.0, 9.0)
KIDNEYS = "dataset,label,class\n2,Kidney,left kidney\n2,Kidney,right kidney\n"
NUMBERS, A, B = (1, 2), "Dataset001_A", "Dataset002_B"


def save(array: np.ndarray, file: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file))


def labels(count: int, kind: type = np.uint8) -> np.ndarray:
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % count).astype(kind)


def read(file: Path) -> np.ndarray:
    image = sitk.ReadImage(str(file))
    assert image.GetSpacing() == SPACING and image.GetOrigin() == ORIGIN
    return sitk.GetArrayFromImage(image)


def write_raw(root: Path, number: int, names: tuple[str, ...], cases: int, ending: str = ".nii.gz", **more) -> Path:
    folder = root / f"Dataset{number:03d}_{'ABCDEFG'[number - 1]}"
    table = {"background": 0, **{name: value for value, name in enumerate(names, 1)}}
    for case in range(cases):
        save(np.full(SHAPE, 10.0 * number + case, np.float32), folder / "imagesTr" / f"c{case}_0000{ending}")
        save(labels(len(table)), folder / "labelsTr" / f"c{case}{ending}")
    content = {"channel_names": {"0": "MR"}, "labels": table, "numTraining": cases, "file_ending": ending, **more}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """Two datasets: 1 with both kidneys in three cases, 2 with liver and kidneys in six."""
    for name in ("raw", "preprocessed"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    write_raw(tmp_path / "raw", 1, ("left kidney", "right kidney"), 3)
    write_raw(tmp_path / "raw", 2, ("Liver", "Kidney"), 6)
    (tmp_path / "kidneys.csv").write_text(KIDNEYS)
    return tmp_path / "raw"


def options(raw: Path, **more) -> MergeOptions:
    return MergeOptions(taxonomy=raw.parent / "kidneys.csv", **more)


def main(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([*map(str, words), "--no_pbar"]))


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and content of every file except that of the lock."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".merge.lock"]
    return {str(file.relative_to(folder)): (file.stat().st_ino, file.read_bytes()) for file in files}
