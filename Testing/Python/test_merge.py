"""The command merge on raw datasets: files, links, resuming, refusals, and what nnU-Net makes of the result."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from classscale_training.data.merge import case_files
from classscale_training.data.merge.command import merge
from classscale_training.data.merged_labels import Merged
from ClassScaleSegLib.errors import (
    LabelTableError,
    OutputExistsError,
)
from ClassScaleSegLib.labels.table import LabelTable
from merge_datasets import NUMBERS, SHAPE, A, B, content, labels, main, options, raw, read, save, write_raw  # noqa: F401


def test_two_datasets_become_one(raw, capsys):
    before = content(raw)
    assert main("-d", 1, 2, "--into", 900, "--name", "Both", "--taxonomy", raw.parent / "kidneys.csv") == 0
    folder = raw / "Dataset900_Both"
    assert capsys.readouterr().out == (
        f"{folder}: 2 datasets, 9 cases, 3 classes (2 of them in several datasets), 1 label for a set of classes; "
        "9 images linked.\nNext: classscaleseg-train plan -d 900\n"
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


def test_modalities_are_mixed_only_if_the_taxonomy_says_so(raw, capsys):
    write_raw(raw, 3, ("x",), 2, channel_names={"0": "CT"})
    (raw / "some.csv").write_text("dataset,label,class,modality\n1,,,MR\n3,,,CT\n")
    assert main("-d", 1, 3, "--into", 900, "--taxonomy", raw / "some.csv") == 0
    assert "; the images are MR or CT, so nnU-Net will normalise each by itself; 5 images" in capsys.readouterr().out
    dataset = json.loads((raw / "Dataset900_Merged" / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "MR or CT"}


def test_similar_names_of_different_classes_are_said(raw, capsys):
    write_raw(raw, 3, ("left caudate nucleus", "spleen"), 1)
    write_raw(raw, 4, ("Left Caudate", "caudate nucleus right", "spleen part"), 2)
    assert main("-d", 3, 4, "--into", 900, "--check") == 0
    lines = "add its line:\n    4,Left Caudate,left caudate nucleus\n    4,spleen part,spleen\n2 datasets"
    assert f"Some labels have similar names, but are different classes. To make one of two, {lines}" in (
        capsys.readouterr().out
    )
    (raw / "some.csv").write_text("dataset,label,class\n4,Left Caudate,left caudate nucleus\n")
    assert main("-d", 3, 4, "--into", 900, "--taxonomy", raw / "some.csv") == 0
    warning = (
        "Warning: the datasets have 1 pair of labels with similar names, but as different classes; --check lists them."
    )
    assert capsys.readouterr().err == f"{warning}\n"


def test_a_finished_merge_is_left_alone_and_another_needs_overwrite(raw):
    folder, _, _ = merge(NUMBERS, 900, options(raw))
    before = content(folder)
    assert merge(NUMBERS, 900, options(raw))[2].finished and content(folder) == before
    with pytest.raises(OutputExistsError, match=r"with other channels or shares\. Allow overwriting"):
        merge(NUMBERS, 900, options(raw, shares={1: 1, 2: 1}))
    save(labels(3)[::-1], raw / B / "labelsTr" / "c0.nii.gz")
    with pytest.raises(OutputExistsError, match="its cases have changed since .1 file, among them labelsTr/d002_c0"):
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


def test_an_image_whose_voxels_are_in_another_file_is_converted(raw, capsys):
    for folder in raw.iterdir():
        for file in [*folder.glob("*Tr/*.nii.gz")]:
            image = sitk.ReadImage(str(file))
            file.unlink()
            sitk.WriteImage(image, str(file).replace(".nii.gz", ".nrrd"))
        content = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nrrd"}))
    detached = raw / A / "imagesTr" / "c0_0000.nrrd"
    image = sitk.ReadImage(str(detached))
    sitk.WriteImage(image, str(detached.with_suffix(".nhdr")))
    detached.with_suffix(".nhdr").rename(detached)
    folder, _, written = merge(NUMBERS, 9, options(raw))
    assert written.images == {"converted": 1, "linked": 8}
    found = sitk.ReadImage(str(folder / "imagesTr" / "d001_c0_0000.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(image))


def test_cases_that_no_fold_has_are_told(raw, capsys):
    (raw / B / "splits_final.json").write_text(json.dumps([{"train": ["c0"], "val": ["c1"]}]))
    merge(NUMBERS, 9, options(raw))
    assert "the case c2 and 3 more of Dataset002_B is in no fold of" in capsys.readouterr().err


def test_names_that_differ_in_spaces_are_one_class(raw, capsys):
    write_raw(raw, 3, ("Gallbladder", "Lobe 1 2", "lobe 3"), 1)
    write_raw(raw, 4, ("gall bladder", "lobe 12", "Lobe-3"), 1)
    plan = merge((3, 4), 900)[1]
    assert plan.merged.names == ("background", "Gallbladder", "Lobe 1 2", "lobe 3", "lobe 12")
    assert capsys.readouterr().err == ""


def test_codes_for_another_name_are_said_to_be_unused(raw, capsys):
    folder = write_raw(raw, 3, ("Galle", "lobe 3"), 1)
    table = LabelTable.from_names({1: "Gallbladder", 2: "lobe 3", 7: "spleen"})
    assert table[1].category is not None
    table.to_csv(folder / "labels.csv")
    write_raw(raw, 4, ("liver",), 1)
    merge((3, 4), 900)
    found = capsys.readouterr().err
    assert f"the codes of Gallbladder (1) in {folder / 'labels.csv'} are not used, because dataset.json calls" in found
    assert "label Galle. Give it the same name." in found


def same_image(raw: Path, case: str, other: str, ending: str = ".nii.gz") -> None:
    """Let a case of the second dataset have the image of one of the first."""
    shutil.copy(raw / A / f"imagesTr/{case}_0000{ending}", raw / B / f"imagesTr/{other}_0000{ending}")


def merged_folds(raw: Path) -> list[dict]:
    return splits(merge(NUMBERS, 900, options(raw, overwrite=True))[0])


def separated(folds: list[dict], pairs: dict[str, str]) -> list[str]:
    return [one for fold in folds for one, two in pairs.items() if (one in fold["val"]) != (two in fold["val"])]


def test_cases_with_the_same_image_stay_in_the_same_part_of_each_fold(raw, capsys):
    pairs = {"d001_c0": "d002_c4", "d001_c1": "d002_c3", "d001_c2": "d002_c0"}
    before = merged_folds(raw)
    assert separated(before, pairs)  # so this can fail
    for one, two in pairs.items():
        same_image(raw, one[5:], two[5:])
    after = merged_folds(raw)
    assert not separated(after, pairs)
    assert [set(fold["train"]) | set(fold["val"]) for fold in after] == [
        set(fold["train"]) | set(fold["val"]) for fold in before
    ]
    assert "d002_c3 and 1 more have the same images as other cases, and are where those are" in capsys.readouterr().err
    # folds that are given stay, and the others follow them
    every = {f"c{number}" for number in range(6)}
    own = [{"train": sorted(every - set(val)), "val": val} for val in (["c5"], ["c0", "c4"])]
    (raw / B / "splits_final.json").write_text(json.dumps(own))
    after = merged_folds(raw)
    assert not separated(after, pairs)
    assert [[case for case in fold["val"] if "d002" in case] for fold in after[:2]] == [
        ["d002_c5"],
        ["d002_c0", "d002_c4"],
    ]
    assert "Warning" not in capsys.readouterr().err
    (raw / A / "splits_final.json").write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2"]}]))
    after = merged_folds(raw)
    assert separated(after, pairs)
    assert "Warning: d002_c4 has the same image as d001_c0 (and 1 more such case), but" in capsys.readouterr().err
