"""Label tables: names, colours, codes, and the colour-table CSV that Slicer shares."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib.errors import LabelTableError, OutputExistsError
from ClassScaleSegLib.labels.label import CODE_FIELDS, Code, Label, segment_color, segment_id
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.resources import resource
from hypothesis import example, given, settings
from hypothesis import strategies as st

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "totalsegmentator"
NAMES = st.dictionaries(st.integers(0, 65535), st.text(max_size=20), min_size=1, max_size=8)


@pytest.fixture(scope="module")  # hypothesis wants none of a single function
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def ungrouped(table: LabelTable) -> LabelTable:
    return LabelTable(tuple(replace(label, group=None) for label in table))


def cielab(colors: list[tuple[int, int, int]]) -> np.ndarray:
    from skimage.color import rgb2lab

    return rgb2lab(np.array(colors)[None] / 255)[0]


def test_the_first_4000_colours_differ_and_neighbours_differ_visibly():
    colors = [segment_color(value) for value in range(1, 4001)]
    assert len(set(colors)) == 4000
    lab = cielab(colors)
    nearest = [np.linalg.norm(lab[step:] - lab[:-step], axis=1).min() for step in (1, 2, 3, 4)]
    assert nearest[0] > 49 and min(nearest) > 25, nearest  # 2 is just noticeable, 10 plain at a glance


def test_no_colour_but_the_background_is_dark_on_black():
    assert segment_color(0) == (0, 0, 0)
    assert cielab([segment_color(value) for value in range(1, 65536)])[:, 0].min() > 40


def test_colours_and_ids_stay_when_classes_are_added():
    few = LabelTable.from_names({0: "background", 7: "liver"})
    many = LabelTable.from_names({value: f"part {value}" for value in range(1000)})
    assert (few[7].color, few[7].id) == (many[7].color, many[7].id) == (segment_color(7), segment_id(7))


def test_rows_are_sorted_by_value_and_found_by_value():
    table = LabelTable.from_names({3: "c", 0: "background", 1: "a"})
    assert [label.value for label in table] == [0, 1, 3] and len(table) == 3
    assert table[3].name == "c" and 3 in table and 2 not in table
    assert [label.name for label in table.foreground] == ["a", "c"]
    with pytest.raises(LabelTableError, match="No label has the value 2; the table has 3 labels from 0 to 3"):
        table[2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [Label(1, "a", "one", (0, 0, 0)), Label(1, "b", "two", (0, 0, 0))],
            "value 1 is used twice, by one and by two",
        ),
        ([Label(1, "a", "one", (0, 0, 0)), Label(2, "a", "two", (0, 0, 0))], "id a is used twice, by one and two"),
        ([Label(65536, "a", "one", (0, 0, 0))], "65536 .one. is not between 0 and 65535"),
        ([Label(-1, "a", "one", (0, 0, 0))], "-1 .one. is not between 0 and 65535"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(labels, message):
    with pytest.raises(LabelTableError, match=message):
        LabelTable(tuple(labels))


def test_a_misspelled_name_is_answered_with_near_ones():
    table = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    assert table.by_name("Kidney-Left").value == 3
    with pytest.raises(LabelTableError, match="No label is called kidny_left; did you mean .*kidney_left"):
        table.by_name("kidny_left")


def test_names_that_differ_only_in_spelling_are_told_apart_or_refused():
    table = LabelTable.from_names({1: "rib_1", 2: "Rib 1", 3: "spine", 4: "spine"})
    assert (table.by_name("rib_1").value, table.by_name("Rib 1").value) == (1, 2)
    with pytest.raises(LabelTableError, match="Several labels are called RIB 1: give a label value instead, 1, 2"):
        table.by_name("RIB 1")
    with pytest.raises(LabelTableError, match="3, 4"):
        table.by_name("spine")


def test_a_selection_keeps_the_background_and_takes_names_or_values():
    table = LabelTable.from_names({0: "background", 1: "liver", 2: "spleen", 3: "2"})
    assert table.select(["Liver", 2]).names == {0: "background", 1: "liver", 2: "spleen"}
    assert table.select(["1", "2"]).names == {0: "background", 1: "liver", 3: "2"}  # a name wins over a value
    with pytest.raises(LabelTableError, match="value 9"):
        table.select(["9"])
    assert [[label.value for label in table.lookup(item)] for item in ("LIVER", "2", 2, "9", "bone")] == [
        [1], [3], [2], [], [],
    ]  # fmt: skip


def test_names_get_the_codes_of_totalsegmentators_classes():
    table = LabelTable.from_names({1: "Left Kidney", 2: "kidney", 3: "gluteus minimus", 4: "zebra", 5: "heart atrium"})
    left = table[1]
    assert left.category == Code("SCT", "123037004", "Anatomical Structure")
    assert left.type == Code("SCT", "64033007", "Kidney") and left.type_modifier == Code("SCT", "7771000", "Left")
    assert table[2].type == left.type and table[2].type_modifier is None
    assert table[3].type == Code("SCT", "75297007", "Gluteus minimus muscle")
    assert not any(table[4].codes.values())
    assert not any(table[5].codes.values())  # the left atrium is a concept of its own, no side of "heart atrium"


def test_a_given_table_supplies_codes_before_our_own():
    own = Label(9, "x", "Liver", (1, 2, 3), Code("99X", "1", "Organ"), Code("99X", "2", "Mouse liver"))
    table = LabelTable.from_names({1: "liver", 2: "spleen"}, codes=LabelTable((own,)))
    assert table[1].type == own.type and table[1].color == segment_color(1)
    assert table[2].type == Code("SCT", "78961009", "Spleen")


def test_the_shipped_table_has_the_117_classes_each_with_codes_of_its_own():
    table = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    assert [label.value for label in table] == list(range(118))
    assert [table[value].name for value in (0, 1, 5, 90, 117)] == [
        "background", "spleen", "liver", "brain", "costal_cartilages",
    ]  # fmt: skip
    assert all(label.category and label.type and label.category.scheme == "SCT" for label in table.foreground)
    assert len({tuple(label.codes.values()) for label in table.foreground}) == 117
    assert all(label.color == segment_color(label.value) for label in table)


@pytest.mark.skipif(not SHARED.is_dir(), reason="TotalSegmentator's own mapping is not here")
def test_the_shipped_codes_are_totalsegmentators():
    with (SHARED / "totalsegmentator_snomed_mapping.csv").open(encoding="utf-8", newline="") as file:
        theirs = {row[0]: row[1:16] for row in csv.reader(file)}
    for label in LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv")).foreground:
        ours = [part for code in label.codes.values() for part in ((code.scheme, code.value) if code else ("", ""))]
        row = theirs[label.name]
        assert ours == [row[3 * i + part].strip() for i in range(len(CODE_FIELDS)) for part in (0, 1)], label.name


@settings(max_examples=100, deadline=None)
@given(NAMES)
@example({1: 'a "b" \\ c\n,;~^|&:=#', 2: " \t", 3: "\ud800x", 4: "kidney_left"})
@example({1: "=1+1", 2: "'=1", 3: "''-", 4: "@x", 5: "'"})
def test_a_table_comes_back_from_its_csv(folder, names):
    table = LabelTable.from_names(names)
    file = folder / "table.csv"
    table.to_csv(file, overwrite=True)
    assert LabelTable.from_csv(file) == table


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text('LabelValue,Name\n"0129#', max_size=60).map(str.encode)))
def test_any_bytes_are_a_table_or_a_clear_error(folder, content):
    file = folder / "any.csv"
    file.write_bytes(content)
    try:
        LabelTable.from_csv(file)
    except LabelTableError as error:
        assert str(file) in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column LabelValue; it has nothing"),
        (b"LabelValue;Name\n1;a\n", "no column LabelValue; it has LabelValue;Name"),
        (b"LabelValue,Color_R\n", "no column Name"),
        (b"LabelValue,Name,Name\n1,a,b\n", "more than one column Name"),
        (b"LabelValue,Name,Group,Group\n1,a,b,c\n", "more than one column Group"),
        (b"LabelValue,Name\n1,a\n\n1,b\n", "line 4: label value 1 was used before, by a"),
        (b"LabelValue,Name\n65536,a\n", 'line 2: LabelValue is "65536", expected a whole number from 0 to 65535'),
        (b"LabelValue,Name\n-1,a\n", 'line 2: LabelValue is "-1"'),
        (b"LabelValue,Name\n1.5,a\n", 'line 2: LabelValue is "1.5"'),
        (b"LabelValue,Name\n" + b"9" * 5000 + b",a\n", "line 2: LabelValue is"),
        ("LabelValue,Name\n\u0661,a\n".encode(), "line 2: LabelValue is"),
        (b"LabelValue,Name,Color_R,Color_G,Color_B\n1,a,0,0,256\n", 'line 2: Color_B is "256".* from 0 to 255'),
        (b"LabelValue,Name,Color_R\n1,a,0\n", 'line 2: Color_G is "", expected'),
        (b"LabelValue,Name\n1,a,b\n", "line 2: 3 fields were found, 2 were expected"),
        (b"LabelValue,Name\n1\n", "line 2: 1 fields were found, 2 were expected"),
        (b'LabelValue,Name\n1,"a\n2,b\n', "not valid CSV"),
        (b"LabelValue,Name\n1," + b"a" * 200_000 + b"\n", "line 2: this is not valid CSV .field larger"),
        (b"LabelValue,Name\n1,Sch\xe4del\n", "line 2: this is not UTF-8 text"),
        ("LabelValue,Name\n1,a\n".encode("utf-16"), "line 1: this is not UTF-8 text"),
        (b"LabelValue,Name,Type_CodingScheme,Type_CodeValue\n1,a,SCT,\n", "line 2: Type_CodingScheme and Type_CodeVal"),
    ],
)  # fmt: skip
def test_a_faulty_table_is_refused_with_file_and_line(tmp_path, content, message):
    file = tmp_path / "labels.csv"
    file.write_bytes(content)
    with pytest.raises(LabelTableError, match=f"{file.name}.*{message}"):
        LabelTable.from_csv(file)


def test_a_missing_or_gigantic_table_is_refused(tmp_path):
    with pytest.raises(LabelTableError, match="none.csv cannot be read"):
        LabelTable.from_csv(tmp_path / "none.csv")
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(65 << 20)  # sparse: takes no room
    with pytest.raises(LabelTableError, match="huge.csv is larger than 64 MiB"):
        LabelTable.from_csv(tmp_path / "huge.csv")


def test_a_table_of_names_alone_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbfLabelValue,Name\r\n 2 ,liver\r\n1,\r\n")
    table = LabelTable.from_csv(tmp_path / "excel.csv")
    assert table.names == {1: "label 1", 2: "liver"} and table[2].color == segment_color(2)


def test_an_existing_table_is_kept_unless_overwritten(tmp_path):
    table = LabelTable.from_names({1: "a"})
    table.to_csv(tmp_path / "new" / "t.csv")
    with pytest.raises(OutputExistsError, match="t.csv already exists"):
        LabelTable.from_names({1: "b"}).to_csv(tmp_path / "new" / "t.csv")
    assert LabelTable.from_csv(tmp_path / "new" / "t.csv") == table


def test_slicer_reads_names_colours_and_terminology_and_writes_the_same_table(tmp_path):
    from mrml import color_terminology, read_color_table

    names = {0: "background", 1: "kidney_left", 2: "kidney_cyst_right", 3: "Schädel 頭", 4: 'a "b", #c\\n', 900: "last"}
    table = LabelTable.from_names(names)
    table.to_csv(tmp_path / "t.labels.csv")
    node = read_color_table(tmp_path / "t.labels.csv")
    assert node.GetNumberOfColors() == 901 and not node.GetColorDefined(5)
    for label in table:
        color = [0.0] * 4
        node.GetColor(label.value, color)
        assert node.GetColorName(label.value) == label.name
        assert tuple(round(255 * part) for part in color) == (*label.color, 255 if label.value else 0)
        codes = {key: (c.scheme, c.value, c.meaning) for key, c in label.codes.items() if c}
        assert color_terminology(node, label.value) == codes
    node.GetStorageNode().SetFileName(str(tmp_path / "back.csv"))
    assert node.GetStorageNode().WriteData(node)
    assert LabelTable.from_csv(tmp_path / "back.csv") == ungrouped(table)


def test_slicer_reads_all_of_the_shipped_table_and_drops_the_groups(tmp_path):
    from mrml import color_terminology, read_color_table

    file = resource("LabelTables", "totalsegmentator.csv")
    table, node = LabelTable.from_csv(file), read_color_table(file)
    assert node.GetNumberOfColors() == 118 and len(table.groups) == 10
    for label in table:
        codes = {key: (c.scheme, c.value, c.meaning) for key, c in label.codes.items() if c}
        assert node.GetColorName(label.value) == label.name and color_terminology(node, label.value) == codes
    node.GetStorageNode().SetFileName(str(tmp_path / "back.csv"))
    assert node.GetStorageNode().WriteData(node)
    assert LabelTable.from_csv(tmp_path / "back.csv") == ungrouped(table)


def test_groups_come_back_from_csv_and_are_written_only_where_there_are_any(tmp_path):
    given = enumerate(["x", "B", " A\n a", "", "B"])
    table = LabelTable(tuple(Label(value, segment_id(value), "part", (1, 2, 3), group=group) for value, group in given))
    assert {group: [label.value for label in members] for group, members in table.groups.items()} == {
        "B": [1, 4], "A a": [2],
    }  # fmt: skip
    assert list(table.groups) == ["B", "A a"] and table[3].group is None
    table.to_csv(tmp_path / "groups.csv")
    assert (tmp_path / "groups.csv").read_text().splitlines()[0].endswith(',"Group"')
    assert [label.group for label in LabelTable.from_csv(tmp_path / "groups.csv")] == ["x", "B", "A a", None, "B"]
    assert ungrouped(table).groups == {} and "Group" not in ungrouped(table).to_csv()


def test_every_shipped_class_has_a_group_and_names_bring_theirs():
    table = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    sizes = {group: len(labels) for group, labels in table.groups.items()}
    assert sizes == {
        "Organs": 13, "Digestive tract": 5, "Lungs and airways": 6, "Vertebrae": 26, "Heart": 2, "Vessels": 16,
        "Bones": 11, "Brain and spinal cord": 2, "Muscles": 10, "Ribs and sternum": 26,
    }  # fmt: skip
    named = LabelTable.from_names({1: "Left Kidney", 2: "femur", 3: "zebra"})
    assert [label.group for label in named] == ["Organs", "Bones", None]


def test_a_missing_resource_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="LabelTables/none.csv was not found in any of .*install it again"):
        resource("LabelTables", "none.csv")


def test_importing_loads_none_of_the_heavy_packages():
    modules = ["labels", "images.segmentation", "images.seg_nrrd", "images.formats", "files", "resources"]
    code = f"import sys; [__import__('ClassScaleSegLib.' + m) for m in {modules}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "nnunetv2", "SimpleITK", "slicer", "scipy"} & set(loaded)
