"""``classscaleseg-train finetune``: five commands as one, which goes on where it stopped and loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("nnunetv2")
import collect_cases  # noqa: E402
from classscale_training import commands  # noqa: E402
from classscale_training.files import read_json, write_json  # noqa: E402
from classscale_training.nnunet.finetuning import path_lengths  # noqa: E402
from classscale_training.nnunet.finetuning import work as finetune_work  # noqa: E402
from classscale_training.nnunet.finetuning.report import JsonReport, Report  # noqa: E402
from classscale_training.processes import subcommand  # noqa: E402
from ClassScaleSegLib import LabelTable, Segmentation  # noqa: E402
from ClassScaleSegLib.images.paired_reading import read_segmentation  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402
from ClassScaleSegLib.process.exit_codes import ExitCode  # noqa: E402
from ClassScaleSegLib.process.job import parse_event  # noqa: E402
from collect_cases import Training  # noqa: E402

NAMES = {1: "cell 1", 2: "cell 2"}
FACTS = {
    "cases": ["a"],
    "structures": [
        {"name": "cell 1", "cases": 1, "dice": [0.5, 0.75]},
        {"name": "cell 2", "cases": 1, "dice": [None, 1.0]},
    ],
    "mean_dice": [0.5, 0.875],
}


class Steps:
    """Stands in for the commands: collects really, and lets the others leave the files that matter."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failing = ""

    def __call__(self, arguments, variables, log, on_line, on_errors):
        self.calls.append(arguments)
        name, preprocessed = arguments[0], Path(variables["nnUNet_preprocessed"])
        if name == self.failing:
            return subcommand.Ended(ExitCode.MODEL, "That is why.")
        if name == "collect":
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("nnUNet_raw", variables["nnUNet_raw"])
                collect_cases.main(*arguments[1:])
        elif name == "fill":
            on_line("[1/1] a: 1 structures in 0.5 s -> a.seg.nrrd")
            folder = Path(arguments[arguments.index("-o") + 1])
            for image in Path(arguments[arguments.index("-i") + 1]).iterdir():
                found = folder / f"{image.name.partition('_')[0]}.seg.nrrd"
                if not found.exists():  # what is there stays
                    found.parent.mkdir(parents=True, exist_ok=True)
                    table = LabelTable.from_names({1: "cell 7"})
                    Segmentation(collect_cases.boxes(0, 0, 1), table, collect_cases.GRID).write(found)
        elif name == "plan":
            folder = preprocessed / "Dataset001_Cases"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "ClassScalePlans.json").write_text("{}")
        elif name == "train":
            trained = f"{arguments[arguments.index('-tr') + 1]}__ClassScalePlans__3d_fullres/fold_{arguments[3]}"
            fold = Path(variables["nnUNet_results"], "Dataset001_Cases", trained)
            fold.mkdir(parents=True)
            (fold / "checkpoint_final.pth").write_text(str(len(self.calls)))
            if arguments[3] != "all":
                splits = [{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]
                (preprocessed / "Dataset001_Cases" / "splits_final.json").write_text(json.dumps(splits))
        elif name == "export":
            Path(arguments[arguments.index("-o") + 1]).write_bytes(b"bundle")
        elif name == "compare-models":
            on_line("before: a (1 of 2)")
            write_json(Path(arguments[arguments.index("--results") + 1], "comparison.json"), FACTS)
        return subcommand.Ended(0, "")

    @property
    def names(self) -> list[str]:
        names, self.calls = [call[0] for call in self.calls], []
        return names


@pytest.fixture
def steps(monkeypatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(finetune_work, "run_subcommand", steps)
    return steps


@pytest.fixture
def corrected(tmp_path) -> Training:
    training = Training(tmp_path)
    training.case("a", NAMES)
    return training


def finetune(training, *words, output="mine.zip", model="toy-120"):
    output = training.folder.parent / output
    return commands.main(["finetune", str(training.folder), "-m", model, "-o", str(output), *map(str, words)])


ALL = ["collect", "plan", "preprocess", "train", "export"]


def test_one_command_collects_plans_preprocesses_trains_and_exports(steps, corrected, capsys):
    assert finetune(corrected, "--epochs", 5, "--licence", "CC0-1.0", "-device", "cpu") == 0
    calls = {call[0]: call for call in steps.calls}
    assert steps.names == ALL
    assert calls["plan"][1:] == ["-d", "1", "--like", "toy-120", "-npfp", "2"]
    assert calls["preprocess"][1:] == ["-d", "1", "-c", "3d_fullres", "-np", "2"]
    # the model never saw mirrored images, and the labels alone do not tell left from right
    trained = ["1", "3d_fullres", "all", "-tr", "ClassScaleTrainer_5epochs_NoMirroring", "-device", "cpu"]
    begun = ["--learning-rate", "0.001", "-pretrained_weights", "toy-120"]
    assert calls["train"][1:] == [*trained, "--c", "--no-validation", *begun]
    assert calls["export"][-1] == "--licence=CC0-1.0" and "--overwrite" not in calls["export"]
    said = capsys.readouterr().out
    assert "[1/5] collect" in said and said.splitlines()[-1].startswith("Next: classscaleseg segment IMAGE -m ")


def test_what_cases_lack_is_what_the_model_finds(steps, corrected, capsys):
    words = ("--epochs", 5, "-device", "cpu")
    assert finetune(corrected, *words, "--fill", "--json-progress") == 0
    fill = steps.calls[0]
    assert steps.names == ["fill", *ALL]
    training = corrected.folder.parent / "mine.training"
    (found,) = (training / "found").iterdir()
    assert fill[1:] == [
        *("-i", str(corrected.images), "-s", str(corrected.segmentations), "-m", "toy-120"),
        *("-o", str(found), "-device", "cpu"),
    ]
    labels = read_json(training / "raw" / "Dataset001_Cases" / "dataset.json", {"labels": dict}, "")["labels"]
    assert labels == {"background": 0, "cell 1": 1, "cell 2": 2, "cell 7": 3}
    told = events_in(capsys.readouterr().out)
    done = [(event.done, event.total) for event in told if event.kind == "progress" and event.stage == "fill"]
    assert done == [(0, 1), (1, 1)]
    results = training / "results"
    assert finetune(corrected, *words, "--overwrite") == 0  # without it, the cases are others
    assert steps.names == ALL and len(list(results.iterdir())) == 2
    assert finetune(corrected, *words, "--fill", "--overwrite") == 0
    assert "[1/6] fill" in capsys.readouterr().out and "train" not in steps.names


def test_another_learning_rate_is_another_training_and_other_trainers_have_their_own(steps, corrected):
    assert finetune(corrected) == 0 and steps.names == ALL
    assert finetune(corrected, "--learning-rate", 0.0005, "--overwrite") == 0
    (train,) = [call for call in steps.calls if call[0] == "train"]
    assert train[train.index("--learning-rate") + 1] == "0.0005" and steps.names == ["collect", "train", "export"]
    results = corrected.folder.parent / "mine.training" / "results"
    one, other = sorted(folder.name for folder in results.iterdir())
    assert other == f"{one}-0.0005"
    steps.calls.clear()
    assert finetune(corrected, "--optimizer", "adamw", "--overwrite") == 0
    (train,) = [call for call in steps.calls if call[0] == "train"]
    begin = train.index("--optimizer")
    assert train[begin : begin + 4] == ["--optimizer", "adamw", "--learning-rate", "0.0003"]
    assert (results / f"{one}-adamw").is_dir()
    steps.calls.clear()
    assert finetune(corrected, "--trainer", "ClassScaleTrainer_1epoch", "--overwrite") == 0
    (train,) = [call for call in steps.calls if call[0] == "train"]
    assert "--learning-rate" not in train
    with pytest.raises(SystemExit):
        finetune(corrected, "--learning-rate", 0)


def test_paths_that_windows_would_refuse_are_refused_before_anything_is_done(steps, corrected, capsys, monkeypatch):
    root = corrected.folder.parent / "mine.training"
    folder = "results/01234567/Dataset001_Cases/ClassScaleTrainer_5epochs_NoMirroring__ClassScalePlans__3d_fullres"
    longest = len(str(root / folder / "fold_all" / "training_log_2026_11_30_13_52_17.txt"))
    monkeypatch.setattr(path_lengths, "LONGEST", longest - 1)
    assert finetune(corrected, "--epochs", 5, "-device", "cpu") == ExitCode.OUTPUT
    said = capsys.readouterr().err
    assert f"In {root}, files would have paths of {longest} letters; Windows allows {longest - 1}. Choose" in said
    assert not steps.calls and not root.exists()
    monkeypatch.setattr(path_lengths, "LONGEST", longest)
    assert finetune(corrected, "--epochs", 5, "-device", "cpu") == 0
    (trained,) = (root / "results").glob("*/*/*/fold_all")
    assert len(str(trained.parent)) == len(str(root / folder)), "these are the folders that there are"
    corrected.case("a_case_with_a_long_name" + 65 * "x", NAMES)
    corrected.case("b", NAMES)
    assert finetune(corrected, "--epochs", 5, "--fold", 0, "--overwrite") == ExitCode.OUTPUT
    assert finetune(corrected, "--epochs", 5, "--work", corrected.folder.parent / "w", "--overwrite") == 0
    monkeypatch.setattr(path_lengths, "LONGEST", 10)
    lengths = []
    capsys.readouterr()
    for words in ([], ["--missing", "unlabelled"]):
        assert finetune(corrected, "--work", corrected.folder.parent / "w", "--overwrite", *words) == ExitCode.OUTPUT
        lengths.append(int(re.search(r"paths of (\d+) letters", capsys.readouterr().err)[1]))
    assert lengths[1] == lengths[0] + len("g001_"), "merged datasets have longer names of cases"


@pytest.mark.parametrize("folder", ["raw", "preprocessed"])
def test_a_folder_of_an_earlier_version_is_refused_and_another_one_named(steps, corrected, capsys, folder):
    work = corrected.folder.parent / "mine.training"
    (work / folder / "Dataset001_mine").mkdir(parents=True)
    assert finetune(corrected) == ExitCode.OUTPUT and steps.names == []
    said = capsys.readouterr().err
    assert f"{work / folder / 'Dataset001_mine'} was made by an earlier version" in said
    assert f"Delete {work}, or choose another folder (-o or --work)." in said
    assert finetune(corrected, "--work", work.with_name("else")) == 0


def test_channels_are_those_of_the_model_unless_given(steps, corrected):
    assert finetune(corrected, "-device", "cpu") == 0
    (call,) = [call for call in steps.calls if call[0] == "collect"]
    assert call[call.index("--channels") + 1 :] == list(summarize_toy().channel_names)
    assert finetune(corrected, "-device", "cpu", "--channels", "T1", output="other.zip") == 0
    (call,) = [call for call in steps.calls[5:] if call[0] == "collect"]
    assert call[call.index("--channels") + 1 :] == ["T1"]


def summarize_toy():
    from ClassScaleSegLib.resources import resource

    return summarize(resource("Models", "toy-120.zip"))


def test_cases_that_were_left_out_compare_both_models(steps, corrected, capsys):
    corrected.case("b", NAMES)
    assert finetune(corrected) == 0
    assert steps.names == ALL and "[5/5] export" in capsys.readouterr().out
    assert finetune(corrected, "--fold", 0, "--overwrite", "-device", "cpu") == 0
    call = steps.calls[-1]
    assert steps.names == ["collect", "train", "export", "compare-models"]
    assert [call[call.index(word) + 1] for word in ("--cases", "-device")] == ["a", "cpu"]
    models = [call[index + 1] for index, word in enumerate(call) if word == "-m"]
    assert models == ["toy-120", str(corrected.folder.parent / "mine.zip")]
    assert {Path(call[call.index(word) + 1]).name for word in ("-i", "-s", "--labels")} == {
        "imagesTr",
        "labelsTr",
        "labels.csv",
    }
    said = capsys.readouterr().out
    assert "[6/6] compare-models" in said and "The training has not seen these cases. All figures: " in said


def test_what_the_model_has_filled_in_is_not_compared_with_what_it_finds(steps, corrected):
    corrected.case("b", NAMES)
    assert finetune(corrected, "--fold", 0, "--fill", "-device", "cpu", "--missing", "background") == 0
    call, work = steps.calls[-1], corrected.folder.parent / "mine.training"
    assert [call[call.index(word) + 1] for word in ("compare-models", "--cases")] == ["-i", "a"]
    assert "--labels" not in call
    drawn = Path(call[call.index("-s") + 1])
    assert [file.name for file in drawn.iterdir()] == ["a.seg.nrrd"]
    there, _notices = read_segmentation(drawn / "a.seg.nrrd", corrected.images / "a_0000.nii.gz")
    assert there.table.names == NAMES
    assert np.array_equal(there.labels, collect_cases.boxes(1, 2))
    labels = collect_cases.read(work / "raw" / "Dataset001_Cases" / "labelsTr" / "a.nii.gz")
    assert set(np.unique(labels)) == {0, 1, 2, 3}, "the model has found a third one"


def events_in(text):
    return [event for line in text.splitlines() if (event := parse_event(line))]


def test_a_termination_signal_means_afterwards_what_it_meant_before(steps, corrected):
    before = signal.getsignal(signal.SIGTERM)
    assert finetune(corrected, "--json-progress") == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_programs_get_the_comparison(steps, corrected, capsys):
    corrected.case("b", NAMES)
    assert finetune(corrected, "--fold", 0, "--json-progress") == 0
    events = events_in(capsys.readouterr().out)
    assert [(event.done, event.total) for event in events if event.stage == "compare-models"] == [(0, 1), (0, 2)]
    result = events[-1].facts
    assert {name: result[name] for name in FACTS} == FACTS and result["table"].endswith("comparison.csv")


def test_a_comparison_that_fails_leaves_the_new_model(steps, corrected, capsys):
    corrected.case("b", NAMES)
    steps.failing = "compare-models"
    assert finetune(corrected, "--fold", 0, "--json-progress") == 0
    events = events_in(capsys.readouterr().out)
    assert not [event for event in events if event.kind == "error"] and "structures" not in events[-1].facts
    (said,) = [event.text for event in events if "could not be compared" in event.text]
    assert "could not be compared: That is why. To try again: classscaleseg-train compare-models -i " in said
    assert (corrected.folder.parent / "mine.zip").read_bytes() == b"bundle"


def test_a_training_that_is_done_is_compared_though_other_cases_were_trained_on_since(steps, corrected, write_model):
    corrected.case("b", NAMES)
    assert finetune(corrected, "--fold", 0) == 0 and steps.names == [*ALL, "compare-models"]
    assert finetune(corrected, "--overwrite", model=str(write_model())) == 0 and steps.names == ALL
    assert finetune(corrected, "--fold", 0, "--overwrite") == 0
    call = steps.calls[-1]
    assert steps.names == ["collect", "plan", "preprocess", "export", "compare-models"]
    assert call[call.index("--cases") + 1] == "a"


def test_a_comparison_that_is_stopped_says_that_there_is_a_new_model(steps, corrected, capsys, monkeypatch):
    corrected.case("b", NAMES)

    def interrupted(arguments, *more):
        if arguments[0] == "compare-models":
            raise KeyboardInterrupt
        return steps(arguments, *more)

    monkeypatch.setattr(finetune_work, "run_subcommand", interrupted)
    assert finetune(corrected, "--fold", 0) == ExitCode.CANCELLED
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"{corrected.folder.parent / 'mine.zip'} is written, but was not compared. To do so: class")


def test_cases_that_cannot_be_divided_again_leave_the_new_model(steps, corrected, capsys):
    corrected.case("b", NAMES)
    assert finetune(corrected, "--fold", 0) == 0
    work = corrected.folder.parent / "mine.training"
    for file in work.rglob("splits_final.json"):
        file.unlink()
    assert finetune(corrected, "--fold", 0, "--overwrite") == 0
    said = capsys.readouterr().out
    assert "could not be compared: " in said and "splits_final.json cannot be read" in said
    assert f"--labels {work / 'raw' / 'Dataset001_Cases' / 'labels.csv'}\nNext: " in said


@pytest.mark.parametrize(
    ("cases", "fold", "said"), [(1, 0, "A single case has no folds"), (2, 2, "2 cases have the folds 0 to 1, not 2.")]
)
def test_folds_that_the_cases_do_not_have_are_refused_before_they_are_prepared(
    steps, corrected, capsys, cases, fold, said
):
    for name in "bc"[: cases - 1]:
        corrected.case(name, NAMES)
    assert finetune(corrected, "--fold", fold) == ExitCode.FAULT
    assert said in capsys.readouterr().err and steps.names == ["collect"]


def test_what_is_done_is_not_done_again(steps, corrected):
    assert finetune(corrected) == 0 and steps.names == ALL
    assert finetune(corrected) == ExitCode.OUTPUT and steps.names == []
    assert finetune(corrected, "--overwrite") == 0 and steps.names == ["collect", "export"]


@pytest.mark.parametrize("step", ALL)
def test_it_goes_on_at_the_step_that_failed(step, steps, corrected, capsys):
    steps.failing = step
    assert finetune(corrected) == ExitCode.MODEL
    assert steps.names == ALL[: ALL.index(step) + 1]
    assert f"The step {step} has failed" in (said := capsys.readouterr().err) and "run the same command again" in said
    assert not (corrected.folder.parent / "mine.zip").exists()
    steps.failing = ""
    assert finetune(corrected) == 0
    again = ALL[1:] if step in ("collect", "plan", "preprocess") else ALL[ALL.index(step) :]
    assert steps.names == ["collect", *again]


def test_another_case_begins_a_training_of_its_own_and_keeps_the_first(steps, corrected):
    assert finetune(corrected) == 0 and steps.names == ALL
    corrected.case("b", NAMES)
    assert finetune(corrected, "--overwrite") == 0 and steps.names == ALL
    results = corrected.folder.parent / "mine.training" / "results"
    assert len(list(results.glob("*/*/*/fold_all/checkpoint_final.pth"))) == 2
    assert finetune(corrected, "--overwrite") == 0 and steps.names == ["collect", "export"]


def test_a_case_that_is_taken_away_is_no_longer_trained_on(steps, corrected):
    corrected.case("b", NAMES)
    assert finetune(corrected) == 0 and steps.names == ALL
    for file in (*corrected.images.glob("b*"), *corrected.segmentations.glob("b*")):
        file.unlink()
    assert finetune(corrected, "--overwrite") == 0 and steps.names == ALL
    raw = corrected.folder.parent / "mine.training" / "raw" / "Dataset001_Cases"
    assert [file.name for file in (raw / "labelsTr").iterdir()] == ["a.nii.gz"]
    assert json.loads((raw / "dataset.json").read_text())["numTraining"] == 1


def test_cases_that_return_after_an_interruption_are_preprocessed_anew(steps, corrected, write_model):
    assert finetune(corrected) == 0 and steps.names == ALL
    steps.failing = "preprocess"
    assert finetune(corrected, "--overwrite", model=str(write_model())) == ExitCode.MODEL
    steps.failing, steps.calls = "", []
    assert finetune(corrected, "--overwrite") == 0 and steps.names == ["collect", "plan", "preprocess", "export"]


def test_further_cases_are_divided_into_folds_anew(steps, corrected):
    assert finetune(corrected) == 0 and steps.names == ALL
    splits = corrected.folder.parent / "mine.training" / "preprocessed" / "Dataset001_Cases" / "splits_final.json"
    splits.write_text("[]")
    assert finetune(corrected, "--overwrite") == 0 and splits.exists()
    corrected.case("b", NAMES)
    assert finetune(corrected, "--overwrite") == 0 and not splits.exists()


def test_unchanged_results_can_be_left_out_later(steps, corrected, monkeypatch):
    corrected.case("b", NAMES)
    assert finetune(corrected) == 0
    unchanged = {"b": ["toy-120"]}
    monkeypatch.setattr(
        "classscale_training.data.collect.cases.models_of_unchanged", lambda name, _: unchanged.get(name)
    )
    steps.calls.clear()
    assert finetune(corrected, "--overwrite", "--corrected") == 0 and steps.names == ALL
    assert labels_of(corrected) == ["background", "cell 1", "cell 2"]


def test_labels_that_are_gone_do_not_stop_the_command(steps, corrected, tmp_path):
    assert finetune(corrected) == 0
    (tmp_path / "wanted.csv").write_text("LabelValue,Name\n1,cell 2\n")
    steps.calls.clear()
    assert finetune(corrected, "--overwrite", "--labels", tmp_path / "wanted.csv") == 0 and steps.names == ALL
    assert labels_of(corrected) == ["background", "cell 2"]
    corrected.case("a", {1: "cell 1", 2: "another name"})
    assert finetune(corrected, "--overwrite") == 0 and steps.names == ALL
    assert labels_of(corrected) == ["background", "cell 1", "another name"]


def labels_of(corrected: Training) -> list[str]:
    file = corrected.folder.parent / "mine.training" / "raw" / "Dataset001_Cases" / "dataset.json"
    return list(json.loads(file.read_text())["labels"])


def test_several_bundles_can_be_made_in_one_folder(steps, corrected):
    assert finetune(corrected) == 0 and steps.names == ALL
    work = corrected.folder.parent / "mine.training"
    assert finetune(corrected, "--work", work, output="second.zip") == 0 and steps.names == ["collect", "export"]


def test_another_model_to_begin_with_is_another_training(steps, corrected, write_model):
    assert finetune(corrected) == 0 and steps.names == ALL
    model = write_model()
    assert finetune(corrected, "--overwrite", model=str(model)) == 0 and steps.names == ALL


def test_sides_are_not_mirrored_though_the_model_was(steps, tmp_path, write_model):
    training = Training(tmp_path / "sides")
    training.case("a", {1: "left kidney", 2: "right kidney"})
    plain = Training(tmp_path / "plain")
    plain.case("a", {1: "spleen", 2: "liver"})
    model = str(write_model())
    for each, ending in ((training, "_100epochs_NoMirroring"), (plain, "_100epochs")):
        steps.calls.clear()
        assert finetune(each, model=model) == 0
        (call,) = [call for call in steps.calls if call[0] == "train"]
        assert call[call.index("-tr") + 1] == f"ClassScaleTrainer{ending}"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--epochs", "3"], ExitCode.FAULT, "There is no trainer with 3 epochs. Choose 1, 5, 10, 20"),
        (["--fold", "x"], ExitCode.FAULT, "x is not a fold"),
        (["--fold", "7"], ExitCode.FAULT, "7 is not a fold"),
        (["--trainer", "Nobody"], ExitCode.MODEL, "or another one, and set nnUNet_extTrainer"),
        (["--trainer", "nnUNetTrainer", "--optimizer", "sgd"], ExitCode.MODEL, "leave --optimizer out"),
        (["--work", __file__], ExitCode.OUTPUT, "test_finetune.py cannot be written"),
        (["-m", "nothing"], ExitCode.MODEL, "nothing"),
        (["-o", "mine.pth"], ExitCode.OUTPUT, "must end in .zip"),
        (["-i", "images"], ExitCode.FAULT, "Give a training folder, or both"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_done(words, code, sentence, steps, corrected, capsys):
    assert finetune(corrected, *words) == code
    assert sentence in capsys.readouterr().err and steps.names == []


def test_a_trainer_has_its_own_number_of_epochs(steps, corrected, capsys):
    assert finetune(corrected, "--trainer", "ClassScaleTrainer", "--epochs", 5) == ExitCode.FAULT
    assert "leave out --epochs or --trainer" in capsys.readouterr().err and steps.names == []


def test_damaged_weights_are_noticed_before_anything_is_done(steps, corrected, write_model, capsys):
    model = write_model()
    file = model / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:-2000])
    assert finetune(corrected, model=str(model)) == ExitCode.MODEL
    assert "checkpoint_final.pth" in capsys.readouterr().err and steps.names == []


