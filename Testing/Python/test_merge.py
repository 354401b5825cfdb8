"""The command merge on raw datasets: files, links, resuming, refusals, and what nnU-Net makes of the result."""

from __future__ import annotations

import argparse
import json
import pickle
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from classscale_training.data.merge import case_files, writing
from classscale_training.data.merge.command import MergeOptions, add_arguments, merge, run
from classscale_training.data.merged_labels import Merged
from ClassScaleSegLib.errors import (
    Busy,
    ClassScaleError,
    ImageError,
    LabelTableError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
)
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.locking import locked

sitk = pytest.importorskip("SimpleITK")
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


def test_two_datasets_become_one(raw, capsys):
    before = content(raw)
    assert main("-d", 1, 2, "--into", 900, "--name", "Both", "--taxonomy", raw.parent / "kidneys.csv") == 0
    folder = raw / "Dataset900_Both"
    assert capsys.readouterr().out == (
        f"{folder}: 2 datasets, 9 cases, 3 classes (2 of them in several datasets), 1 label for a set of classes; "
        "9 images linked.\n"
    )
    dataset = json.loads((folder / "dataset.json").read_text())
    merged = Merged.of(dataset)
    assert merged.labels() == {"background": 0, "left kidney": 1, "right kidney": 2, "Liver": 3, "Kidney": 4}
    assert [dict(source.labels) for source in merged.datasets] == [
        {0: (0, 3), 1: (1,), 2: (2,)},
        {0: (0,), 3: (3,), 4: (1, 2)},
    ]
    assert [source.share for source in merged.datasets] == [1.732, 2.449]
    assert (dataset["channel_names"], dataset["numTraining"], dataset["file_ending"]) == ({"0": "MR"}, 9, ".nii.gz")
    cases = [f"d001_c{n}" for n in range(3)] + [f"d002_c{n}" for n in range(6)]
    assert [file.name for file in sorted((folder / "imagesTr").iterdir())] == [f"{case}_0000.nii.gz" for case in cases]
    assert [file.name for file in sorted((folder / "labelsTr").iterdir())] == [f"{case}.nii.gz" for case in cases]
    assert [merged.dataset_of(case) for case in cases] == [0] * 3 + [1] * 6
    assert np.array_equal(read(folder / "labelsTr" / "d001_c1.nii.gz"), labels(3))
    assert np.array_equal(read(folder / "labelsTr" / "d002_c5.nii.gz"), np.array([0, 3, 4])[labels(3)])
    image = folder / "imagesTr" / "d002_c5_0000.nii.gz"
    assert image.samefile(raw / B / "imagesTr" / "c5_0000.nii.gz") and not image.is_symlink()
    assert LabelTable.from_csv(folder / "labels.csv").names == dict(enumerate(merged.names))
    assert {name: file for name, file in content(raw).items() if not name.startswith("Dataset900")} == before
    pytest.importorskip("nnunetv2")
    from classscale_training.nnunet.dataset_check import check_dataset

    check_dataset(folder)
    assert main("-d", 1, 2, "--into", 901, "--taxonomy", folder / "taxonomy.csv") == 0  # what it means, said whole
    assert json.loads((raw / "Dataset901_Merged" / "dataset.json").read_text()) == dataset


def test_check_says_what_would_become_of_the_labels_and_writes_nothing(raw, capsys):
    before = content(raw)
    assert main("-d", 1, 2, "--into", 900, "--taxonomy", raw.parent / "kidneys.csv", "--check") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Dataset001_A (MR): 3 cases, share 1.732, 2 labels",
        "  1 left kidney -> 1 left kidney",
        "  2 right kidney -> 2 right kidney",
        "  0 background -> 0 background, and perhaps Liver",
        "Dataset002_B (MR): 6 cases, share 2.449, 2 labels",
        "  1 Liver -> 3 Liver",
        "  2 Kidney -> 4 Kidney, which stands for left kidney, right kidney",
        "  0 background -> 0 background",
        "2 datasets, 9 cases, 3 classes (2 of them in several datasets), 1 label for a set of classes. "
        "Nothing was written.",
    ]
    assert content(raw) == before


