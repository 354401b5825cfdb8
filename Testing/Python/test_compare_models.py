"""``classscaleseg-train compare-models``: models side by side on drawn cases."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nnunetv2")
from classscale_training import commands  # noqa: E402
from classscale_training.evaluation import unfinished  # noqa: E402
from classscale_training.evaluation.drawn_cases import without_common_classes  # noqa: E402
from classscale_training.evaluation.model_results import Candidate  # noqa: E402
from classscale_training.evaluation.models_report import Report  # noqa: E402
from ClassScaleSegLib import Segmentation  # noqa: E402
from ClassScaleSegLib.catalog.catalog import data_folder  # noqa: E402
from ClassScaleSegLib.cohort.records import FOLDER  # noqa: E402
from ClassScaleSegLib.commands import job_models  # noqa: E402
from ClassScaleSegLib.files import unwritable  # noqa: E402
from ClassScaleSegLib.process.exit_codes import ExitCode  # noqa: E402
from collect_cases import GRID, SHAPE, Training, boxes, save  # noqa: E402
from conftest import small_dataset  # noqa: E402
from user_data import data_environment  # noqa: E402

NAMES = {1: "organ 1", 2: "something else"}


class Crash(SystemExit):
    """Ends the command where it is, as a signal does."""


@pytest.fixture
def model(write_model):
    return str(write_model())


@pytest.fixture
def drawn(tmp_path) -> Training:
    training = Training(tmp_path)
    for case in "ab":
        training.case(case, NAMES)
    return training


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The folder of unfinished comparisons."""
    for name, value in data_environment(tmp_path / "data").items():
        monkeypatch.setenv(name, value)
    return data_folder() / "comparisons"


def run(*words: object) -> int:
    return commands.main(["compare-models", *map(str, words), "-device", "cpu"])


def segmented_until(number: int, monkeypatch: pytest.MonkeyPatch, *words: object) -> list[str]:
    """Run a comparison that crashes when it has begun so many segmentations, and return what they were."""
    begun: list[str] = []

    def begin(report: Report, done: int, total: int, what: str) -> None:
        begun.append(what)
        if len(begun) == number:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Report, "case", begin)
        with pytest.raises(Crash):
            run(*words)
    return begun


def cut_short(file: Path) -> None:
    """Take away the end of a file, so that its header is whole and its voxels are not."""
    file.write_bytes(file.read_bytes()[:-100])


def without_numbers(image: Path) -> None:
    """Replace an image by one that can be read, but not segmented."""
    save(np.full(SHAPE, np.nan, np.float32), image)


