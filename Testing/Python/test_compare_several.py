"""``classscaleseg compare`` with several others: two models side by side, on the cases that both have."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.commands.compare_lines import several_lines
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images.comparison import COLUMNS, ClassComparison

SHAPE = (8, 10, 12)
GRID = Geometry(SHAPE[::-1], (1.0, 1.0, 2.0), (-5.0, 7.0, 3.0))
NAMES = LabelTable.from_names({1: "liver", 2: "spleen", 3: "cyst"})
OTHERS = LabelTable.from_names({5: "Spleen", 6: "Liver", 9: "never drawn"})


def drawing(liver: int, spleen: int, more: bool = False, table: LabelTable = NAMES) -> Segmentation:
    """Return a liver and a spleen of so many rows; those of the reference have 4 and 2."""
    values = (1, 2, 3) if table is NAMES else (6, 5, 9)
    labels = np.zeros(SHAPE, np.uint16)
    labels[0, :liver], labels[1, :spleen], labels[2] = values[0], values[1], values[2] * more
    return Segmentation(labels, table, GRID)


@pytest.fixture
def folders(tmp_path):
    """Livers of 4 rows: the old model finds 2 or 4 (Dice 2/3, 1), the new one 4 (1, 1); only the old one has ``c``."""
    for folder, cases in {
        "drawn": {"a": (4, 2, True), "b": (4, 2), "c": (4, 2)},
        "old": {"a": (2, 2), "b": (4, 1), "c": (1, 1)},
        "new": {"a": (4, 1, True, OTHERS), "b": (4, 1, False, OTHERS)},
    }.items():
        (tmp_path / folder).mkdir()
        for case, drawn in cases.items():
            drawing(*drawn).write(tmp_path / folder / f"{case}.seg.nrrd")
    return [str(tmp_path / name) for name in ("drawn", "old", "new")]


def test_two_models_are_shown_beside_each_other_on_the_cases_of_both(folders, tmp_path, capsys):
    table = tmp_path / "all.csv"
    assert main(["compare", *folders, "-o", str(table)]) == ExitCode.SOME_FAILED  # c is not in both
    output, error = capsys.readouterr()
    assert f"Only in {folders[0]}, not in {folders[2]}: c\n" in error
    lines = [line.split() for line in output.splitlines()]
    assert lines[0] == ["structure", "cases", "old", "new", "change"]
    assert lines[1] == ["liver", "2", "0.833", "1.000", "+0.167"]
    assert lines[2] == ["spleen", "2", "0.833", "0.667", "-0.167"]
    assert lines[3] == ["cyst", "0"]
    assert output.splitlines()[4:] == [
        "Mean Dice over the 2 structures of 2 cases that all of them have: old 0.833, new 0.833.",
        "new is better in 1, worse in 1, and the same in the others.",
    ]
    rows = list(csv.reader(table.open(encoding="utf-8")))
    assert rows[0] == ["Case", "Other", *COLUMNS]
    assert [row[:3] + row[5:6] for row in rows if row[2] == "liver"] == [
        ["a", "old", "liver", "0.666667"],
        ["b", "old", "liver", "1"],
        ["a", "new", "liver", "1"],
        ["b", "new", "liver", "1"],
    ]


def test_what_the_reference_lacks_is_told_once(folders, capsys):
    drawing(4, 0).write(f"{folders[0]}/b.seg.nrrd", overwrite=True)
    assert main(["compare", *folders]) == ExitCode.SOME_FAILED
    error = capsys.readouterr().err
    assert error.count(f"Structures that {folders[0]} lacks have no Dice there: b (spleen)\n") == 1


def test_a_change_too_small_to_be_seen_has_no_minus():
    before, now = ({"a": [ClassComparison("liver", 1, 1, dice, 1.0, 1.0)]} for dice in (0.9, 0.8997))
    _title, line, _mean, changes = several_lines(["old", "new"], [before, now], False)
    assert line.split() == ["liver", "0.900", "0.900", "+0.000"]
    assert changes == "new is better in 0, worse in 0, and the same in the others."


def test_json_has_a_value_for_each(folders, capsys):
    assert main(["compare", *folders, folders[1], "--json"]) == ExitCode.SOME_FAILED
    facts = json.loads(capsys.readouterr().out)
    assert facts["structures"][0] == {
        "name": "liver",
        "cases": 2,
        "dice": [pytest.approx(5 / 6), 1, pytest.approx(5 / 6)],
    }
    assert facts["structures"][2] == {"name": "cyst", "cases": 0, "dice": [None, None, None]}
    assert facts["structures_of_all"] == 2 and facts["mean_dice_of_all"] == pytest.approx([5 / 6] * 3)
    assert [other["path"] for other in facts["others"]] == [folders[1], folders[2], folders[1]]
    assert [list(other["cases"]) for other in facts["others"]] == [["a", "b"]] * 3
    assert facts["others"][1]["without_other"] == ["c"]


def test_a_structure_that_one_model_does_not_know_is_compared_without_it(folders, capsys):
    for case in "ab":
        only = Segmentation(drawing(4, 0).labels, LabelTable.from_names({1: "liver"}), GRID)
        only.write(f"{folders[2]}/{case}.seg.nrrd", overwrite=True)
    main(["compare", *folders])
    output = capsys.readouterr().out
    assert [line.split() for line in output.splitlines()[1:3]] == [
        ["liver", "2", "0.833", "1.000", "+0.167"],
        ["spleen", "2", "0.833"],
    ]
    assert "Mean Dice over the 1 structure of 2 cases that all of them have: old 0.833, new 1.000." in output


def test_a_case_that_cannot_be_read_of_one_counts_for_none(folders, capsys):
    with open(f"{folders[2]}/a.seg.nrrd", "wb") as file:
        file.write(b"broken")
    assert main(["compare", *folders]) == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    assert "a.seg.nrrd" in error and ["liver", "1", "1.000", "1.000", "+0.000"] in map(str.split, output.splitlines())


def test_files_of_one_case_can_be_compared_with_several(folders, capsys):
    files = [f"{folder}/a.seg.nrrd" for folder in folders]
    assert main(["compare", *files, files[0]]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["structure", "old/a.seg.nrrd", "new/a.seg.nrrd", "drawn/a.seg.nrrd"]
    assert lines[1].split() == ["liver", "0.667", "1.000", "1.000"] and lines[3].split() == ["cyst", "1.000"]
    assert lines[4].startswith("Mean Dice over the 2 structures that all of them have: old/a.seg.nrrd 0.833")
    assert main(["compare", files[0], files[1], folders[2]]) == ExitCode.IMAGE
    assert "give two files, or two folders" in capsys.readouterr().err


def test_nothing_in_common_is_said(folders, tmp_path, capsys):
    (tmp_path / "else").mkdir()
    drawing(1, 1).write(tmp_path / "else" / "z.seg.nrrd")
    main(["compare", *folders, str(tmp_path / "else")])
    assert "No case is in all folders." in capsys.readouterr().out
    strange = Segmentation(drawing(4, 0).labels, LabelTable.from_names({1: "bone"}), GRID)
    for case in "ab":
        strange.write(f"{folders[2]}/{case}.seg.nrrd", overwrite=True)
    main(["compare", *folders])
    assert "No structure is in all of them." in capsys.readouterr().out