def test_a_finished_merge_is_left_alone_and_another_needs_overwrite(raw):
    folder, _, _ = merge(NUMBERS, 900, options(raw))
    before = content(folder)
    assert merge(NUMBERS, 900, options(raw))[2].finished and content(folder) == before
    with pytest.raises(OutputExistsError, match=r"with other channels or shares\. Allow overwriting"):
        merge(NUMBERS, 900, options(raw, shares={1: 1, 2: 1}))
    save(labels(3)[::-1], raw / B / "labelsTr" / "c0.nii.gz")
    with pytest.raises(OutputExistsError, match="its cases have changed since .1 files, among them labelsTr/d002_c0"):
        merge(NUMBERS, 900, options(raw))
    assert content(folder) == before
    (folder / "mine.txt").write_text("of the user")
    assert not merge(NUMBERS, 900, options(raw, overwrite=True))[2].finished
    assert np.array_equal(read(folder / "labelsTr" / "d002_c0.nii.gz"), np.array([0, 3, 4])[labels(3)[::-1]])
    assert (folder / "mine.txt").exists()
    merge((2, 1), 900, options(raw, overwrite=True))  # the order of the classes follows
    assert list(json.loads((folder / "dataset.json").read_text())["labels"])[1] == "Liver"


def test_what_merge_did_not_make_is_not_touched(raw):
    other = write_raw(raw, 7, ("x",), 1).rename(raw / "Dataset900_Merged")
    before = content(other)
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="was not made by merging datasets"):
            merge(NUMBERS, 900, options(raw, overwrite=overwrite))
        with pytest.raises(OutputExistsError, match="already has a dataset 900"):
            merge(NUMBERS, 900, options(raw, overwrite=overwrite, name="Other"))
    assert content(other) == before


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


def test_two_merges_at_a_time_are_refused(raw):
    with locked(raw / "Dataset900_Merged" / ".merge.lock", "It"), pytest.raises(Busy, match="_Merged is being merged"):
        merge(NUMBERS, 900, options(raw))


@pytest.mark.parametrize("links", ["symlink", ""])
def test_images_are_linked_by_name_or_copied_where_there_are_no_links(raw, monkeypatch, links):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    for name in {"link", "symlink"} - {links}:
        monkeypatch.setattr(case_files.os, name, refuse)
    folder, _, written = merge(NUMBERS, 900, options(raw))
    image = folder / "imagesTr" / "d001_c0_0000.nii.gz"
    assert image.is_symlink() == bool(links) and written.images == {"linked" if links else "copied": 9}
    assert image.read_bytes() == (raw / A / "imagesTr" / "c0_0000.nii.gz").read_bytes()
    (folder / "dataset.json").unlink()
    assert merge(NUMBERS, 900, options(raw))[2].images == written.images


def test_the_ending_stays_if_all_have_it_and_else_is_nifti(raw):
    write_raw(raw, 3, ("x",), 2, ".nrrd", overwrite_image_reader_writer="SimpleITKIO")
    write_raw(raw, 4, ("y",), 2, ".nrrd", overwrite_image_reader_writer="SimpleITKIO")
    folder, _, written = merge((3, 4), 900)
    dataset = json.loads((folder / "dataset.json").read_text())
    assert (dataset["file_ending"], dataset["overwrite_image_reader_writer"]) == (".nrrd", "SimpleITKIO")
    assert np.array_equal(read(folder / "labelsTr" / "d004_c0.nrrd"), 2 * labels(2)) and written.images == {"linked": 4}
    folder, _, written = merge((1, 3), 901)
    assert written.images == {"linked": 3, "converted": 2}
    assert np.array_equal(read(folder / "imagesTr" / "d003_c1_0000.nii.gz"), np.full(SHAPE, 31, np.float32))
    assert np.array_equal(read(folder / "labelsTr" / "d003_c1.nii.gz"), 3 * labels(2))
    assert "overwrite_image_reader_writer" not in json.loads((folder / "dataset.json").read_text())
    write_raw(raw, 5, ("z",), 1, ".mhd")
    assert merge((4, 5), 902)[2].images == {"converted": 3}


