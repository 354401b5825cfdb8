"""Collecting again: more cases, changed ones, a call that was interrupted, datasets that collect did not make."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from classscale_training.data.collect import command, writing
from ClassScaleSegLib import LabelTable
from ClassScaleSegLib.errors import ImageError, LabelTableError, OutputError, OutputExistsError
from collect_cases import boxes, training  # noqa: F401


def test_one_more_case_does_not_renumber_the_labels(training, capsys):
    training.case("m", {1: "liver", 2: "spleen"})
    assert training.collect() == 0
    before = training.content()
    training.case("a", {1: "cyst", 2: "spleen", 3: "liver"})
    training.segmentation("m", LabelTable.from_names({1: "liver", 2: "spleen", 3: "cyst"}), [boxes(1, 2)])
    capsys.readouterr()
    assert training.collect() == 0
    assert training.json["labels"] == {"background": 0, "liver": 1, "spleen": 2, "cyst": 3}
    assert np.array_equal(training.label("a"), boxes(3, 2, 1)) and np.array_equal(training.label("m"), boxes(1, 2))
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{training.dataset}: 2 cases, 3 labels: 1 liver, 2 spleen, 3 cyst; 1 new, 1 changed, 2 images linked.",
        "New labels, behind those that the dataset has: 3 cyst.",
    ]
    assert training.content()["imagesTr/m_0000.nii.gz"] == before["imagesTr/m_0000.nii.gz"]


def test_a_structure_with_another_name_does_not_leave_a_label_that_nothing_teaches(training):
    for case in "ab":
        training.case(case, {1: "liver", 2: "tumor"})
    assert training.collect() == 0
    for case in "ab":
        training.case(case, {1: "liver", 2: "tumour"})
    for words in ([], ["--missing", "background"], ["--missing", "unlabelled"]):
        with pytest.raises(LabelTableError, match="No segmentation has tumor any more, of the labels that the dataset"):
            training.collect(*words)
    assert training.collect("--overwrite") == 0
    assert training.json["labels"] == {"background": 0, "liver": 1, "tumour": 2}


def test_renew_numbers_labels_anew_only_if_it_must(training, capsys):
    training.case("b", {1: "spleen", 2: "liver"})
    assert training.collect("--renew") == 0
    training.case("a", {1: "liver", 2: "spleen"})
    assert training.collect("--renew") == 0
    assert training.json["labels"] == {"background": 0, "spleen": 1, "liver": 2}
    before = training.content()
    assert training.collect("--renew") == 0 and training.content() == before
    for case in "ab":
        training.case(case, {1: "liver", 2: "Milz"})
    capsys.readouterr()
    assert training.collect("--renew") == 0
    assert training.json["labels"] == {"background": 0, "liver": 1, "Milz": 2}
    assert "The labels are numbered anew, without spleen." in capsys.readouterr().err
    (training.segmentations / "a.seg.nrrd").unlink()
    assert training.collect("--renew", channels="MR") == 0
    assert training.json["numTraining"] == 1 and training.json["channel_names"] == {"0": "MR"}
    assert not (training.dataset / "labelsTr" / "a.nii.gz").exists()


def test_a_segmentation_that_is_saved_meanwhile_is_read_again(training, monkeypatch):
    training.case("a", {1: "liver"})
    write = command.write_collected

    def save_first(*arguments):
        training.case("a", {1: "spleen", 2: "liver"})
        return write(*arguments)

    monkeypatch.setattr(command, "write_collected", save_first)
    with pytest.raises(ImageError, match="The files of the case a have changed meanwhile. Run the command again"):
        training.collect()
    monkeypatch.setattr(command, "write_collected", write)
    assert training.collect("--overwrite") == 0
    assert np.array_equal(training.label("a"), boxes(1, 2))


def test_what_is_finished_is_left_alone(training, capsys):
    for case in "ab":
        training.case(case, {1: "liver"})
    assert training.collect("--name", "Mine") == 0
    shutil.move(training.raw / "Dataset300_Mine", training.dataset)
    before = training.content()
    capsys.readouterr()
    assert training.collect(channels="") == 0  # name and channels are known
    assert capsys.readouterr().out.startswith(f"{training.dataset} is finished already: 2 cases, 1 label: 1 liver.")
    assert training.content() == before
    training.case("b", {1: "liver"}, boxes(0, 1))
    assert training.collect() == 0
    after = training.content()
    assert after["labelsTr/a.nii.gz"] == before["labelsTr/a.nii.gz"]
    assert np.array_equal(training.label("b"), boxes(0, 1))


def test_cases_that_are_gone_need_overwrite(training):
    training.case("a", {1: "spleen", 2: "liver"})
    training.case("b", {1: "liver"})
    assert training.collect("--missing", "background") == 0
    before = training.content()
    (training.segmentations / "a.seg.nrrd").unlink()
    with pytest.raises(OutputExistsError, match="has 1 case more than are collected now: a. Put it back, or allow"):
        training.collect("--missing", "background")
    assert training.content() == before
    (training.dataset / "mine.txt").write_text("of the user")
    assert training.collect("--overwrite", channels="MR") == 0
    assert training.json["labels"] == {"background": 0, "liver": 1} and training.json["channel_names"] == {"0": "MR"}
    assert sorted(training.content()) == [
        *("collected.json", "dataset.json", "imagesTr/b_0000.nii.gz", "labels.csv", "labelsTr/b.nii.gz", "mine.txt"),
    ]
    assert np.array_equal(training.label("b"), boxes(1))


def test_an_interrupted_call_goes_on(training, monkeypatch, capsys):
    for case in "abc":
        training.case(case, {1: "liver"})
    assert training.collect() == 0
    for case in "abc":
        training.case(case, {1: "liver"}, boxes(0, 1))
    write = writing.write_volume

    def fail(image, file):
        if file.name == "b.nii.gz":
            raise OutputError("The disk is full.")
        write(image, file)

    monkeypatch.setattr(writing, "write_volume", fail)
    with pytest.raises(OutputError, match="The disk is full"):
        training.collect()
    assert not (training.dataset / "dataset.json").exists()  # so nothing trains on the half of it
    (training.dataset / "labelsTr" / ".0123456789ab.nii.gz").write_bytes(b"of a killed process")
    first = training.content()["labelsTr/a.nii.gz"]
    monkeypatch.undo()
    monkeypatch.setenv("nnUNet_raw", str(training.raw))
    assert training.collect() == 0
    assert training.content()["labelsTr/a.nii.gz"] == first
    assert sorted(file.name for file in (training.dataset / "labelsTr").iterdir()) == [f"{c}.nii.gz" for c in "abc"]
    assert all(np.array_equal(training.label(case), boxes(0, 1)) for case in "abc")
    capsys.readouterr()
    assert training.collect() == 0 and "is finished already" in capsys.readouterr().out


def test_what_collect_did_not_make_is_not_touched(training):
    training.case("a", {1: "liver"})
    (training.dataset / "imagesTr").mkdir(parents=True)
    (training.dataset / "dataset.json").write_text("{}")
    before = training.content()
    for words in ([], ["--overwrite"]):
        with pytest.raises(OutputExistsError, match="was not made by this command: it has no collected.json"):
            training.collect(*words)
        with pytest.raises(OutputExistsError, match="already has a dataset 300"):
            training.collect(*words, "--name", "Other")
    assert training.content() == before


def test_a_file_of_the_user_in_the_dataset_is_not_taken_for_a_case(training):
    training.case("a", {1: "liver"})
    assert training.collect() == 0
    training.case("b", {1: "liver"})
    own = training.dataset / "labelsTr" / "b.nii.gz"
    own.write_bytes(b"of the user")
    with pytest.raises(OutputExistsError, match=r"labelsTr/b.nii.gz exists, and was not made by this command"):
        training.collect()
    assert own.read_bytes() == b"of the user"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record["cases"]["a"].update(target="../../../mine"),
        lambda record: record["cases"]["a"].update(images=7),
        lambda record: record.update(labels="no table"),
        lambda record: record.pop("groups"),
        lambda record: record.update(cases={"a": None}),
    ],
)
def test_a_damaged_record_is_refused_and_deletes_nothing(training, spoil):
    training.case("a", {1: "liver"})
    assert training.collect() == 0
    file = training.dataset / "collected.json"
    record = json.loads(file.read_text())
    spoil(record)
    file.write_text(json.dumps(record))
    before = training.content()
    for words in ([], ["--overwrite"]):
        with pytest.raises(OutputExistsError, match=r"collected.json .*Delete .*, or choose another number"):
            training.collect(*words)
    assert training.content() == before