def test_two_models_are_shown_side_by_side(drawn, model, tmp_path, capsys):
    results, table = tmp_path / "results", tmp_path / "all.csv"
    words = [drawn.folder, "-m", model, "-m", "toy-120", "--names", "old: 1", "new", "-o", table, "--results", results]
    assert run(*words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["old: 1: a (1 of 4)", "old: 1: b (2 of 4)", "new: a (3 of 4)", "new: b (4 of 4)"]
    assert lines[4].split() == ["structure", "cases", "old:", "1", "new", "change"]
    organ, other = (next(line for line in lines if line.startswith(name)) for name in NAMES.values())
    assert organ.split()[2] == "2" and len(organ.split()) == 4 and other.split() == ["something", "else", "0"]
    assert lines[-1] == "No structure is in all of them."
    files = (file.relative_to(results) for file in results.rglob("*.*"))
    assert sorted(str(file) for file in files if FOLDER not in file.parts) == [
        *(f"{folder}/{case}.seg.nrrd" for folder in ("1-old-1", "2-new") for case in "ab"),
        "comparison.json",
    ]
    facts = json.loads((results / "comparison.json").read_text())
    assert facts["cases"] == ["a", "b"] and facts["names"] == ["old: 1", "new"] and facts["mean_dice"][1] is None
    assert facts["structures"][0]["dice"][0] == pytest.approx(facts["mean_dice"][0]) and facts["mean_dice_of_all"] == []
    with table.open(encoding="utf-8") as file:
        rows = [(row["Case"], row["Other"]) for row in csv.DictReader(file) if row["Name"] == "organ 1"]
    assert rows == [("a", "old: 1"), ("b", "old: 1"), ("a", "new"), ("b", "new")]
    assert run(*words) == ExitCode.OUTPUT, "neither table nor results are replaced unasked"


def test_results_that_cannot_be_written_are_said_in_a_sentence(drawn, model, tmp_path, capsys):
    (results := tmp_path / "results").mkdir()
    (results / "1-old").touch()
    assert run(drawn.folder, "-m", model, "--names", "old", "--results", results) == ExitCode.OUTPUT
    assert f"{results / '1-old' / 'a.seg.nrrd'} cannot be written" in capsys.readouterr().err


def test_a_model_is_freed_before_the_next_one_is_opened(drawn, model, monkeypatch):
    opened: list[weakref.ref] = []
    open_model = job_models.open_model

    def opening(*arguments):
        assert not any(ref() for ref in opened), "two networks are in memory"
        found = open_model(*arguments)
        opened.append(weakref.ref(found))
        return found

    monkeypatch.setattr(job_models, "open_model", opening)
    without_numbers(drawn.images / "b_0000.nii.gz")  # the error of this case does not keep the network either
    assert run(drawn.folder, "-m", model, "-m", "toy-120") == ExitCode.SOME_FAILED and len(opened) == 2


def test_what_was_segmented_before_a_crash_is_used_again(drawn, model, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    words = [drawn.folder, "-m", model, "-m", "toy-120", "--names", "old", "new", "--results", results]
    assert segmented_until(3, monkeypatch, *words) == ["old: a", "old: b", "new: a"]
    first = results / "1-old" / "a.seg.nrrd"
    (left := first.with_name(".0123456789ab.seg.nrrd")).touch()  # by a process that was killed while it wrote
    before = first.stat()
    capsys.readouterr()
    assert run(*words) == 0
    output, error = capsys.readouterr()
    assert output.startswith("new: a (3 of 4)\nnew: b (4 of 4)\n")
    assert error.splitlines()[2] == "Of 4 segmentations, 2 are there already."
    assert first.stat() == before and not left.exists()
    drawn.case("a", NAMES, boxes(2, 1))  # corrected
    drawn.image("b", grid=replace(GRID, spacing=(1.0, 1.0, 1.0)))  # another image
    assert run(*words, "--overwrite", "--json-progress") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(event["done"], "remaining" in event) for event in events if "done" in event] == [(2, False), (3, True)]
    assert first.stat() == before and events[-1]["cases"] == ["a", "b"]


def test_two_comparisons_in_one_folder_are_refused(drawn, model, tmp_path, monkeypatch, capsys):
    words = [drawn.folder, "-m", model, "--cases", "a", "--results", tmp_path / "results"]
    codes = []
    monkeypatch.setattr(Report, "case", lambda *case: codes.append(run(*words)))
    assert run(*words) == 0 and codes == [ExitCode.FAULT]
    assert "results is being used by another process" in capsys.readouterr().err


def test_without_a_folder_an_unfinished_comparison_goes_on_where_it_stopped(drawn, model, home, monkeypatch, capsys):
    words = [drawn.folder, "-m", model, "-m", "toy-120"]
    segmented_until(1, monkeypatch, *words)
    assert list(home.iterdir()) == [], "there is nothing to keep"
    segmented_until(3, monkeypatch, *words)
    (kept,) = home.iterdir()
    assert kept.stat().st_mode & 0o077 == 0 or os.name == "nt"
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("What the models have found so far is kept for 7 days") and str(kept) in said
    (drawn.segmentations / "b.seg.nrrd").write_bytes(b"damaged")
    assert run(*words) == ExitCode.SOME_FAILED
    assert said in capsys.readouterr().err
    drawn.case("b", NAMES)
    capsys.readouterr()
    assert run(*words) == 0 and capsys.readouterr().out.startswith("Toy atlas, 120 classes: b (4 of 4)\nstructure ")
    assert list(home.iterdir()) == []


def test_a_comparison_of_other_cases_or_with_another_drawing_disturbs_none(drawn, model, home, tmp_path, monkeypatch):
    words = ["-i", drawn.images, "-m", model]
    segmented_until(2, monkeypatch, *words, "-s", drawn.segmentations)
    (kept,) = home.iterdir()
    there = {file: file.stat().st_mtime_ns for file in kept.rglob("*")}
    shutil.copytree(drawn.segmentations, tmp_path / "of somebody else")
    meanwhile = []

    def begin(report: Report, done: int, total: int, what: str) -> None:
        if not meanwhile:
            meanwhile.append(None)
            meanwhile[0] = run(*words, "-s", tmp_path / "of somebody else")

    with monkeypatch.context() as patch:
        patch.setattr(Report, "case", begin)
        assert run(*words, "-s", drawn.segmentations, "--cases", "b") == 0 and meanwhile == [0]
    assert {file: file.stat().st_mtime_ns for file in kept.rglob("*")} == there and list(home.iterdir()) == [kept]


def test_a_comparison_that_nobody_goes_on_with_is_removed_after_a_week(drawn, model, home, monkeypatch):
    segmented_until(2, monkeypatch, drawn.folder, "-m", model)
    (kept,) = home.iterdir()
    for days, there in ((6, True), (8, False)):
        for file in (kept, *kept.rglob("*")):
            os.utime(file, (0, time.time() - days * 24 * 3600))
        assert run(drawn.folder, "-m", model, "-m", "toy-120", "--cases", "a") == 0
        assert list(home.iterdir()) == [kept] * there


def test_where_nobody_can_tell_what_is_locked_a_comparison_is_removed_after_a_week(drawn, model, home, monkeypatch):
    segmented_until(2, monkeypatch, drawn.folder, "-m", model)
    (kept,) = home.iterdir()
    for file in (kept, *kept.rglob("*")):
        os.utime(file, (0, time.time() - 8 * 24 * 3600))
    for held, there in ((True, [kept]), (None, [])):  # None: its file system has no locks
        monkeypatch.setattr(unfinished, "is_locked", lambda lock, held=held: held)
        assert run(drawn.folder, "-m", model, "--cases", "a") == 0
        assert list(home.iterdir()) == there


def test_a_home_that_cannot_be_written_keeps_nothing(drawn, model, home, capsys):
    home.parent.mkdir(parents=True)
    home.touch()
    (drawn.segmentations / "b.seg.nrrd").write_bytes(b"damaged")
    assert run(drawn.folder, "-m", model) == ExitCode.SOME_FAILED
    assert " is kept " not in capsys.readouterr().err


def test_a_comparison_that_could_write_nothing_leaves_nothing_behind(drawn, model, home, monkeypatch, capsys):
    def full(found, file, *arguments):
        raise unwritable(file, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(Segmentation, "write", full)
    assert run(drawn.folder, "-m", model) == ExitCode.OUTPUT
    said = capsys.readouterr().err
    assert "cannot be written (No space left on device)" in said and " is kept " not in said
    assert list(home.iterdir()) == []


def test_a_table_that_cannot_be_written_costs_no_segmentation(drawn, model, home, tmp_path, monkeypatch, capsys):
    table, results = tmp_path / "tables" / "all.csv", tmp_path / "results"
    kept = [drawn.folder, "-m", model, "-o", table, "--results", results]
    with monkeypatch.context() as patch:
        patch.setattr(Report, "case", lambda *case: table.parent.write_text("a file where a folder was to be"))
        assert run(*kept) == ExitCode.OUTPUT
    assert not (results / "comparison.json").exists(), "nobody may take it for done"
    table.parent.unlink()
    words = [drawn.folder, "-m", model, "-o", table]
    with monkeypatch.context() as patch:
        patch.setattr(Report, "case", lambda *case: table.parent.write_text("a file where a folder was to be"))
        assert run(*words) == ExitCode.OUTPUT
    said = capsys.readouterr().err
    assert "all.csv cannot be written" in said and " is kept for 7 days" in said
    table.parent.unlink()
    assert run(*words) == 0 and "Of 2 segmentations, 2 are there already." in capsys.readouterr().err
    assert table.is_file() and list(home.iterdir()) == []


def test_another_model_of_the_same_name_segments_again(drawn, model, write_model, tmp_path, monkeypatch, capsys):
    words = [drawn.folder, "-m", model, "--results", tmp_path / "results"]
    assert len(segmented_until(2, monkeypatch, *words)) == 2
    write_model(seeds=(1,))
    capsys.readouterr()
    assert run(*words) == 0 and "(1 of 2)" in capsys.readouterr().out


def test_a_model_that_is_replaced_meanwhile_is_refused(drawn, model, write_model, monkeypatch, capsys):
    monkeypatch.setattr(Report, "case", lambda *case: write_model(seeds=(1,)))
    assert run(drawn.folder, "-m", "toy-120", "-m", model, "--names", "toy", "mine") == ExitCode.MODEL
    assert "mine has been replaced by another model since the comparison began." in capsys.readouterr().err


def test_results_that_somebody_has_changed_are_replaced_only_if_asked(drawn, model, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    words = [drawn.folder, "-m", model, "--names", "old", "--results", results]
    assert len(segmented_until(2, monkeypatch, *words)) == 2
    (file := results / "1-old" / "a.seg.nrrd").write_bytes(b"mine")
    assert run(*words) == ExitCode.OUTPUT
    output, error = capsys.readouterr()
    assert f"{file} is not as old has made it." in error and file.read_bytes() == b"mine"
    assert run(*words, "--overwrite") == 0 and file.read_bytes() != b"mine"


def test_models_of_other_channels_are_refused_before_anything_is_done(drawn, model, write_model, tmp_path, capsys):
    two = write_model(dataset=small_dataset(channels=2), root=tmp_path / "two")
    words = [drawn.folder, "-m", model, "-m", two, "--names", "one", "two"]
    assert run(*words) == ExitCode.FAULT
    output, error = capsys.readouterr()
    assert "take different numbers of images of a case: one 1, two 2." in error and output == ""


def test_a_segmentation_without_an_image_is_named_and_left_out(drawn, model, capsys):
    drawn.image("a", "_0001.nii.gz")
    assert run(drawn.folder, "-m", model) == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    assert output.startswith("Dataset007_Small: b (1 of 1)")
    assert "If a_0000, a_0001 ... are its channels, choose a model that takes as many." in error and "--" not in error
    drawn.image("b", "_0001.nii.gz")
    assert run(drawn.folder, "-m", model) == ExitCode.IMAGE
    output, error = capsys.readouterr()
    assert "No case could be compared. " in error and "If b_0000, b_0001 ..." in error and output == ""


def test_a_single_model_is_compared_with_what_is_drawn(drawn, model, capsys):
    folders = ["-i", drawn.images, "-s", drawn.segmentations]
    assert run(*folders, "-m", model, "--cases", "b") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [
        "structure",
        "cases",
        "mean",
        "Dice",
        "least",
        "Dice",
        "of",
        "case",
        "mean",
        "difference",
        "mL",
    ]
    assert lines[2].split()[:3] == ["organ", "1", "1"] and "(1 of 1)" in lines[0]


def test_what_is_wrong_with_cases_is_said_before_anything_is_segmented(drawn, model, capsys):
    for case in "cd":
        drawn.case(case, NAMES)
    (drawn.images / "a_0000.nii.gz").write_bytes(b"damaged")
    (drawn.segmentations / "c.seg.nrrd").write_bytes(b"damaged")
    cut_short(drawn.segmentations / "d.seg.nrrd")
    words = [drawn.folder, "-m", model, "-m", "toy-120", "--json-progress"]
    assert run(*words) == ExitCode.SOME_FAILED
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = [event["message"] for event in events[: [event["event"] for event in events].index("progress")]]
    for file in ("a_0000.nii.gz", "c.seg.nrrd", "d.seg.nrrd"):
        assert any(f"{file} " in sentence for sentence in said)
    assert said[-1] == "Toy atlas, 120 classes has none of the structures that are drawn."
    assert events[-1]["cases"] == ["b"] and len(events[-1]["faults"]) == 3
    (drawn.segmentations / "b.seg.nrrd").write_bytes(b"damaged")
    assert run(*words[:-1]) == ExitCode.FAULT
    output, error = capsys.readouterr()
    assert "No case could be compared. The last fault was: " in error and output == ""


def test_channels_on_other_grids_are_said_before_anything_is_segmented(drawn, write_model, tmp_path, capsys):
    two = write_model(dataset=small_dataset(channels=2), root=tmp_path / "two")
    for case in "ab":
        drawn.image(case, "_0001.nii.gz", replace(GRID, spacing=(1.0, 1.0, 1.0)))
    assert run(drawn.folder, "-m", two) == ExitCode.FAULT
    output, error = capsys.readouterr()
    assert "the channels have different grids" in error and output == ""


def test_models_that_know_nothing_of_what_is_drawn_are_refused(drawn, capsys):
    assert run(drawn.folder, "-m", "toy-120") == ExitCode.FAULT
    output, error = capsys.readouterr()
    assert "The model has none of the structures that are drawn. What is drawn is organ 1, something else." in error
    assert output == ""
    for case in "ab":
        drawn.case(case, NAMES, boxes(0))
    assert run(drawn.folder, "-m", "toy-120", "-m", "toy-1000") == ExitCode.FAULT
    output, error = capsys.readouterr()
    assert "The models have none of the structures that are drawn. Nothing is drawn." in error and output == ""


def test_a_second_model_whose_weights_are_damaged_is_refused_before_the_first_one_segments(drawn, model, capsys):
    cut_short(next(Path(model).rglob("checkpoint_final.pth")))
    assert run(drawn.folder, "-m", "toy-120", "-m", model) == ExitCode.MODEL
    output, error = capsys.readouterr()
    assert "checkpoint_final.pth" in error and output == ""


def test_a_case_that_cannot_be_segmented_counts_for_no_model(drawn, model, capsys):
    without_numbers(drawn.images / "a_0000.nii.gz")
    assert run(drawn.folder, "-m", model, "-m", "toy-120") == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    assert "a_0000.nii.gz" in error and "(4 of 4)" in output and "(2 of 4)" not in output and "organ 1" in output


def test_programs_are_told_by_json_lines(drawn, model, capsys):
    without_numbers(drawn.images / "a_0000.nii.gz")
    words = [drawn.folder, "-m", model, "-m", "toy-120", "--names", "old", "new", "--json-progress"]
    assert run(*words) == ExitCode.SOME_FAILED
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    progress = [event for event in events if event["event"] == "progress"]
    assert [(event["stage"], event["done"], event["total"]) for event in progress] == [
        ("segment", done, 4) for done in (0, 2, 3)
    ], "the damaged case is left out for the second model"
    assert "remaining" not in progress[0] and progress[1]["remaining"] >= 0
    said = [event["message"] for event in events if event["event"] == "message"]
    assert said[:2] == ["old and new have no class in common.", "new has none of the structures that are drawn."]
    assert "old: a" in said
    result = events[-1]
    assert (result["event"], result["names"], result["cases"]) == ("result", ["old", "new"], ["b"])
    assert result["structures"][0]["name"] == "organ 1" and result["structures"][0]["dice"][1] is None
    assert result["without_common_classes"] == [["old", "new"]]
    assert len(result["faults"]) == 1 and "a_0000.nii.gz" in result["faults"][0]
    (drawn.segmentations / "b.seg.nrrd").write_bytes(b"damaged")
    assert run(*words) == ExitCode.FAULT
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["event"] == "error" and last["message"].startswith("No case could be compared.")


def test_models_have_a_class_in_common_by_its_name_or_its_code(write_model, tmp_path):
    one, other = (
        write_model(dataset=small_dataset({"background": 0, name: 1}), root=tmp_path / name)
        for name in ("kidney_left", "Left kidney")
    )
    models = [Candidate(str(path), name) for path, name in ((one, "one"), (other, "other"), ("toy-120", "toy"))]
    assert without_common_classes(models) == [("one", "toy"), ("other", "toy")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-m", "toy-120", "-m", "toy-120"], "give each a name of its own (--names)"),
        (["-m", "toy-120", "--names", "a", "b"], "1 models have the names a, b"),
        (["-m", "toy-120", "--cases", "a", "z"], "z: no image in "),
        (["-m", "toy-12"], "toy-12"),
        (["-m", "toy-120", "-o", "table.txt"], "Use one of .csv, .xlsx"),
        (["-m", "toy-120", "-i", "else"], "Give a training folder, or both"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_done(drawn, words, sentence, capsys):
    assert run(drawn.folder, *words) != 0
    output, error = capsys.readouterr()
    assert sentence in error and output == ""
