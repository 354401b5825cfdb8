"""Toy datasets on disk: nnU-Net's raw layout, checked by nnU-Net itself."""

import argparse
import json

import numpy as np
import pytest
from classscale_training.data.toy.cases import toy_case
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import add_arguments, run, write_toy_dataset
from ClassScaleSegLib.errors import Busy, ClassScaleError, OutputError, OutputExistsError
from ClassScaleSegLib.locking import locked

sitk = pytest.importorskip("SimpleITK")


def test_nnunet_finds_a_dataset_of_1000_classes_whole_and_consistent(tmp_path):
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    options = ToyOptions(1000, size=48)
    folder = write_toy_dataset(options, 7, 2, tmp_path)
    assert folder == tmp_path / "Dataset007_ToyAtlas1000"
    labels = sitk.ReadImage(str(folder / "labelsTr" / "Toy_0002.nii.gz"))
    image = sitk.ReadImage(str(folder / "imagesTr" / "Toy_0002_0000.nii.gz"))
    assert labels.GetPixelID() == sitk.sitkUInt16
    assert image.GetSpacing() == labels.GetSpacing() == pytest.approx((128 / 48,) * 3)
    grey, truth = toy_case(2, options)
    assert np.array_equal(sitk.GetArrayFromImage(labels), truth.numpy())
    assert np.abs(sitk.GetArrayFromImage(image) / 1000 - grey.numpy()).max() <= 0.0005 + 1e-6
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "toy"} and content["numTraining"] == 2
    assert content["labels"]["background"] == 0 and content["labels"]["cell 1000"] == 1000
    verify.verify_dataset_integrity(str(folder), num_processes=1)


def test_a_repeated_call_keeps_what_is_there_and_adds_what_is_not(tmp_path):
    options = ToyOptions(5, "objects", 16)
    folder = write_toy_dataset(options, 3, 2, tmp_path)
    first = folder / "imagesTr" / "Toy_0001_0000.nii.gz"
    before = first.stat().st_mtime_ns
    (folder / "labelsTr" / "Toy_0002.nii.gz").unlink()
    (folder / "labelsTr" / ".0123456789ab.nii.gz").write_bytes(b"left by a killed process")
    lines = []
    write_toy_dataset(options, 3, 3, tmp_path, report=lines.append)
    assert lines == ["Toy_0002.nii.gz (2 of 3)", "Toy_0003.nii.gz (3 of 3)"]
    assert first.stat().st_mtime_ns == before
    assert sorted(f.name for f in (folder / "labelsTr").iterdir()) == [f"Toy_000{i}.nii.gz" for i in (1, 2, 3)]
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 3


def test_a_dataset_that_was_made_in_another_way_stays_as_it_is(tmp_path):
    folder = tmp_path / "Dataset003_ToyAtlas5"
    folder.mkdir()
    (folder / "dataset.json").write_text("by hand")
    with pytest.raises(OutputExistsError, match="was not made by this command: it has no toy.json. Choose another"):
        write_toy_dataset(ToyOptions(5, size=16), 3, 1, tmp_path)
    assert [file.name for file in folder.iterdir()] == ["dataset.json"]
    assert (folder / "dataset.json").read_text() == "by hand"


def test_no_cases_and_no_device_are_said_before_a_folder_is_made(tmp_path):
    with pytest.raises(ClassScaleError, match="--cases 0 must be 1 or more"):
        write_toy_dataset(ToyOptions(5, size=16), 3, 0, tmp_path)
    with pytest.raises(ClassScaleError, match="The device nix cannot be used"):
        write_toy_dataset(ToyOptions(5, size=16), 3, 1, tmp_path, device="nix")
    assert list(tmp_path.iterdir()) == []


def test_the_device_can_be_chosen_for_the_user(tmp_path):
    folder = write_toy_dataset(ToyOptions(5, size=16), 3, 1, tmp_path, device="auto")
    assert (folder / "labelsTr" / "Toy_0001.nii.gz").is_file()


def test_other_options_or_a_taken_number_are_refused(tmp_path):
    write_toy_dataset(ToyOptions(5, size=16), 3, 1, tmp_path)
    with pytest.raises(OutputExistsError, match="made with seed 0, not 9"):
        write_toy_dataset(ToyOptions(5, size=16, seed=9), 3, 1, tmp_path)
    with pytest.raises(OutputExistsError, match="already has a dataset 3, Dataset003_ToyAtlas5"):
        write_toy_dataset(ToyOptions(6, size=16), 3, 1, tmp_path)
    (tmp_path / "Dataset003_ToyAtlas5" / "toy.json").write_text("{")
    with pytest.raises(OutputExistsError, match="toy.json cannot be read .* Delete"):
        write_toy_dataset(ToyOptions(5, size=16), 3, 1, tmp_path)


def test_one_process_at_a_time_writes_a_dataset(tmp_path):
    folder = write_toy_dataset(ToyOptions(5, size=16), 3, 1, tmp_path)
    of_the_other = folder / "imagesTr" / ".0123456789ab.nii.gz"
    of_the_other.write_bytes(b"being written")
    with locked(folder / ".lock", "x"), pytest.raises(Busy, match="Dataset003_ToyAtlas5 is being written by another"):
        write_toy_dataset(ToyOptions(5, size=16), 3, 2, tmp_path)
    assert of_the_other.exists()


def test_a_truncated_write_is_noticed_and_leaves_nothing(tmp_path, monkeypatch):
    options, write = ToyOptions(5, size=16), sitk.WriteImage

    def on_a_full_disk(image, file, **more):  # ITK's NIfTI writer says nothing of it
        write(image, file, **more)
        with open(file, "r+b") as stream:
            stream.truncate(600)

    monkeypatch.setattr(sitk, "WriteImage", on_a_full_disk)
    with pytest.raises(OutputError, match="Toy_0001_0000.nii.gz"):
        write_toy_dataset(options, 3, 1, tmp_path)
    left = [f.name for f in (tmp_path / "Dataset003_ToyAtlas5").rglob("*") if f.is_file()]
    assert sorted(left) == [".lock", "toy.json"]


def test_the_command_takes_the_raw_folder_from_nnunets_variable(tmp_path, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args("--classes 4 --dataset-id 12 --mode objects --size 16 --cases 1".split())
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(ClassScaleError, match="nnUNet_raw is not set"):
        run(arguments)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert run(arguments) == 0
    assert (tmp_path / "Dataset012_ToyObjects4" / "dataset.json").exists()
    assert "1 cases with 4 classes" in capsys.readouterr().out
