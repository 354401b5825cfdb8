"""Training refuses preprocessed cases that are not complete, or not made as plans and dataset.json say now."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import torch
from classscale_training.commands import main
from classscale_training.data.raw_cases import RawCase
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.nnunet import preprocessing
from classscale_training.nnunet.checkpoint_check import check_labels
from classscale_training.nnunet.earlier_plans import fingerprint_is_old
from classscale_training.nnunet.preprocessed_folder import being_preprocessed, check_preprocessed, note_of
from classscale_training.nnunet.pretraining.pretrainer import ClassScalePretrainer
from classscale_training.nnunet.trainer import ClassScaleTrainer
from ClassScaleSegLib.errors import Busy, ClassScaleError, ModelError
from ClassScaleSegLib.locking import locked
from ClassScaleSegLib.process.exit_codes import ExitCode
from nnunetv2.experiment_planning import plan_and_preprocess_api
from tiny_nnunet import CONFIGURATION, PLANS, TRAINER, add_tiny_configuration, set_environment, write_trainer

DATASET, CASES = 703, ["Toy_0001", "Toy_0002", "Toy_0003"]
PREPROCESS = ["preprocess", "-d", str(DATASET), "-c", CONFIGURATION, "-np", "1", "--no_pbar"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A toy dataset of three cases, planned and preprocessed, without folds."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        write_trainer(root, 1)
        write_toy_dataset(ToyOptions(4, "atlas", 24), DATASET, 3)
        assert main(["plan", "-d", str(DATASET), "-npfp", "1", "-overwrite_target_spacing", "6", "6", "6"]) == 0
        planned = next((root / "preprocessed").iterdir())
        add_tiny_configuration(planned, [])
        (planned / "splits_final.json").unlink()
        assert main(PREPROCESS) == 0
        yield root


@pytest.fixture
def root(made, tmp_path, monkeypatch) -> Path:
    """A copy of it, to be spoilt."""
    for name in ("raw", "preprocessed", "results"):
        shutil.copytree(made / name, tmp_path / name)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


def planned(root: Path) -> Path:
    return next((root / "preprocessed").iterdir())


def cases_of(root: Path) -> Path:
    return planned(root) / f"{PLANS}_{CONFIGURATION}"


def read(root: Path, name: str) -> dict:
    return json.loads((planned(root) / name).read_text())


def trainer(root: Path, kind: type = ClassScaleTrainer, fold: object = 0):
    plans = {**read(root, f"{PLANS}.json"), "continue_training": False}
    return kind(plans, CONFIGURATION, fold, read(root, "dataset.json"), torch.device("cpu"))


def change(file: Path, **entries) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_a_dataset_of_three_cases_has_three_folds(root):
    assert trainer(root, fold=1).do_split() == (["Toy_0001", "Toy_0003"], ["Toy_0002"])
    assert len(json.loads((planned(root) / "splits_final.json").read_text())) == 3
    for case in CASES[1:]:
        for file in cases_of(root).glob(f"{case}*"):
            file.unlink()
    (planned(root) / "splits_final.json").unlink()
    with pytest.raises(ModelError, match="has a single case, Toy_0001.*train the fold all"):
        trainer(root).do_split()
    assert trainer(root, fold="all").do_split() == (["Toy_0001"], ["Toy_0001"])


def test_cases_of_an_interrupted_preprocessing_are_not_trained_on(root, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        for file in cases_of(root).glob("Toy_0003*"):
            file.unlink()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(plan_and_preprocess_api, "preprocess", interrupted)
        assert main(PREPROCESS) == ExitCode.OUTPUT
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    for kind in (ClassScaleTrainer, ClassScalePretrainer):
        with pytest.raises(ModelError, match="are not complete: .*preprocess` again"):
            trainer(root, kind).do_split()
    assert not (planned(root) / "splits_final.json").exists()  # which would leave the third case out for good
    assert main(PREPROCESS) == 0
    assert sorted(sum(trainer(root).do_split(), [])) == CASES


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (RuntimeError("Error while creating the NDArray"), ExitCode.OUTPUT, "cannot be written (the file system"),
        (
            RuntimeError("One of your background processes is missing."),
            ExitCode.OUT_OF_MEMORY,
            "preprocessed cases of Dataset703_ToyAtlas4 was killed, most likely because memory ran out.",
        ),
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore."),
            ExitCode.OUT_OF_MEMORY,
            "Memory has run out (CUDA out of memory. Tried to allocate 2.00 GiB). Close other programs",
        ),
    ],
)
def test_what_nnunet_meets_is_a_sentence(root, monkeypatch, capsys, fault, code, sentence):
    def failing(*arguments, **options):
        raise fault

    monkeypatch.setattr(plan_and_preprocess_api, "preprocess", failing)
    assert main(PREPROCESS) == code
    assert sentence in capsys.readouterr().err


def test_one_process_at_a_time_preprocesses_and_training_waits_for_it(root, capsys):
    folder = cases_of(root)
    with being_preprocessed({folder: {"images": {}, "labels": {}}}):
        assert main(PREPROCESS) == ExitCode.FAULT
        assert f"{folder} is being preprocessed by another process" in capsys.readouterr().err
        with pytest.raises(ModelError, match="are being preprocessed. Wait"):
            trainer(root).do_split()


@pytest.mark.parametrize(
    ("file", "entries", "what"),
    [
        ("dataset.json", {"labels": {"background": 0, "b": 1, "a": 2, "c": 3, "d": 4}}, "labels"),
        ("dataset.json", {"channel_names": {"0": "CT"}}, "channel_names"),
        (f"{PLANS}.json", {"image_reader_writer": "NibabelIO"}, "image_reader_writer"),
    ],
)
def test_plans_or_labels_that_have_changed_since_are_refused(root, file, entries, what):
    trainer(root).do_split()
    change(planned(root) / file, **entries)
    with pytest.raises(ModelError, match=f"preprocessed with another {what}.* than plans and dataset.json have now"):
        trainer(root).do_split()
    if what == "labels":
        trainer(root, ClassScalePretrainer).do_split()  # does not use them
    note_of(cases_of(root)).unlink()  # as of nnU-Net's own command
    trainer(root).do_split()


@pytest.mark.parametrize(("scheme", "refused"), [("CTNormalization", True), ("ZScoreNormalization", False)])
def test_other_intensities_count_if_the_images_are_normalised_by_them(tmp_path, scheme, refused):
    images = [{"normalization_schemes": [scheme], "foreground_intensity_properties_per_channel": n} for n in (1, 2)]
    folder = tmp_path / "cases"
    folder.mkdir()
    with being_preprocessed({folder: {"images": images[0], "labels": {}}}):
        pass
    check_preprocessed(folder, images[0])
    with pytest.raises(ModelError, match="another foreground_intensity") if refused else nullcontext():
        check_preprocessed(folder, images[1])


def test_a_raw_dataset_that_has_changed_is_planned_again_first(root, capsys):
    raw = next((root / "raw").iterdir()) / "dataset.json"
    before = raw.read_text()
    paths = {"images": ["imagesTr/Toy_0001_0000.nii.gz"], "label": "labelsTr/Toy_0001.nii.gz"}
    change(raw, dataset={"Toy_0001": paths}, numTraining=1)  # nnU-Net would take the cases of the copy
    assert main(PREPROCESS) == ExitCode.MODEL
    assert "has another entry dataset than when it was planned" in capsys.readouterr().err
    raw.write_text(before)
    names = list(json.loads(raw.read_text())["labels"])
    renamed = {name: value for value, name in enumerate([names[0], names[2], names[1], *names[3:]])}
    change(raw, labels=renamed)
    assert main(PREPROCESS) == ExitCode.MODEL
    assert "has another entry labels than when it was planned" in capsys.readouterr().err
    trainer(root).do_split()  # nothing was touched


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[{"train": ["Toy_0001"', "cannot be read as nnU-Net's splits"),
        ('[{"train": ["Toy_0001"]}]', "it has no entry 'val'"),
        ("[]", "no folds with the names of cases"),
        ('[{"train": [1], "val": [2]}]', "no folds with the names of cases"),
        ('[{"train": "Toy_0001", "val": "Toy_0002"}]', "no folds with the names of cases"),
        ('{"train": ["Toy_0001"], "val": ["Toy_0002"]}', r"no folds with the names of cases, such as \[{"),
        ("null", "no folds with the names of cases"),
        ('[{"train": ["Toy_0001", "x"], "val": ["Toy_0002"]}]', "The case x of splits_final.json is not in"),
        ('[{"train": ["Toy_0001", "Toy_0002"], "val": []}]', "has no case for validation. Add one"),
        ('[{"train": [], "val": ["Toy_0002"]}]', "has no case for training. Add one"),
    ],
)
def test_folds_that_cannot_be_used_are_a_sentence(root, content, sentence):
    (planned(root) / "splits_final.json").write_text(content)
    with pytest.raises(ClassScaleError, match=sentence):
        trainer(root).do_split()


def test_cases_that_no_fold_uses_are_told(root, capsys):
    (planned(root) / "splits_final.json").write_text('[{"train": ["Toy_0001"], "val": ["Toy_0002"]}]')
    trainer(root).do_split()
    assert "WARNING: Toy_0003 of the preprocessed cases are not used" in capsys.readouterr().out


def test_label_maps_that_were_corrected_since_are_told(root, capsys, monkeypatch):
    first, second = (next((root / "raw").iterdir()) / "labelsTr" / f"Toy_000{number}.nii.gz" for number in (1, 2))
    for file in (first, second):
        os.utime(file, (1, 1))  # as a copy of the dataset may have other times
    trainer(root).do_split()
    assert "WARNING" not in capsys.readouterr().out
    first.write_bytes(second.read_bytes())
    trainer(root).do_split()
    assert "WARNING: Toy_0001.nii.gz in labelsTr changed after preprocessing" in capsys.readouterr().out
    first.unlink()  # nor need they be there
    trainer(root).do_split()
    monkeypatch.delenv("nnUNet_raw")
    trainer(root).do_split()
    change(planned(root) / f"{PLANS}_{CONFIGURATION}_made.json", label_files=7)
    trainer(root).do_split()
    assert "WARNING" not in capsys.readouterr().out


def test_one_fold_is_trained_by_one_command_at_a_time_and_a_full_disk_is_a_sentence(root, capsys, monkeypatch):
    command = ["train", str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
    fold = root / "results" / planned(root).name / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0"
    with locked(fold / ".lock", "x"):
        assert main(command) == ExitCode.FAULT
    assert f"{fold} is being trained by another process" in capsys.readouterr().err

    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ClassScaleTrainer, "on_train_start", full)
    assert main(command) == ExitCode.OUTPUT
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    shutil.rmtree(cases_of(root))
    assert main(command) == ExitCode.MODEL
    assert "does not exist: run `classscaleseg-train preprocess` first" in capsys.readouterr().err


def test_a_training_is_not_continued_on_images_that_are_prepared_in_another_way(root, tmp_path):
    first = trainer(root)
    first.initialize()
    first.save_checkpoint(str(tmp_path / "checkpoint_final.pth"))
    trainer(root).load_checkpoint(str(tmp_path / "checkpoint_final.pth"))
    plans = json.loads((planned(root) / f"{PLANS}.json").read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [5.0, 6.0, 6.0]
    change(planned(root) / f"{PLANS}.json", **plans)
    with pytest.raises(ModelError, match="checkpoint_final.pth was trained with another spacing than the plans have"):
        trainer(root).load_checkpoint(str(tmp_path / "checkpoint_final.pth"))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["-c", "3d_fulres"], ExitCode.MODEL, "have no configuration 3d_fulres"),
        (["-c", CONFIGURATION, "-np", "1", "2"], ExitCode.FAULT, "-np has 2 numbers for 1 configurations"),
    ],
)
def test_arguments_that_would_preprocess_nothing_are_refused(root, capsys, monkeypatch, arguments, code, sentence):
    monkeypatch.setattr(preprocessing, "preprocess", lambda *_, **__: pytest.fail("it began"))
    assert main(["preprocess", "-d", str(DATASET), "--no_pbar", *arguments]) == code
    assert sentence in capsys.readouterr().err


def test_another_process_may_hold_the_lock_of_a_note(tmp_path):
    with being_preprocessed({tmp_path / "a": {}}), pytest.raises(Busy), being_preprocessed({tmp_path / "a": {}}):
        pass


def saved(root: Path, file: Path) -> ClassScaleTrainer:
    """Write the checkpoint of a training that has begun."""
    begun = trainer(root)
    begun.do_split()
    begun.initialize()
    begun.save_checkpoint(str(file))
    return begun


def test_a_training_is_not_continued_or_validated_on_cases_that_it_has_learned(root, tmp_path, capsys):
    splits, file = planned(root) / "splits_final.json", tmp_path / "checkpoint_latest.pth"
    folds = [(CASES[:1], CASES[2:]), (CASES[:2], CASES[2:]), (CASES[1:2], CASES[2:]), (CASES[1:2], CASES[:1])]
    written = [json.dumps([{"train": learned, "val": unseen}]) for learned, unseen in folds]
    splits.write_text(written[0])
    saved(root, file)
    capsys.readouterr()
    for text, sentence in (
        (written[0], None),
        (written[1], "WARNING: Toy_0002 is new in the training since checkpoint_latest.pth."),
        (written[2], "WARNING: 1 case is no longer in the training since checkpoint_latest.pth."),
    ):
        splits.write_text(text)
        resumed = trainer(root)
        resumed.load_checkpoint(str(file))
        out = capsys.readouterr().out
        assert out.count("since checkpoint_latest.pth") == (sentence is not None) and (sentence or "") in out
        resumed.save_checkpoint(str(file))
    splits.write_text(written[3])
    with pytest.raises(ModelError, match=r"was trained on Toy_0001, which splits_final.json has for validation now"):
        trainer(root).load_checkpoint(str(file))
    assert b"Toy_" not in file.read_bytes()  # names may be those of patients
    content = torch.load(file, weights_only=False)
    del content["init_args"]["cases"]  # earlier versions and nnU-Net do not store them
    torch.save(content, file)
    trainer(root).load_checkpoint(str(file))


def test_a_training_goes_on_with_another_batch_but_not_with_another_network(root, tmp_path, capsys):
    file = tmp_path / "checkpoint_final.pth"
    saved(root, file)
    plans = read(root, f"{PLANS}.json")
    plans["configurations"][CONFIGURATION]["batch_size"] = 3
    change(planned(root) / f"{PLANS}.json", **plans)
    resumed = trainer(root)
    resumed.load_checkpoint(str(file))
    assert "WARNING: The training goes on with batch_size 3; until now it was 2." in capsys.readouterr().out
    resumed.save_checkpoint(str(file))
    trainer(root).load_checkpoint(str(file))
    assert "WARNING" not in capsys.readouterr().out  # it is no longer another one
    plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]["nonlin_kwargs"] = {"negative_slope": 0.1}
    change(planned(root) / f"{PLANS}.json", **plans)
    with pytest.raises(ModelError, match="was trained with another architecture than the plans have now"):
        trainer(root).load_checkpoint(str(file))


def test_regions_in_another_order_are_other_outputs_of_the_network():
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    check_labels(Path("x.pth"), labels, {"ignore": 3, **labels})
    with pytest.raises(ModelError, match="x.pth was trained with the regions in another order: background, whole"):
        check_labels(Path("x.pth"), labels, dict(reversed(labels.items())))


def test_a_trained_fold_is_trained_again_only_if_asked_to(root, tmp_path, monkeypatch, capsys):
    command = ["train", str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
    fold = root / "results" / planned(root).name / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0"
    ran: list[set[str]] = []

    def run_training(self):
        self.on_train_start()
        ran.append({file.name for file in fold.iterdir()})

    monkeypatch.setattr(ClassScaleTrainer, "run_training", run_training)
    monkeypatch.setattr(ClassScaleTrainer, "perform_actual_validation", lambda self, npz: None)
    assert main(["validate", *command[1:]]) == ExitCode.MODEL
    assert "fold_0 has no checkpoint_final.pth to validate: train this fold" in capsys.readouterr().err
    for name, state in (("final", "has been trained"), ("latest", "has been trained in part"), ("best", "in part")):
        saved(root, fold / f"checkpoint_{name}.pth")
        assert main(command) == ExitCode.OUTPUT
        assert f"{state} (checkpoint_{name}.pth). Continue with --c" in capsys.readouterr().err
        assert ran == []
        if name != "best":
            (fold / f"checkpoint_{name}.pth").unlink()
    saved(root, fold / "checkpoint_final.pth")  # killed in its first epoch, --c would take this one
    splits = planned(root) / "splits_final.json"
    splits.rename(tmp_path / "kept.json")
    splits.write_text('[{"train": ["x"], "val": ["Toy_0001"]}]')
    assert main([*command, "--overwrite"]) == ExitCode.MODEL
    assert ran == [] and (fold / "checkpoint_final.pth").exists()  # not removed for what cannot begin
    (tmp_path / "kept.json").rename(splits)
    assert main([*command, "--c"]) == 0
    assert main([*command, "--overwrite"]) == 0
    assert "checkpoint_final.pth" in ran[0] and not [name for name in ran[1] if name.endswith(".pth")]
    with pytest.raises(SystemExit):
        main([*command, "--c", "--overwrite"])


def test_a_fingerprint_of_other_cases_is_made_again_and_replaced_plans_are_told(root, capsys, monkeypatch):
    fingerprint, plans = planned(root) / "dataset_fingerprint.json", planned(root) / f"{PLANS}.json"
    raw = next((root / "raw").iterdir())
    cases = [RawCase(name, (raw / f"imagesTr/{name}_0000.nii.gz",), raw / f"labelsTr/{name}.nii.gz") for name in CASES]
    content = fingerprint.read_text()
    fingerprint.touch()
    assert not fingerprint_is_old(planned(root), cases)
    assert fingerprint_is_old(planned(root), cases[:2])
    later = fingerprint.stat().st_mtime + 10
    os.utime(cases[1].label, (later, later))
    assert fingerprint_is_old(planned(root), cases)
    fingerprint.write_text('{"spacings": [[1, 1')  # by a killed process
    assert fingerprint_is_old(planned(root), cases)
    fingerprint.unlink()
    assert not fingerprint_is_old(planned(root), cases)  # nnU-Net makes it

    before = json.loads(plans.read_text())
    before["configurations"]["3d_fullres"]["batch_size"] = 7
    change(plans, **before)
    extracted, command = [], ["plan", "-d", str(DATASET), "-npfp", "1", "-overwrite_target_spacing", "6", "6", "6"]

    def extract(datasets, extractor, processes, check, clean, *more):
        extracted.append(clean)
        fingerprint.write_text(content)

    monkeypatch.setattr(plan_and_preprocess_api, "extract_fingerprints", extract)
    fingerprint.write_text("{")
    capsys.readouterr()
    assert main(command) == 0 and extracted == [True]
    found = capsys.readouterr().err
    assert "dataset_fingerprint.json is not of the cases as they are now: it is made again." in found
    assert "Warning: the plans replace earlier ones. 3d_fullres: batch_size was 7, is 2; 3d_fullres: arch" in found
    assert CONFIGURATION in json.loads(plans.read_text())["configurations"]  # a configuration of the user stays
    plans.write_text('{"configurations": {')
    assert main(command) == ExitCode.MODEL
    assert f"{plans} cannot be read" in (found := capsys.readouterr().err) and "Delete it" in found


def test_cases_are_not_replaced_under_a_training_and_what_is_left_of_them_is_told(root, capsys):
    fold = root / "results" / planned(root).name / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0"
    with locked(fold / ".lock", "x"):
        assert main(PREPROCESS) == ExitCode.FAULT
    assert f"{fold} is being trained on the cases of {CONFIGURATION}. Wait" in capsys.readouterr().err
    assert sorted(trainer(root, fold="all").do_split()[0]) == CASES
    assert "WARNING" not in capsys.readouterr().out
    for file in cases_of(root).glob("Toy_0002*"):
        file.unlink()
    trainer(root, fold="all").do_split()
    assert "WARNING: dataset.json has 3 cases, but 2 are in" in capsys.readouterr().out
    (planned(root) / "dataset_fingerprint.json").unlink()
    with pytest.raises(ModelError, match="dataset_fingerprint.json does not exist: run `classscaleseg-train plan`"):
        trainer(root).on_train_start()