def test_cases_that_dataset_json_lists_ignored_voxels_and_16_bits(raw, tmp_path):
    folder = write_raw(raw, 3, tuple(f"s{n}" for n in range(299)), 2)
    elsewhere = tmp_path / "elsewhere"
    save(labels(3), elsewhere / "image.nii.gz")
    save(labels(3, np.float64) + 298, elsewhere / "labels.nii.gz")
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["labels"]["ignore"] = 300
    one = {"images": ["../../elsewhere/image.nii.gz"], "label": str(elsewhere / "labels.nii.gz")}
    (folder / "dataset.json").write_text(json.dumps({**dataset, "numTraining": 1, "dataset": {"one": one}}))
    merged, plan, _ = merge((1, 3), 900)
    assert plan.merged.ignore == 302 and json.loads((merged / "dataset.json").read_text())["labels"]["ignore"] == 302
    written = read(merged / "labelsTr" / "d003_one.nii.gz")
    assert written.dtype == np.uint16 and np.array_equal(written, labels(3) + 300.0)
    image = merged / "imagesTr" / "d003_one_0000.nii.gz"
    assert image.samefile(elsewhere / "image.nii.gz")


def test_codes_come_from_a_colour_table_in_the_folder_and_go_to_one(raw):
    text = LabelTable.from_names({1: "kidney_left"}).to_csv().replace('"kidney_left"', '"Niere links"')
    (write_raw(raw, 3, ("Niere links", "Milz"), 1) / "labels.csv").write_text(text, encoding="utf-8")
    folder, plan, _ = merge((1, 3), 900)
    assert plan.merged.names == ("background", "left kidney", "right kidney", "Milz")
    assert LabelTable.from_csv(folder / "labels.csv")[1].type_modifier.meaning == "Left"


def splits(folder: Path) -> list[dict]:
    return json.loads((folder / "splits_final.json").read_text())


def test_folds_are_those_that_nnunet_makes_of_each_dataset(raw):
    pytest.importorskip("nnunetv2")
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    folds = splits(merge(NUMBERS, 900, options(raw))[0])
    for fold, own in zip(folds, generate_crossval_split([f"c{n}" for n in range(6)]), strict=True):
        for part in ("train", "val"):
            assert sorted(own[part]) == [name.removeprefix("d002_") for name in fold[part] if name.startswith("d002")]
    assert all(sum(name.startswith("d001") for name in fold["val"]) == 1 for fold in folds)


def test_folds_that_a_dataset_has_are_kept_and_a_single_case_is_for_training(raw):
    write_raw(raw, 3, ("x",), 1)
    own = [{"train": ["c0", "c1", "gone"], "val": ["c2"]}]
    (raw / A / "splits_final.json").write_text(json.dumps(own))
    folds = splits(merge((1, 2, 3), 900, options(raw))[0])
    assert len(folds) == 5
    for fold in folds:
        assert [name for name in fold["train"] if "d002" not in name] == ["d001_c0", "d001_c1", "d003_c0"]
        assert [name for name in fold["val"] if "d002" not in name] == ["d001_c2"]
    first = raw.parent / "preprocessed" / A / "splits_final.json"  # this one comes first
    first.parent.mkdir()
    first.write_text(json.dumps([{"train": ["c2"], "val": ["c0"]}] * 7))
    folds = splits(merge((1, 3), 901)[0])
    assert folds == [{"train": ["d001_c2", "d003_c0"], "val": ["d001_c0"]}] * 7
    for wrong, sentence in (
        ("[]", "has no folds"),
        ("[{}]", "cannot be read as nnU-Net's splits"),
        ('[{"train": ["c1"], "val": ["c1"]}]', "fold 0 trains on validation cases"),
        ('[{"train": ["x"], "val": ["c1"]}]', "fold 0 has no case of the dataset for training"),
    ):
        first.write_text(wrong)
        with pytest.raises(LabelTableError, match=sentence):
            merge((1, 3), 902)
    assert not (raw / "Dataset902_Merged").exists()


def test_single_cases_alone_have_no_folds(raw, capsys):
    write_raw(raw, 3, ("x",), 1)
    write_raw(raw, 4, ("y",), 1)
    assert main("-d", 3, 4, "--into", 900, "--shares", "3=1", "4=2") == 0
    assert "there is none to validate with: train the fold all" in capsys.readouterr().out
    assert not (raw / "Dataset900_Merged" / "splits_final.json").exists()


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
        raise BrokenProcessPool

    monkeypatch.setattr(writing, "map_cases", broken)
    with pytest.raises(OutOfMemoryError, match=r"wrote d001_c1\.nii\.gz or a case near it .* fewer processes"):
        merge(NUMBERS, 900, options(raw, workers=2))
