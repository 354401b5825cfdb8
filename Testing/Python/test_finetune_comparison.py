"""The end of ``classscaleseg-train finetune``: the model before and now, on cases that it has not seen."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nnunetv2")
import collect_cases  # noqa: E402
from classscale_training.nnunet.finetuning import work as finetune_work  # noqa: E402
from ClassScaleSegLib.images.paired_reading import read_segmentation  # noqa: E402
from ClassScaleSegLib.process.exit_codes import ExitCode  # noqa: E402
from finetune_steps import ALL, FACTS, NAMES, corrected, events_in, finetune, steps  # noqa: E402, F401


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


def test_a_comparison_that_fails_leaves_no_table_of_an_earlier_one(steps, corrected):
    corrected.case("b", NAMES)
    assert finetune(corrected, "--fold", 0) == 0
    call = steps.calls[-1]
    table, facts = Path(call[call.index("-o") + 1]), Path(call[call.index("--results") + 1], "comparison.json")
    table.write_text("of the models before")
    steps.failing = "compare-models"
    assert facts.is_file() and finetune(corrected, "--fold", 0, "--overwrite") == 0
    again = steps.calls[-1]
    assert again[again.index("-o") + 1] == str(table), "the same place"
    assert not table.exists() and not facts.exists()


def test_an_earlier_table_that_cannot_be_removed_is_named(steps, corrected, capsys):
    corrected.case("b", NAMES)
    assert finetune(corrected, "--fold", 0) == 0
    call = steps.calls[-1]
    table = Path(call[call.index("-o") + 1])
    table.mkdir()  # to remove it fails for any user
    assert finetune(corrected, "--fold", 0, "--overwrite") == 0
    assert f"could not be compared: {table} cannot be written" in capsys.readouterr().out


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
    assert f" --results {corrected.folder.parent / 'mine.training' / 'compared'}" in said  # it goes on there


def test_cases_that_cannot_be_divided_again_leave_the_new_model(steps, corrected, capsys):
    corrected.case("b", NAMES)
    assert finetune(corrected, "--fold", 0) == 0
    work = corrected.folder.parent / "mine.training"
    for file in work.rglob("splits_final.json"):
        file.unlink()
    assert finetune(corrected, "--fold", 0, "--overwrite") == 0
    said = capsys.readouterr().out
    assert "could not be compared: " in said and "splits_final.json cannot be read" in said
    assert f"--labels {work / 'raw' / 'Dataset001_Cases' / 'labels.csv'} --names before now --results {work}" in said
