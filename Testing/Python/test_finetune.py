"""``classscaleseg-train finetune``: five commands as one, which goes on where it stopped and loses nothing."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
from classscale_training.files import read_json  # noqa: E402
from classscale_training.nnunet.finetuning import path_lengths  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402
from ClassScaleSegLib.process.exit_codes import ExitCode  # noqa: E402
from collect_cases import Training  # noqa: E402
from finetune_steps import ALL, NAMES, corrected, events_in, finetune, steps  # noqa: E402, F401
from tiny_primus import add_fold, primus_plans, stock_primus  # noqa: E402


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


@pytest.mark.parametrize(
    ("cases", "fold", "said"), [(1, 0, "A single case has no folds"), (2, 2, "2 cases have the folds 0 to 1, not 2.")]
)
def test_folds_that_the_cases_do_not_have_are_refused_before_they_are_prepared(
    steps, corrected, capsys, cases, fold, said
):
    for name in "bc"[: cases - 1]:
        corrected.case(name, NAMES)
    assert finetune(corrected, "--fold", fold) == ExitCode.FAULT
    assert said in capsys.readouterr().err and steps.names == []


def test_folds_are_those_of_the_cases_that_are_not_left_out(steps, corrected, monkeypatch, capsys):
    corrected.case("b", NAMES)
    unchanged = {"b": ["toy-120"]}
    monkeypatch.setattr(
        "classscale_training.data.collect.cases.models_of_unchanged", lambda name, _: unchanged.get(name)
    )
    assert finetune(corrected, "--fold", 1, "--corrected") == ExitCode.FAULT
    assert "A single case has no folds" in capsys.readouterr().err and steps.names == ["collect"]


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
        (["--trainer", "nnUNetTrainer"], ExitCode.MODEL, "No bundle can be made of what nnUNetTrainer trains."),
        (["--trainer", "ClassScaleTrainer_Primus_S", "--optimizer", "sgd"], ExitCode.MODEL, "leave --optimizer out"),
        (["--trainer", "ClassScaleTrainer_Primus_S"], ExitCode.MODEL, "network that ClassScaleTrainer_Primus_S trains"),
        (["--trainer", "ClassScaleTrainer_Primus"], ExitCode.MODEL, "network that ClassScaleTrainer_Primus trains"),
        (["--channels", "T1", "T2"], ExitCode.MODEL, "needs 1 channels ("),
        (["--channels", ""], ExitCode.FAULT, "give each channel a name of its own"),
        (["--labels", "nothing.csv"], ExitCode.LABELS, "nothing.csv"),
        (["--fold", "1"], ExitCode.FAULT, "A single case has no folds"),
        (["--work", __file__], ExitCode.OUTPUT, "test_finetune.py cannot be written"),
        (["-m", "nothing"], ExitCode.MODEL, "nothing"),
        (["-o", "mine.pth"], ExitCode.OUTPUT, "must end in .zip"),
        (["-i", "images"], ExitCode.FAULT, "Give a training folder, or both"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_done(words, code, sentence, steps, corrected, capsys):
    assert finetune(corrected, *words) == code
    assert sentence in capsys.readouterr().err and steps.names == []


def test_a_primus_needs_a_trainer_of_its_own(steps, corrected, write_model, capsys):
    folder = write_model()
    (folder / "plans.json").write_text(json.dumps(primus_plans()))
    add_fold(folder, stock_primus())
    assert finetune(corrected, model=str(folder)) == ExitCode.MODEL
    said = capsys.readouterr().err
    assert f"{folder} is a Primus, which needs another optimiser and a warm-up." in said and steps.names == []
    assert finetune(corrected, "--trainer", "ClassScaleTrainer_Primus_S", model=str(folder)) == ExitCode.MODEL
    assert "does not have the network that ClassScaleTrainer_Primus_S trains." in capsys.readouterr().err
    assert finetune(corrected, "--trainer", "ClassScaleTrainer_Primus", model=str(folder)) == 0


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


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_noticed_before_anything_is_done(steps, corrected, tmp_path, capsys):
    assert finetune(corrected, "--work", tmp_path / "work", output="/proc/mine.zip") == ExitCode.OUTPUT
    assert "/proc/mine.zip cannot be written" in capsys.readouterr().err and steps.names == []
