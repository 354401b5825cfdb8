"""``classscaleseg-train`` from the outside: what nnU-Net finds through it, and sentences for what cannot work."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("nnunetv2")
from classscale_training.commands import main
from classscale_training.nnunet.environment import register_trainers, trainer_folder
from ClassScaleSegLib.process.exit_codes import ExitCode

LOOKUP = """
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
from classscale_training.nnunet.environment import make_torchvision_importable
import pickle
make_torchvision_importable()
for ending in ("", "_NoMirroring", "_250epochs", "_PrimusV2S"):
    name = f"ClassScaleTrainer{ending}"
    found = find(name)
    assert found.__name__ == name and pickle.loads(pickle.dumps(found)) is found, name
print("found all")
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


def planned(folders, classes=3):
    folder = folders / "preprocessed" / "Dataset009_Nine"
    folder.mkdir()
    labels = {"background": 0, **{f"c{value}": value for value in range(1, classes)}}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    (folder / "ClassScalePlans.json").write_text(json.dumps({"configurations": {"3d_fullres": {}}}))


def test_nnunets_own_lookup_finds_picklable_trainers_in_the_folder_that_the_command_prints(capsys, monkeypatch):
    assert main(["trainers"]) == 0
    folder = capsys.readouterr().out.strip()
    assert os.path.isabs(folder) and folder == str(trainer_folder())
    environment = {**os.environ, "nnUNet_extTrainer": folder}
    done = subprocess.run([sys.executable, "-c", LOOKUP], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["found all"], done.stderr


def test_trainers_of_the_user_stay_registered(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    register_trainers()
    register_trainers()
    assert os.environ["nnUNet_extTrainer"].split(os.pathsep) == [str(tmp_path), str(trainer_folder())]


def test_our_trainers_are_found_without_a_search_unless_the_user_has_folders_of_trainers(tmp_path):
    code = """
import sys
from classscale_training.nnunet.trainers import find_trainer
print("found", find_trainer(sys.argv[1]).__module__, "timm" in sys.modules)
"""
    (tmp_path / "mine.py").write_text(
        "from classscale_training.nnunet.trainer import ClassScaleTrainer\n"
        "class ClassScaleTrainer_5epochs(ClassScaleTrainer): pass\n"
    )
    ours = "classscale_training.nnunet"
    for folders, name, said in (
        ("", "ClassScaleTrainer_5epochs", f"{ours}.trainer_variants False"),
        ("", "ClassScaleTrainer_Primus_M_NoMirroring", f"{ours}.primus_trainers True"),
        (str(tmp_path), "ClassScaleTrainer_5epochs", "mine True"),
        (str(tmp_path), "ClassScaleTrainer_NoMirroring", f"{ours}.trainer_variants True"),
    ):
        environment = {**os.environ, "nnUNet_extTrainer": folders}
        done = subprocess.run([sys.executable, "-c", code, name], env=environment, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1:] == [f"found {said}"], (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["plan", "-d", "9"], ExitCode.FAULT, "Expected one dataset 9 in"),
        (["plan", "-d", "9", "-overwrite_plans_name", "a/b"], ExitCode.FAULT, "'a/b' cannot be the name of plans"),
        (["plan", "-d", "9", "-fpe", "X"], ExitCode.MODEL, "no class X in nnunetv2.experiment_planning: correct -fpe"),
        (["plan", "-d", "9", "-preprocessor_name", "X"], ExitCode.MODEL, "no class X in nnunetv2.preprocessing"),
        (["plan", "-d", "9", "-pl", "X"], ExitCode.MODEL, "There is no planner X"),
        (["preprocess", "-d", "9", "-plans_name", "Other"], ExitCode.MODEL, "Other.json does not exist: run"),
        (["train", "9", "2d", "0"], ExitCode.MODEL, "have no configuration 2d, only 3d_fullres"),
        (["train", "8", "2d", "0"], ExitCode.FAULT, "Expected one dataset 8 in"),
        (["train", "9", "3d_fullres", "0", "--npz"], ExitCode.FAULT, "--npz would store 101 volumes"),
        (["validate", "9", "3d_fullres", "0", "--npz"], ExitCode.FAULT, "--npz would store 101 volumes"),
        (["train", "9", "3d_fullres", "0", "--val", "--no-validation"], ExitCode.FAULT, "leave --no-validation out"),
        (["train", "9", "3d_fullres", "0", "-pretrained_weights", "no.pth"], ExitCode.MODEL, "no.pth does not exist"),
        (
            ["train", "9", "3d_fullres", "0", "-tr", "X", "-device", "cpu"],
            ExitCode.MODEL,
            "There is no trainer X",
        ),
        (["train", "8", "2d", "0"], ExitCode.FAULT, "found none of Dataset009_Nine. Check the name or ID"),
        (["train", "9", "3d_fullres", "O"], ExitCode.FAULT, "O is not a fold: give 0 to 4, or all"),
        (["train", "9", "3d_fullres", "0", "-num_gpus", "99"], ExitCode.FAULT, "PyTorch"),
        pytest.param(
            ["validate", "9", "3d_fullres", "0", "-device", "mps"],
            ExitCode.FAULT,
            "Use -device cpu, or",
            marks=pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have it"),
        ),
        (["train", "9", "3d_fullres", "0", "-num_gpus", "0"], ExitCode.FAULT, "start at least one"),
        (["export", "-o", "x.zip"], ExitCode.FAULT, "either by its dataset (-d"),
        (["export", "-m", "x", "-o", "y", "--stock", "--card", "z"], ExitCode.FAULT, "--card is for bundles"),
        (["evaluate", "x", "y", "-o", f"{__file__}/z"], ExitCode.OUTPUT, "cannot be written"),
        (["evaluate", "x", "y", "-o", "z"], ExitCode.IMAGE, "x is not a folder. Give a folder of label maps"),
        (["export", "-m", "nowhere", "-o", "x.zip"], ExitCode.MODEL, "plans.json cannot be read"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence_and_by_the_exit_code(folders, capsys, arguments, code, sentence):
    planned(folders, classes=101)
    assert main(arguments) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("ClassScalePlans.json", '{"configurations": {"3d_full', "ClassScalePlans.json cannot be read"),
        ("ClassScalePlans.json", "{}", "ClassScalePlans.json cannot be read (it has no entry 'configurations')"),
        ("ClassScalePlans.json", '{"configurations": []}', "is not what an earlier command wrote (configurations)"),
        ("dataset.json", '{"labels"', "dataset.json cannot be read"),
    ],
)
def test_damaged_files_of_an_earlier_command_are_named(folders, capsys, name, content, sentence):
    planned(folders)
    (folders / "preprocessed" / "Dataset009_Nine" / name).write_text(content)
    assert main(["train", "9", "3d_fullres", "0"]) == ExitCode.MODEL
    found = capsys.readouterr().err
    assert sentence in found and "Run `classscaleseg-train plan` again." in found


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "-d", "9", "-overwrite_target_spacing", "-1", "1", "1"],  # nnU-Net's planner would not come to an end
        ["plan", "-d", "9", "-overwrite_target_spacing", "1", "0", "1"],
        ["plan", "-d", "9", "-gpu_memory_target", "-3"],
        ["plan", "-d", "9", "-gpu_memory_target", "nan"],
        ["plan", "-d", "9", "-npfp", "0"],
        ["preprocess", "-d", "9", "-np", "0"],
    ],
)
def test_numbers_that_cannot_be_are_refused(folders, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == ExitCode.USAGE
    assert "is not a positive number" in (found := capsys.readouterr().err) or "give 1 or more" in found


def test_an_unset_variable_is_named(monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert main(["train", "9", "3d_fullres", "0"]) == ExitCode.FAULT
    assert "nnUNet_preprocessed is not set" in capsys.readouterr().err
    assert main(["plan", "-d", "9"]) == ExitCode.FAULT
    assert "nnUNet_raw is not set" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["raw", "preprocessed", "results"])
def test_a_folder_that_is_no_folder_is_said_before_anything_is_written(folders, monkeypatch, capsys, name):
    planned(folders)
    command = ["plan", "-d", "9"] if name == "raw" else ["train", "9", "3d_fullres", "0", "-device", "cpu"]
    monkeypatch.setenv(f"nnUNet_{name}", f"~/{name}")  # in quotes, a shell keeps the ~
    assert main(command) == ExitCode.FAULT
    found = capsys.readouterr().err
    assert f"nnUNet_{name} is ~/{name}, and nnU-Net does not replace the ~. Set it to /" in found
    (folders / "file").write_text("")
    monkeypatch.setenv(f"nnUNet_{name}", str(folders / "file" / "x"))
    assert main(command) == (ExitCode.OUTPUT if name == "results" else ExitCode.FAULT)
    found = capsys.readouterr().err
    assert str(folders / "file" / "x") in found and f"nnUNet_{name} names" in found
    assert not (folders / "~").exists()


def test_toy_evaluate_and_convert_are_there_with_their_own_options(folders, capsys):
    assert main(["toy", "--classes", "5", "--dataset-id", "7", "--size", "16", "--cases", "1"]) == 0
    labels = folders / "raw" / "Dataset007_ToyAtlas5" / "labelsTr"
    assert main(["evaluate", str(labels), str(labels), "-o", str(folders / "tables"), "--no-surface"]) == 0
    assert any((folders / "tables").iterdir())
    assert main(["convert", str(folders), "--dataset-id", "8"]) != 0
    assert str(folders) in capsys.readouterr().err
