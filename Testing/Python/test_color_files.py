"""Label tables that are colour tables of other programs."""

from __future__ import annotations

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.errors import LabelTableError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SLICER = """# Color table file names.ctbl
# 3 values
0 background 0 0 0 0
5 kidney_left 185 102 83 255
7 'my_cyst' 1 2 3 255
9 (none) 0 0 0 0
"""
FREESURFER = """#$Id: FreeSurferColorLUT.txt $
#No. Label Name:                            R   G   B   A

0   Unknown                                 0   0   0   0
5   kidney_left                             185 102 83  0
\t7\tmy cyst\t1\t2\t3\t0
9   3rd 4                                   1   2   3   0   # found in babies
"""
SNAP = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
    0     0    0    0        0  0  0    "Clear Label"
    5   185  102   83        1  1  1    "kidney_left"
    7     1    2    3      0.5  0  1    "my cyst"
    9     1    2    3        1  1  1    "5 ""quoted"" # name"
"""
BIDS = "index\tname\tabbreviation\tcolor\n0\tbackground\tbg\tn/a\n5\tkidney_left\tK\t#b96653\n7\tmy cyst\tn/a\t010203\n"


@pytest.mark.parametrize(
    ("name", "text", "nine"),
    [
        ("names.ctbl", SLICER, "label 9"),
        ("names.txt", SLICER, "label 9"),
        ("FreeSurferColorLUT.txt", FREESURFER, "3rd 4"),
        ("lut.ctab", FREESURFER, "3rd 4"),
        ("snap.txt", SNAP, "5 ''quoted'' # name"),
        ("snap.LABEL", SNAP, "5 ''quoted'' # name"),
        ("a_dseg.tsv", BIDS, None),
        ("windows.ctbl", "\ufeff" + SLICER.replace("\n", "\r\n"), "label 9"),
    ],
)
def test_names_colours_and_codes_are_read(tmp_path, name, text, nine):
    (tmp_path / name).write_bytes(text.encode())
    table = LabelTable.from_file(tmp_path / name)
    assert table[5].name == "kidney_left" and table[5].color == (185, 102, 83)
    assert table[5].type_modifier.meaning == "Left"
    assert table[7].name.replace("_", " ") == "my cyst" and table[7].color == (1, 2, 3)
    assert len(table) == (4 if nine else 3) and (nine is None or table[9].name == nine)


def test_a_table_of_slicer_may_have_any_of_these_names(tmp_path):
    table = LabelTable.from_names({1: "liver", 2: "my cyst"})
    for name, text in (("a.txt", table.to_csv()), ("a.tsv", table.to_csv().replace(",", "\t"))):
        (tmp_path / name).write_text(text)
        assert LabelTable.from_file(tmp_path / name) == table


def test_what_slicer_writes_is_read(tmp_path):
    slicer = pytest.importorskip("slicer")
    node, storage = slicer.vtkMRMLColorTableNode(), slicer.vtkMRMLColorTableStorageNode()
    node.SetTypeToUser()
    node.SetNumberOfColors(6)
    node.SetColor(5, "left kidney", 185 / 255, 102 / 255, 83 / 255, 1)
    storage.SetFileName(str(tmp_path / "names.ctbl"))
    assert storage.WriteData(node)
    label = LabelTable.from_file(tmp_path / "names.ctbl").by_name("left kidney")
    assert (label.value, label.color, label.type_modifier.meaning) == (5, (185, 102, 83), "Left")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ctbl", b"1 liver 255 0 0 255\n1 spleen 1 2 3 255\n", "line 2: label value 1 was used before, by liver"),
        ("a.ctbl", b"# nothing\n\n", "has no label. Each line of a colour table is one: value, name, red"),
        ("a.ctbl", b"", "has no label"),
        ("a.txt", b"\n1 liver\n", 'line 2: "1 liver" is no label'),
        ("a.txt", b"1 liver 255 0\n", 'line 1: "1 liver 255 0" is no label'),
        ("a.txt", b"1 liver 255 0 256 255\n", 'line 1: Blue is "256", expected a whole number from 0 to 255'),
        ("a.txt", b"1 liver 0.5 0 1 1\n", 'line 1: Red is "0.5", expected a whole number'),
        ("a.txt", b"70000 liver 255 0 0 255\n", 'The label value is "70000", expected a whole number from 0 to 65535'),
        ("a.txt", b"-1 liver 255 0 0 255\n", 'The label value is "-1"'),
        ("a.txt", "\u0661 liver 255 0 0 255\n".encode(), "expected a whole number from 0 to 65535"),
        ("a.txt", b"1 liver 0 0 0 0\n2 Sch\xe4del 1 1 1 255\n", "line 2: this is not UTF-8 text"),
        ("a.txt", "1 liver 255 0 0 255\n".encode("utf-16"), "line 1: this is not UTF-8 text"),
        ("a.tsv", b"value\tname\n1\tliver\n", "line 1: The columns index and name are needed"),
        ("a.tsv", b"index\tname\n1\n", "line 2: 1 fields were found, 2 were expected"),
        ("a.tsv", b"index\tname\n1.5\tliver\n", 'line 2: index is "1.5"'),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(tmp_path, name, content, said):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(LabelTableError) as caught:
        LabelTable.from_file(file)
    assert str(caught.value).startswith(str(file)) and said in str(caught.value)


@pytest.mark.parametrize(
    "labels",
    ['{"background": 0, "kidney_left": 5, "cyst": "7"}', '{"0": "background", "5": "kidney_left", "7": "cyst"}'],
)
def test_a_dataset_json_of_nnunet_has_names(tmp_path, labels):
    (tmp_path / "dataset.json").write_text(f'{{"channel_names": {{"0": "CT"}}, "labels": {labels}}}')
    table = LabelTable.from_file(tmp_path / "dataset.json")
    assert table.names == {0: "background", 5: "kidney_left", 7: "cyst"}
    assert table[5].type_modifier.meaning == "Left"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"labels": {"a": 1, "b": 1}}', "label value 1 was used before, by a"),
        ('{"labels": {"a": [1, 2]}}', "'a' is a region of several labels"),
        ('{"labels": {"a": true}}', "'a' is \"\", expected a whole number"),
        ('{"labels": {"a": 1.5}}', "'a' is \"1.5\", expected a whole number"),
        ('{"labels": {"a": null}}', "'a' is \"None\", expected a whole number"),
        ('{"labels": {}}', "has no 'labels'"),
        ('{"labels": [1]}', "has no 'labels'"),
        ("[]", "has no 'labels'"),
        ("{", "is not valid JSON"),
        ('{"labels":' + "[" * 200_000, "is not valid JSON"),
        ('{"labels": {"a": ' + "9" * 5000 + "}}", "JSON"),
    ],
)
def test_json_that_is_none_is_a_sentence(tmp_path, text, said):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(LabelTableError) as caught:
        LabelTable.from_file(tmp_path / "dataset.json")
    assert str(caught.value).startswith(str(tmp_path / "dataset.json")) and said in str(caught.value)


def test_the_same_line_twice_does_no_harm(tmp_path):
    (tmp_path / "a.ctbl").write_text("1 liver 255 0 0 255\n" * 2)
    assert LabelTable.from_file(tmp_path / "a.ctbl").names == {1: "liver"}


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(LabelTableError, match=r"no\.ctbl cannot be read \(No such file"):
        LabelTable.from_file(tmp_path / "no.ctbl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=60) | st.text(alphabet="0123459 .#\"'\t\nab-", max_size=60).map(str.encode),
    suffix=st.sampled_from([".ctbl", ".tsv", ".json"]),
)
def test_any_bytes_are_a_table_or_a_clear_error(tmp_path, content, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    try:
        table = LabelTable.from_file(file)
    except LabelTableError as error:
        assert str(error).startswith(str(file))
    else:
        assert all(label.name and len(label.color) == 3 for label in table)


def test_a_line_of_a_megabyte_takes_no_time_to_speak_of(tmp_path):
    """A pattern that goes back and forth over the line would take hours."""
    (tmp_path / "a.ctbl").write_text("1 " + "a " * 1_000_000 + "x\n2 liver 1 2 3 4\n")
    with pytest.raises(LabelTableError, match="line 1"):
        LabelTable.from_file(tmp_path / "a.ctbl")


def test_compare_takes_them_and_finds_that_of_bids(tmp_path, capsys):
    labels = np.full((2, 3, 4), 5, np.uint16)
    grid = Geometry((4, 3, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for name in ("a_dseg", "b"):
        Segmentation(labels, LabelTable.from_names({5: "x"}), grid).write(tmp_path / f"{name}.nii.gz")
        (tmp_path / f"{name}.labels.csv").unlink()
    (tmp_path / "a_dseg.tsv").write_text(BIDS)
    (tmp_path / "names.ctbl").write_text(SLICER)
    files = [str(tmp_path / "a_dseg.nii.gz"), str(tmp_path / "b.nii.gz")]
    assert main(["compare", *files, "--other-labels", str(tmp_path / "names.ctbl")]) == ExitCode.OK
    output = capsys.readouterr().out
    assert "kidney_left" in output and "Mean Dice 1.000 over 1 structure" in output
