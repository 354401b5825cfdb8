"""A fine-tuning in a child process, as the panel runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import psutil
import pytest

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.models.summary import summarize  # noqa: E402
from ClassScaleSegLib.process import ModelComparisonProcess, TrainingProcess  # noqa: E402
from ClassScaleSegLib.process import training as module  # noqa: E402
from ClassScaleSegLib.process.child import ChildProcess  # noqa: E402
from collect_cases import Training  # noqa: E402
from tiny_nnunet import SHIM  # noqa: E402


def test_the_whole_way_is_stopped_goes_on_and_compares_both_models(tmp_path, write_model, monkeypatch):
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "shim.py").write_text(SHIM.format(epochs=1))
    settings = {"nnUNet_extTrainer": str(tmp_path / "shim"), "nnUNet_compile": "f", "nnUNet_n_proc_DA": "0"}
    training, output = Training(tmp_path), tmp_path / "mine.zip"
    for case in "ab":
        training.case(case, {1: "organ 1", 2: "something new"})
    words = [str(training.folder), "-m", str(write_model()), "-o", str(output), "-device", "cpu", "--workers", "1"]
    words += ["--trainer", "ClassScaleTrainer_test", "--fold", "0", "--learning-rate", "0.003"]

    stages: list[str] = []
    before = psutil.Process().children(recursive=True)

    class Enough(Exception):
        pass

    def stop_in_training(event):
        stages.append(event.stage)
        if event.stage == "train":
            raise Enough

    with TrainingProcess(words, environment=settings) as process:
        process.start()
        with pytest.raises(Enough):
            process.wait(stop_in_training)
        assert process.state == "cancelled"
    begun = [name for name in dict.fromkeys(stages) if name]
    assert begun == ["start", "collect", "plan", "preprocess", "train"]
    assert not process.work_folder.exists() and not output.exists()
    assert set(psutil.Process().children(recursive=True)) <= set(before)

    with TrainingProcess(words, environment=settings) as process:
        process.start()
        events = []
        assert process.wait(events.append) == "finished", process.log
    stages = [event.stage for event in events if event.kind == "progress"]
    assert [name for name in dict.fromkeys(stages)] == ["start", "collect", "train", "export", "compare-models"]
    said = [event.text for event in events]
    assert any("The network begins with the weights of 1 of its 2 classes" in text for text in said)
    assert "Epoch 0" in said and Path(process.result["output"]) == output
    assert list(tmp_path.glob("mine.training/results/**/checkpoint_final.pth")) != []
    logs = tmp_path.glob("mine.training/results/*-0.003/*/*/fold_0/training_log_*.txt")
    assert any("Current learning rate: 0.003" in log.read_text() for log in logs)
    made = summarize(output)
    assert made.table.names == {0: "background", 1: "organ 1", 2: "something new"} and made.name == "mine"

    seen = [(event.done, event.total) for event in events if event.stage == "compare-models"]
    assert seen == [(0, 1), (0, 2), (1, 2)]
    (case,) = process.result["cases"]
    known, new = process.result["structures"]
    assert (known["name"], known["cases"], new["name"], new["cases"]) == ("organ 1", 1, "something new", 1)
    assert new["dice"][0] is None and all(0 <= dice <= 1 for dice in [*known["dice"], new["dice"][1]])
    table = Path(process.result["table"])
    with table.open(encoding="utf-8") as file:
        rows = {(row["Case"], row["Other"], row["Name"]): row["Dice"] for row in csv.DictReader(file)}
    assert rows[case, "before", "something new"] == "" and float(rows[case, "now", "organ 1"]) == pytest.approx(
        known["dice"][1], rel=1e-5
    )
    assert sorted(file.parent.name for file in table.parent.glob("*/*.seg.nrrd")) == ["1-before", "2-now"]


def test_what_it_refuses_is_the_error(tmp_path):
    with TrainingProcess([str(tmp_path), "-m", "toy-120", "-o", str(tmp_path / "mine.pth")]) as process:
        process.start()
        assert process.wait() == "failed"
    assert process.error == f"{tmp_path / 'mine.pth'} must end in .zip: a bundle is a zip."


def test_models_are_compared_though_a_case_is_damaged(tmp_path, write_model):
    training = Training(tmp_path)
    for case in "ab":
        training.case(case, {1: "organ 1"})
    (training.images / "a_0000.nii.gz").write_bytes(b"damaged")
    words = [str(training.folder), "-m", str(write_model()), "-m", "toy-120", "-device", "cpu"]
    with ModelComparisonProcess(words) as process:
        process.arguments += ("-o", str(process.work_folder / "table.csv"))
        process.start()
        assert process.wait() == "finished", process.log
        with (process.work_folder / "table.csv").open(encoding="utf-8") as file:
            assert {row["Case"] for row in csv.DictReader(file)} == {"b"}
    assert process.result["cases"] == ["b"] and len(process.result["faults"]) == 1
    with ModelComparisonProcess([str(tmp_path), *words[1:]]) as process:
        process.start()
        assert process.wait() == "failed"
    assert process.error.startswith(f"{tmp_path} is not a training folder")


class Printing(ChildProcess):
    """Prints a bar, and an error of more lines than a line of the log may have letters."""

    memory = ""

    def _command(self):
        event = {"event": "error", "message": "Dataset has 20 faults:\n" + "\n".join(["- " + 300 * "x"] * 20)}
        return ["-c", f"import sys; sys.stderr.write('1/2\\r2/2\\n'); print({json.dumps(json.dumps(event))})"]


def test_the_log_has_all_lines_of_an_error_and_the_last_state_of_a_bar():
    with Printing() as process:
        process.start()
        assert process.wait() == "failed"
    lines = process.log.splitlines()
    assert "2/2" in lines and not any("1/2" in line for line in lines[1:])
    assert "Dataset has 20 faults:" in lines and lines.count("- " + 300 * "x") == 20


def test_the_trainer_is_found_beside_the_library_or_in_the_checkout(tmp_path, monkeypatch):
    assert [folder.name for folder in module.trainer_folders()] == ["training"]
    installed = tmp_path / "qt-scripted-modules" / "ClassScaleSegLib" / "process" / "training.py"
    (tmp_path / "qt-scripted-modules" / "classscale_training").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(installed))
    assert module.trainer_folders() == []
