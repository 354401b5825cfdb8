"""Merging that is interrupted, runs out of space or memory, or gets what cannot be merged."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from classscale_training.data.merge import writing
from classscale_training.data.merge.command import merge
from classscale_training.data.parallel import ProcessKilledError, map_cases
from ClassScaleSegLib.errors import (
    Busy,
    ClassScaleError,
    ImageError,
    LabelTableError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
)
from ClassScaleSegLib.locking import locked
from merge_datasets import NUMBERS, A, B, content, labels, main, options, raw, read, save, write_raw  # noqa: F401

MOMENTS = ("write_label", "place_image", "merged_splits", "write_taxonomy", "class_table", "write_json")


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["kill", "full"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_merge_leaves_nothing_partial_and_goes_on(raw, monkeypatch, moment, fault):
    merge(NUMBERS, 901, options(raw))
    expected = content(raw / "Dataset901_Merged")
    folder, count = raw / "Dataset900_Merged", 0
    before = content(raw)

    def failing(*arguments):
        nonlocal count
        count += 1
        if count == 5 or moment not in ("write_label", "place_image"):
            raise fault
        return real(*arguments)

    real = getattr(writing, moment)
    monkeypatch.setattr(writing, moment, failing)
    with pytest.raises(type(fault)):
        merge(NUMBERS, 900, options(raw))
    monkeypatch.setattr(writing, moment, real)
    assert not (folder / "dataset.json").exists()
    kept = content(folder) if folder.exists() else {}
    assert {name: file for name, file in content(raw).items() if not name.startswith("Dataset900")} == before
    _, _, written = merge(NUMBERS, 900, options(raw))
    assert written.kept == {"write_label": 4, "place_image": 4, "merged_splits": 0, "write_json": 0}.get(moment, 9)
    found = content(folder)
    assert all(found[name] == kept[name] for name in kept if "Tr/" in name)  # the same files, not new ones
    for each in (found, expected):
        del each[".merge.json"]
    assert {name: file[1] for name, file in found.items()} == {name: file[1] for name, file in expected.items()}


def test_making_it_anew_can_be_interrupted_too(raw, monkeypatch):
    folder, _, _ = merge(NUMBERS, 900, options(raw))
    (raw.parent / "kidneys.csv").write_text("dataset,label,class\n2,Kidney,Kidney\n")

    def interrupted(*_):
        raise KeyboardInterrupt

    real = writing.write_json
    monkeypatch.setattr(writing, "write_json", interrupted)  # after the old files are gone
    with pytest.raises(KeyboardInterrupt):
        merge(NUMBERS, 900, options(raw, overwrite=True))
    monkeypatch.setattr(writing, "write_json", real)
    assert not (folder / "dataset.json").exists() and not list((folder / "labelsTr").iterdir())
    with pytest.raises(OutputExistsError, match="with other labels"):
        merge(NUMBERS, 900, options(raw))
    merge(NUMBERS, 900, options(raw, overwrite=True))
    assert np.array_equal(read(folder / "labelsTr" / "d002_c0.nii.gz"), np.array([0, 3, 4])[labels(3)])
    assert json.loads((folder / "dataset.json").read_text())["labels"]["Kidney"] == 4


@pytest.mark.parametrize("nifti", [True, False])
def test_a_full_disk_is_a_sentence_and_no_temporary_file_stays(raw, monkeypatch, nifti):
    def full(image, file, *_, **__):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device") if nifti else RuntimeError("Write: No space left on device")

    if nifti:
        monkeypatch.setattr("nibabel.save", full)
    else:
        for number in NUMBERS:
            write_raw(raw, number, ("left kidney", "right kidney") if number == 1 else ("Liver", "Kidney"), 6, ".nrrd")
        monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(OutputError, match=r"labelsTr/d001_c0.* cannot be written .*No space left on device"):
        merge(NUMBERS, 900, options(raw))
    folder = raw / "Dataset900_Merged"
    assert [file.name for file in (folder / "labelsTr").iterdir()] == [] and not (folder / "dataset.json").exists()


def test_what_a_killed_process_left_is_removed(raw):
    folder = raw / "Dataset900_Merged"
    folder.mkdir()
    (folder / ".0123456789ab.json").write_text("half")
    merge(NUMBERS, 900, options(raw))
    (folder / "dataset.json").unlink()
    (folder / "labelsTr" / ".0123456789ab.nii.gz").write_text("half")
    merge(NUMBERS, 900, options(raw))
    assert not [name for name in content(folder) if "0123456789ab" in name]


def test_files_that_somebody_deleted_are_made_again(raw):
    folder, _, _ = merge(NUMBERS, 900, options(raw))
    before = content(folder)
    (folder / "labelsTr" / "d001_c0.nii.gz").unlink()
    assert merge(NUMBERS, 900, options(raw))[2].kept == 8
    assert {name: file[1] for name, file in content(folder).items()} == {n: file[1] for n, file in before.items()}


def test_two_merges_at_a_time_are_refused(raw):
    with locked(raw / "Dataset900_Merged" / ".merge.lock", "It"), pytest.raises(Busy, match="_Merged is being merged"):
        merge(NUMBERS, 900, options(raw))


def change(folder: Path, **more) -> None:
    dataset = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**dataset, **more}))


def label(raw: Path) -> Path:
    return raw / B / "labelsTr" / "c0.nii.gz"


FAULTS = [
    (lambda r: None, (1,), ClassScaleError, "Name at least two datasets, and each of them once"),
    (lambda r: None, (1, 2, 1), ClassScaleError, "each of them once"),
    (lambda r: None, (1, 900), ClassScaleError, "The dataset 900 is to be merged; give --into another number"),
    (lambda r: None, (1, 5), ClassScaleError, "Expected one dataset 5 in .* found none"),
    (lambda r: change(r / A, labels={"background": 0, "k": [1, 2]}), (1, 2), LabelTableError, "k is a list of labels"),
    (lambda r: change(r / A, labels={"background": 0, "k": 2}), (1, 2), LabelTableError, "without a gap"),
    (lambda r: change(r / A, labels={"background": 0, "k": 1, "l": 1}), (1, 2), LabelTableError, "the same value"),
    (lambda r: change(r / A, labels={"background": 0, "a b": 1, "a  b": 2}), (1, 2), LabelTableError, "called a b"),
    (lambda r: change(r / A, classscale_merged={}), (1, 2), LabelTableError, "is a merged dataset itself"),
    (
        lambda r: change(r / A, channel_names={"0": "CT"}),
        (1, 2),
        LabelTableError,
        "channels differ: CT in Dataset001_A",
    ),
    (lambda r: label(r).unlink(), (1, 2), LabelTableError, "The case c0 has no label map"),
    (
        lambda r: (r / B / "labels.csv").write_text("x"),
        (1, 2),
        LabelTableError,
        "labels.csv: the first line has no col",
    ),
    (
        lambda r: save(labels(4), label(r)),
        (1, 2),
        LabelTableError,
        "whole numbers from 0 to 2 were expected, but it has",
    ),
    (lambda r: save(labels(2) + 0.5, label(r)), (1, 2), LabelTableError, "it has 0.5 to 1.5"),
    (lambda r: label(r).write_bytes(b"x" * 500), (1, 2), ImageError, "c0.nii.gz"),
]


@pytest.mark.parametrize(("spoil", "numbers", "kind", "sentence"), FAULTS)
def test_what_cannot_be_merged_is_a_sentence(raw, spoil, numbers, kind, sentence):
    spoil(raw)
    with pytest.raises(kind, match=sentence):
        merge(numbers, 900, options(raw))
    assert not (raw / "Dataset900_Merged" / "dataset.json").exists()


def test_label_maps_are_corrected_and_the_command_goes_on(raw):
    file = raw / B / "labelsTr" / "c3.nii.gz"
    save(labels(9), file)
    with pytest.raises(LabelTableError, match=r"c3\.nii\.gz does not hold the labels of Dataset002_B"):
        merge(NUMBERS, 900, options(raw))
    save(labels(3), file)
    assert merge(NUMBERS, 900, options(raw))[2].kept == 6


@pytest.mark.parametrize("words", [["--shares", "1=x"], ["--shares", "x"], ["--name", "a/b"]])
def test_options_that_are_wrong(raw, words):
    with pytest.raises((SystemExit, ClassScaleError)):
        main("-d", 1, 2, "--into", 900, *words)


def test_processes_get_all_that_they_need(raw, monkeypatch):
    merge(NUMBERS, 900, options(raw))

    def in_others(function, items, workers):
        assert workers == 2
        return map(pickle.loads(pickle.dumps(function)), pickle.loads(pickle.dumps(list(items))))

    monkeypatch.setattr(writing, "map_cases", in_others)
    merge(NUMBERS, 901, options(raw, workers=2))
    one, two = (content(raw / f"Dataset{number}_Merged") for number in (900, 901))
    del one[".merge.json"], two[".merge.json"]
    assert {name: file[1] for name, file in one.items()} == {name: file[1] for name, file in two.items()}


def test_a_process_that_is_killed_is_a_sentence(raw, monkeypatch):
    def broken(*_):
        yield ["linked"]
        raise ProcessKilledError

    monkeypatch.setattr(writing, "map_cases", broken)
    with pytest.raises(OutOfMemoryError, match=r"wrote d001_c1\.nii\.gz or a case near it .* fewer processes"):
        merge(NUMBERS, 900, options(raw, workers=2))


def test_a_process_that_is_killed_is_a_sentence_of_every_command_that_starts_some():
    with pytest.raises(OutOfMemoryError, match="A process that worked on a case was killed.*with fewer processes"):
        list(map_cases(os._exit, [9, 9], 2))


def test_processes_end_with_a_parent_that_is_killed():
    code = (
        "import time; from classscale_training.data.parallel import map_cases; list(map_cases(time.sleep, [60, 60], 2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    found: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 60
        while sum("spawn_main" in " ".join(child.cmdline()) for child in found) < 2:
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
            found = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(2)  # until the processes have begun to work
        parent.kill()
        parent.wait()
        left = psutil.wait_procs(found, timeout=20)[1]
        assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]  # init has not reaped it
    finally:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