def test_the_model_is_not_replaced_by_its_own_training(steps, corrected, tmp_path, capsys):
    import shutil

    from ClassScaleSegLib.resources import resource

    own = shutil.copy(resource("Models", "toy-120.zip"), tmp_path / "mine.zip")
    before = Path(own).read_bytes()
    assert finetune(corrected, "--overwrite", model=str(own)) == ExitCode.OUTPUT
    assert Path(own).read_bytes() == before and steps.names == []


def test_only_what_matters_is_shown_and_all_is_in_the_log(tmp_path, capfd, monkeypatch):
    printed = "noise\\n2026-11-30 07:26:41.393099: Epoch 3\\n2026-11-30 07:26:41.393099: Pseudo dice [1]\\nNext: x"
    monkeypatch.setattr(subcommand, "_CHILD", f"print('{printed}')")
    report = Report(None)
    report.step("train")
    ended = subcommand.run_subcommand([], {}, tmp_path / "train.txt", report.output, report.errors)
    assert ended.code == 0 and capfd.readouterr().out == "[4/5] train\nEpoch 3\n"
    begun, first, *_ = (tmp_path / "train.txt").read_text().splitlines()
    assert begun.startswith("--- 20") and first == "noise"


def test_files_where_the_command_is_run_are_not_taken_for_modules(tmp_path, monkeypatch):
    (tmp_path / "statistics.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subcommand, "_CHILD", "import statistics")
    assert subcommand.run_subcommand([], {}, tmp_path / "log.txt", print, print).code == 0


def test_a_process_that_outlives_a_step_and_still_prints_is_no_fault(tmp_path, monkeypatch):
    later = "import sys, time; time.sleep(1); print('later', file=sys.stderr, flush=True); time.sleep(1)"
    start = f"subprocess.Popen([sys.executable, '-c', {later!r}], stdout=subprocess.DEVNULL)"
    monkeypatch.setattr(subcommand, "_CHILD", f"import subprocess; {start}")
    monkeypatch.setattr(subcommand, "_SECONDS_TO_READ", 0.1)
    faults: list[object] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    told: list[str] = []
    before = threading.enumerate()
    ended = subcommand.run_subcommand(["plan"], {}, tmp_path / "plan.txt", told.append, told.append)
    assert ended == (0, "")
    for thread in {*threading.enumerate()} - {*before}:
        thread.join()
    assert ("".join(told), faults) == ("later\n", [])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_noticed_before_anything_is_done(steps, corrected, tmp_path, capsys):
    assert finetune(corrected, "--work", tmp_path / "work", output="/proc/mine.zip") == ExitCode.OUTPUT
    assert "/proc/mine.zip cannot be written" in capsys.readouterr().err and steps.names == []


SLEEPER = "import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(60)"
PARENT = """
from pathlib import Path
from ClassScaleSegLib.process.ending import run_command
from ClassScaleSegLib.process.fault_log import FaultLog
from classscale_training.processes import subcommand as f
f._CHILD = "from classscale_training.processes.parent import end_with_parent; end_with_parent(); " + {sleeper!r}
run_command(lambda: f.run_subcommand([], {{}}, Path({log!r}), print, print), print, FaultLog("x", []), "Cancelled.")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither of these signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_ends_with_the_command(number, tmp_path):
    file = tmp_path / "pid"
    program = PARENT.format(sleeper=SLEEPER.format(file=str(file)), log=str(tmp_path / "log.txt"))
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text()) and time.monotonic() < end:
            time.sleep(0.1)
        child = psutil.Process(int(file.read_text()))
        parent.send_signal(number)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.wait(20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_programs_get_json_lines(steps, corrected, capsys):
    assert finetune(corrected, "--json-progress", "--epochs", 5) == 0
    events = events_in(capsys.readouterr().out)
    assert [event.stage for event in events if event.kind == "progress"] == ALL
    assert [event.total for event in events if event.stage == "train"] == [5]
    assert events[-1].kind == "result"
    assert events[-1].facts["output"] == str(corrected.folder.parent / "mine.zip")


def test_programs_get_the_sentence_of_what_failed(steps, corrected, capsys):
    steps.failing = "plan"
    assert finetune(corrected, "--json-progress") == ExitCode.MODEL
    assert parse_event(capsys.readouterr().out.splitlines()[-1]).text == "That is why."
    assert finetune(corrected, "--json-progress", "--fold", "7") == ExitCode.FAULT
    last = parse_event(capsys.readouterr().out.splitlines()[-1])
    assert last.kind == "error" and last.text.startswith("7 is not a fold")


def test_epochs_and_preprocessed_cases_are_counted(capsys):
    report = JsonReport(10)
    report.step("preprocess")
    report.errors("\r 50%|#####     | 2/4 [00:01<00:01,  1.00it/s]")
    report.step("train")
    before = "2026-11-30 07:26:41.393099: "
    for line in ("Epoch 3", "train_loss -0.5", "noise", "Epoch time: 20.0 s", "Epoch 4", "Epoch time: 30.0 s"):
        report.output(before + line)
    events = [parse_event(line) for line in capsys.readouterr().out.splitlines()]
    shown = [(event.stage, event.done, event.total, event.remaining) for event in events if event.kind == "progress"]
    begun = [("preprocess", 0, 1, None), ("preprocess", 2, 4, None), ("train", 0, 10, None)]
    assert shown == [
        *begun,
        *[("train", 3, 10, None), ("train", 4, 10, 120), ("train", 4, 10, 120), ("train", 5, 10, 115)],
    ]
    assert [event.text for event in events if event.text][:2] == ["Epoch 3", "train_loss -0.5"]


def test_the_log_has_what_both_streams_said_and_the_last_state_of_bars(tmp_path, monkeypatch, capfd):
    printed = "import sys; print('Ä'); sys.stderr.write('1/2\\r2/2\\nWarning: ü\\r\\nend'); sys.exit(3)"
    monkeypatch.setattr(subcommand, "_CHILD", printed)
    log, pieces = tmp_path / "plan.txt", []
    assert subcommand.run_subcommand([], {}, log, print, pieces.append) == (3, "")
    assert "".join(pieces).replace("\r\n", "\n") == "1/2\r2/2\nWarning: ü\nend"
    assert sorted(log.read_text(encoding="utf-8").splitlines()[1:]) == ["2/2", "Warning: ü", "end", "Ä"]
    assert subcommand.run_subcommand([], {}, log, print, pieces.append).code == 3
    assert sum(line.startswith("--- 20") for line in log.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_loses_lines_of_the_log_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(subcommand, "_CHILD", "import sys; print('x' * 9 ** 6); print('y' * 9 ** 6, file=sys.stderr)")
    (tmp_path / "plan.txt").symlink_to("/dev/full")
    said, lines = [], []
    ended = subcommand.run_subcommand([], {}, tmp_path / "plan.txt", lines.append, said.append)
    assert ended.code == 0 and len(lines[0]) == 9**6 and sum(map(len, said)) > 9**6


def test_a_step_leaves_its_sentence(tmp_path, capfd):
    ended = subcommand.run_subcommand(
        ["export", "-m", str(tmp_path), "-o", "x.zip"], {}, tmp_path / "export.txt", print, print
    )
    assert ended.code > 0 and ended.error.strip() and ended.error.strip() in capfd.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["export.txt"]


def test_a_step_that_was_killed_is_explained(steps, corrected, capsys):
    def killed(arguments, *more):
        return subcommand.Ended(-9, "") if arguments[0] == "plan" else steps(arguments, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_work, "run_subcommand", killed)
        assert finetune(corrected) == finetune(corrected, "--json-progress") == ExitCode.FAULT
    told = capsys.readouterr()
    sentence = "was killed (-9), most likely by the system because memory ran out. Close other programs. The step plan"
    assert sentence in told.err and sentence in parse_event(told.out.splitlines()[-1]).text
