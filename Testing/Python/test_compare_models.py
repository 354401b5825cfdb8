"""``classscaleseg-train compare-models``: models side by side on drawn cases."""

from __future__ import annotations

import csv
import json
import weakref

import pytest

pytest.importorskip("nnunetv2")
from classscale_training import commands  # noqa: E402
from classscale_training.evaluation.drawn_cases import Candidate, without_common_classes  # noqa: E402
from ClassScaleSegLib.process.exit_codes import ExitCode  # noqa: E402
from collect_cases import Training  # noqa: E402
from conftest import small_dataset  # noqa: E402

NAMES = {1: "organ 1", 2: "something else"}


@pytest.fixture
def model(write_model):
    return str(write_model())


@pytest.fixture
def drawn(tmp_path) -> Training:
    training = Training(tmp_path)
    for case in "ab":
        training.case(case, NAMES)
    return training


def run(*words: object) -> int:
    return commands.main(["compare-models", *map(str, words), "-device", "cpu"])


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
    assert sorted(str(file.relative_to(results)) for file in results.rglob("*.*")) == [
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


def test_results_that_cannot_be_written_are_said_in_a_sentence(drawn, tmp_path, capsys):
    (results := tmp_path / "results").mkdir()
    (results / "1-old").touch()
    assert run(drawn.folder, "-m", "toy-120", "--names", "old", "--results", results) == ExitCode.OUTPUT
    assert f"{results / '1-old' / 'a.seg.nrrd'} cannot be written" in capsys.readouterr().err


def test_a_model_is_freed_before_the_next_one_is_opened(drawn, model, monkeypatch):
    opened: list[weakref.ref] = []
    find = Candidate.found

    class Run:
        def __init__(self, candidate: Candidate) -> None:
            assert not any(ref() for ref in opened), "two networks are in memory"
            self.run = find(candidate).run
            opened.append(weakref.ref(self))

        def __call__(self, image):
            return self.run(image)

    class Found:
        channels = 1

        def __init__(self, candidate: Candidate) -> None:
            self.candidate, self.table = candidate, find(candidate).table

        @property
        def run(self) -> Run:
            return Run(self.candidate)

    monkeypatch.setattr(Candidate, "found", lambda candidate: Found(candidate))
    assert run(drawn.folder, "-m", model, "-m", "toy-120") == 0 and len(opened) == 2


def test_models_of_other_channels_are_refused_before_anything_is_done(drawn, model, write_model, tmp_path, capsys):
    two = write_model(dataset=small_dataset(channels=2), root=tmp_path / "two")
    words = [drawn.folder, "-m", model, "-m", two, "--names", "one", "two"]
    assert run(*words) == ExitCode.FAULT
    output, error = capsys.readouterr()
    assert "take different numbers of images of a case: one 1, two 2." in error and output == ""


def test_cases_with_more_images_than_the_models_take_are_refused(drawn, model, capsys):
    drawn.image("a", "_0001.nii.gz")
    assert run(drawn.folder, "-m", model) == ExitCode.IMAGE
    said = capsys.readouterr().err
    assert "If a_0000, a_0001 ... are its channels, choose a model that takes as many." in said and "--" not in said


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


def test_a_case_that_cannot_be_read_counts_for_no_model(drawn, model, capsys):
    (drawn.images / "a_0000.nii.gz").write_bytes(b"damaged")
    assert run(drawn.folder, "-m", model, "-m", "toy-120") == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    assert "a_0000.nii.gz" in error and "(3 of 4)" in output and "organ 1" in output
    (drawn.segmentations / "b.seg.nrrd").write_bytes(b"damaged")
    assert run(drawn.folder, "-m", model) == ExitCode.FAULT
    assert "No case could be compared. The last fault was: " in capsys.readouterr().err


def test_programs_are_told_by_json_lines(drawn, model, capsys):
    (drawn.images / "a_0000.nii.gz").write_bytes(b"damaged")
    words = [drawn.folder, "-m", model, "-m", "toy-120", "--names", "old", "new", "--json-progress"]
    assert run(*words) == ExitCode.SOME_FAILED
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    progress = [event for event in events if event["event"] == "progress"]
    assert [(event["stage"], event["done"], event["total"]) for event in progress] == [
        ("segment", done, 4) for done in (0, 1, 2)
    ], "the damaged case is left out for the second model"
    assert "remaining" not in progress[0] and progress[1]["remaining"] >= 0
    said = [event["message"] for event in events if event["event"] == "message"]
    assert said[0] == "old and new have no class in common." and "old: a" in said
    assert said[-1] == "new has none of the structures that are drawn."
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
