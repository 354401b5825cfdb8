"""What the labels of several datasets mean: names, codes, taxonomies, and the sentences for what cannot be meant."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from classscale_training.data.merge.conflicts import check_meaning
from classscale_training.data.merge.meaning import Meaning, resolve
from classscale_training.data.merge.plan import class_table, make_plan, taxonomy_rows
from classscale_training.data.merge.source import Source
from classscale_training.data.merge.taxonomy import Taxonomy, write_taxonomy
from ClassScaleSegLib.errors import ClassScaleError, LabelTableError
from ClassScaleSegLib.labels.label import Code, Label
from ClassScaleSegLib.labels.table import LabelTable

HEADER = "dataset,label,class,modality\n"


def source(number: int, *names: str, codes: str = "", **more) -> Source:
    """A dataset with these labels; ``codes`` names a class of TotalSegmentator for its first label."""
    table = LabelTable.from_names({0: "background", **dict(enumerate(names, 1))})
    if codes:
        known = LabelTable.from_names({1: codes})[1]
        labels = [table[0], *(label for label in table.foreground if label.value > 1)]
        table = LabelTable((*labels, type(known)(1, "Segment_1", names[0], (1, 2, 3), **known.codes)))
    return Source(number, Path(f"Dataset{number:03d}_{chr(64 + number)}"), table, **more)


def taxonomy(*lines: str) -> Taxonomy:
    return Taxonomy.parse((HEADER + "\n".join(lines)).encode(), "some.csv") if lines else Taxonomy()


def meant(sources: list[Source], *lines: str) -> Meaning:
    """What is meant, after all checks."""
    meaning = resolve(sources, taxonomy(*lines))
    check_meaning(meaning, taxonomy(*lines))
    return meaning


def fault(sources: list[Source], *lines: str) -> str:
    with pytest.raises(LabelTableError) as caught:
        make_plan(meant(sources, *lines), taxonomy(*lines))
    return str(caught.value)


def of_labels(meaning: Meaning, index: int) -> dict[str, list[str]]:
    """Names of the classes of each label of a dataset, and of its background."""
    found = {label.label.name: [meaning.names[m] for m in label.members] for label in meaning.meanings[index]}
    return {**found, "background": [meaning.names[m] for m in meaning.backgrounds[index]]}


NOTHING = LabelTable.from_names({0: "background"})
NUCLEI = source(1, "left kidney", "nucleus a", "nucleus b")
COARSE = source(2, "liver", "thalamus")
THALAMUS = (",thalamus,nucleus a", ",thalamus,nucleus b")


@pytest.mark.parametrize("name", ["left kidney", "Left_Kidney", "kidney-left", "KIDNEY LEFT"])
def test_labels_of_the_same_name_are_one_class(name):
    meaning = meant([source(1, "spleen", "left kidney"), source(2, name, "liver")])
    assert meaning.names == ("background", "spleen", "left kidney", "liver")
    assert of_labels(meaning, 1) == {name: ["left kidney"], "liver": ["liver"], "background": ["background", "spleen"]}


def test_labels_with_the_same_codes_are_one_class_and_those_of_one_dataset_never():
    first, second = source(1, "kidney_left", "liver"), source(2, "Niere links", "Leber", codes="kidney_left")
    assert meant([first, second]).names == ("background", "kidney_left", "liver", "Leber")
    both = source(2, "Niere links", "left kidney", codes="kidney_left")  # the second has the name
    assert meant([first, both]).names == ("background", "kidney_left", "liver", "Niere links")
    other = source(2, "Niere rechts", codes="kidney_right")
    assert meant([first, other]).names == ("background", "kidney_left", "liver", "Niere rechts")
    tissue = Code("SCT", "85756007", "Tissue")  # which Slicer gives every segment to begin with
    stone, myoma = (
        replace(source(n, name), table=LabelTable((*NOTHING, Label(1, "S1", name, (1, 2, 3), tissue, tissue))))
        for n, name in ((1, "gallstone"), (2, "myoma"))
    )
    assert meant([stone, myoma]).names == ("background", "gallstone", "myoma")
    table = class_table(meant([second, first]))
    assert table.names[1] == "Niere links" and table[1].type_modifier.meaning == "Left" and table[1].value == 1


def test_exact_names_come_before_similar_ones():
    meaning = meant([source(1, "A-b", "a b"), source(2, "a b", "a_b", "A-b")])
    assert meaning.names == ("background", "A-b", "a b", "a_b")
    assert [label.members for label in meaning.meanings[1]] == [(2,), (3,), (1,)]


def test_a_label_without_a_dataset_stands_for_classes_everywhere_also_through_others():
    lines = (*THALAMUS, ",brain,thalamus", ",brain,left kidney")
    meaning = meant([NUCLEI, COARSE, source(3, "Brain", "LIVER")], *lines)
    assert meaning.names == ("background", "left kidney", "nucleus a", "nucleus b", "liver")
    assert of_labels(meaning, 1)["thalamus"] == ["nucleus a", "nucleus b"]
    assert of_labels(meaning, 2)["Brain"] == ["left kidney", "nucleus a", "nucleus b"]


def test_a_row_with_a_dataset_comes_before_one_without():
    meaning = meant([NUCLEI, COARSE], *THALAMUS, "Dataset002_B,Thalamus,nucleus a", "0002,thalamus,left kidney")
    assert of_labels(meaning, 1)["thalamus"] == ["left kidney", "nucleus a"]


def test_backgrounds_contain_what_is_not_labelled_or_what_is_said():
    assert of_labels(meant([NUCLEI, COARSE], *THALAMUS), 0)["background"] == ["background", "liver"]
    said = ("1,background,background", "2,background,left kidney")
    meaning = meant([NUCLEI, COARSE, source(3, "x")], *THALAMUS, *said)
    assert [of_labels(meaning, i)["background"] for i in range(2)] == [["background"], ["background", "left kidney"]]
    merged = make_plan(meaning).merged
    assert [dataset.absent(6) for dataset in merged.datasets] == [(4, 5), (5,), ()]
    meaning = meant([NUCLEI, COARSE], *THALAMUS, ",background,background")
    assert meaning.backgrounds == ((0,), (0,))


def test_a_label_can_count_as_background():
    meaning = meant([source(1, "liver", "vessel"), source(2, "vessel", "spleen")], "1,vessel,background")
    plan = make_plan(meaning)
    assert meaning.names == ("background", "liver", "vessel", "spleen") and plan.maps[0].tolist() == [0, 1, 0]
    assert of_labels(meaning, 0)["background"] == ["background", "vessel", "spleen"]


def test_a_name_of_no_label_is_a_class_if_it_says_so():
    lines = ("1,Thal-L,left thalamus", "2,thal l old,left thalamus")
    sources = [source(1, "Thal-L", "x"), source(2, "thal l old")]
    message = fault(sources, *lines)
    assert "some.csv, line 2: no dataset has a label left thalamus" in message
    line = re.search(r"add the line (.*)", message)[1]
    assert line == ",left thalamus,left thalamus"
    assert meant(sources, *lines, line).names == ("background", "left thalamus", "x")


def test_sets_come_after_the_classes_once_and_under_names_of_their_own():
    lines = [f"{d},{label},nucleus {n}" for d, label in ((2, "thalamus"), (3, "Th"), (4, "liver")) for n in "ab"]
    plan = make_plan(meant([NUCLEI, COARSE, source(3, "Th"), source(4, "liver")], *lines, "2,liver,liver"))
    assert plan.merged.labels() == {
        **{"background": 0, "left kidney": 1, "nucleus a": 2, "nucleus b": 3, "liver": 4, "thalamus": 5}
    }
    lines += ["4,liver,left kidney", "4,x,x"]
    plan = make_plan(
        meant([NUCLEI, COARSE, source(3, "Th"), source(4, "liver", "x", ignore=3)], *lines, "2,liver,liver")
    )
    assert list(plan.merged.labels())[-4:] == ["x", "thalamus", "liver (Dataset004_D)", "ignore"]
    assert [new.tolist() for new in plan.maps[2:]] == [[0, 6], [0, 7, 5, 8]] and plan.maps[0].dtype == "uint8"


def test_more_than_256_values_need_16_bits_and_32768_are_the_most(monkeypatch):
    many = source(1, *(f"s{i}" for i in range(300)))
    assert make_plan(meant([many, COARSE])).maps[0].dtype == "uint16"
    monkeypatch.setattr("classscale_training.data.merge.conflicts.HIGHEST", 300)
    assert "have 303 classes together; nnU-Net has at most 300. Merge fewer" in fault([many, COARSE])


REFUSED = [
    (
        ("7,liver,liver",),
        ["some.csv, line 2: the dataset 7 is not among those to be merged (Dataset001_A, Dataset002_B)"],
    ),
    (("2,livr,liver",), ["line 2: Dataset002_B: No label is called livr; did you mean liver?"]),
    (("2,thalamus,nucleus c",), ["line 2: no dataset has a label nucleus c (did you mean nucleus"]),
    (
        (",thalmus,nucleus a",),
        ["line 2: no dataset has a label thalmus, and no other line names it (did you mean thalamus"],
    ),
    ((",thalamus,brain", ",brain,thalamus"), ["lines 2 and 3: ", "is a circle"]),
    ((",thalamus,thalamus", ",thalamus,nucleus a"), ["line 2: thalamus > thalamus is a circle"]),
    (
        ("2,thalamus,nucleus a", "2,liver,nucleus a"),
        ["lines 2 and 3: Dataset002_B has nucleus a under the labels liver and"],
    ),
    (("1,nucleus a,nucleus b",), ["line 2: Dataset001_A has nucleus b under the labels nucleus a and nucleus b"]),
    (("2,background,liver",), ["line 2: Dataset002_B has a class in its background for which its label liver stands"]),
    (
        ("2,thalamus,background", "2,thalamus,nucleus a"),
        ["lines 2 and 3: thalamus of Dataset002_B stands for the backgr"],
    ),
    (
        (",bone,bone", "2,background,bone"),
        ["line 3: the class bone is in the background alone", "nothing can teach it"],
    ),
    (("2,ignore,liver",), ["No label is called ignore"]),
    (("2,liver,ignore",), ["line 2: ignore cannot be a class"]),
    ((",ignore,ignore", "2,liver,ignore"), ["ignore cannot be a class"]),
    (("2,liver",), ["line 2: it has no class. Write dataset, label and class"]),
    (("2,,liver",), ["line 2: it has no label."]),
    (("2,,",), ["line 2: it has no label and no class"]),
    ((",,,MR",), ["line 2: the modality MR has no dataset"]),
    (("2,liver,liver,MR,x",), ["line 2: 5 cells were found, at most 4 were expected"]),
    (('2,"liver,liver',), ["this is not valid CSV"]),
    (("1,,,MR", "1,,,CT"), ["lines 2 and 3: Dataset001_A has the modalities MR and CT"]),
]


@pytest.mark.parametrize(("lines", "sentences"), REFUSED)
def test_what_cannot_be_meant_is_a_sentence_with_its_line(lines, sentences):
    message = fault([NUCLEI, COARSE], *lines)
    assert all(sentence in message for sentence in sentences), message


def test_all_faults_are_in_the_message():
    message = fault([NUCLEI, COARSE], "7,liver,liver", "2,livr,liver", ",thalmus,nucleus a")
    assert message.startswith("some.csv has 3 faults:\n- ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"dataset;class\n",
            "the first line must be dataset,label,class or dataset,label,class,modality; it is dataset, cl",
        ),
        (b"", "it is nothing"),
        (b"dataset,label,class\n1,Z\xfcrich,x\n", "some.csv, line 2: this is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_taxonomy(content, sentence):
    with pytest.raises(LabelTableError, match=re.escape(sentence)):
        Taxonomy.parse(content, "some.csv")


def test_spreadsheets_write_marks_semicolons_and_empty_lines(tmp_path):
    file = tmp_path / "some.csv"
    text = "Dataset;Label;Class\r\n\r\n;thalamus;nucleus a\r\n;thalamus;nucleus b\r\n;;\r\n"
    file.write_bytes(text.encode("utf-8-sig"))
    read = Taxonomy.read(file)
    assert [(row.line, row.label, row.member) for row in read.rows] == [
        (3, "thalamus", "nucleus a"),
        (4, "thalamus", "nucleus b"),
    ]
    assert read.line(2, "thalamus", "x,y") == "2;thalamus;x,y"
    with pytest.raises(LabelTableError, match="cannot be read"):
        Taxonomy.read(tmp_path)


KIDNEYS = source(1, "left kidney", "Kidney_right", "spleen")
CONFLICTS = {
    "sides": (
        [KIDNEYS, source(2, "Kidney", "liver")],
        (),
        "Kidney of Dataset002_B has no side, but there is left kidney of Dataset001_A and Kidney_right of",
    ),
    "one side": ([source(1, "Left Kidney"), source(2, "kidney")], (), "but there is Left Kidney of Dataset001_A."),
    "sides that do not fit": (
        [source(1, "a left", "a right"), source(2, "a", "x")],
        ("2,x,a left",),
        "a of Dataset002_B has no side",
    ),
    "sides that do not fit the background": ([KIDNEYS, source(2, "kidney")], ("2,background,left kidney",), "no side"),
    "sides by codes": ([source(1, "kidney_left", "kidney_right"), source(2, "Niere", codes="kidney")], (), "Niere of"),
    "sides that are sets": (
        [source(1, "a", "b", "c"), source(2, "thalamus left", "thalamus right"), source(3, "Thalamus")],
        ("2,thalamus left,a", "2,thalamus left,b", "2,thalamus right,c"),
        "Thalamus of Dataset003_C has no side",
    ),
    "name": (
        [NUCLEI, COARSE, source(3, "Thalamus")],
        ("2,thalamus,nucleus a", "2,thalamus,nucleus b"),
        "Thalamus of Dataset003_C is a class by its name, but thalamus of Dataset002_B stands for nucleus a and",
    ),
    "name by codes": (
        [source(1, "a", "b"), source(2, "Niere", codes="kidney"), source(3, "kidney")],
        ("3,kidney,a", "3,kidney,b"),
        "Niere of Dataset002_B is a class by its name, but kidney of Dataset003_C stands for a and b.",
    ),
    "name that does not fit": (
        [source(1, "a", "b", "set"), source(2, "set", "c")],
        ("2,set,a", "2,set,b"),
        "set of Dataset001_A is a class by its name, but set of Dataset002_B stands for a and b.",
    ),
    "overlap": (
        [source(1, "a", "b", "c, d"), source(2, "x"), source(3, "y")],
        ("2,x,a", "2,x,b", "3,y,b", '3,y,"c, d"'),
        "x of Dataset002_B and y of Dataset003_C both stand for b, and each for more",
    ),
    "overlap of what is said of all": (
        [source(1, "a", "b", "c"), source(2, "x"), source(3, "y")],
        (",x,a", ",x,b", ",y,b", ",y,c"),
        "both stand for b",
    ),
    "overlap that fits one way": (
        [source(1, "a", "b", "c"), source(2, "x", "z"), source(3, "y")],
        ("2,x,a", "2,x,b", "2,z,c", "3,y,b", "3,y,c"),
        "both stand for b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFLICTS)
def test_each_way_that_a_contradiction_names_settles_it(name):
    sources, lines, sentence = CONFLICTS[name]
    message = fault(sources, *lines)
    assert sentence in message, message
    ways = [re.findall(r"^    (.*)$", way, re.M) for way in message.split("add:")[1:]]
    assert len(ways) == (1 if "fit" in name else 2)
    for way in ways:
        meant(sources, *lines, *way)


def test_a_contradiction_that_no_line_settles_names_the_lines():
    sources = [source(1, "a", "b", "c"), source(2, "x", "z"), source(3, "y", "w")]
    lines = ("2,x,a", "2,x,b", "2,z,c", "3,y,b", "3,y,c", "3,w,a")
    assert "(some.csv, lines 2 and 3 and 5 and 6).\n  Correct these lines." in fault(sources, *lines)


def test_what_is_no_contradiction():
    meant([KIDNEYS, source(2, "kidney", "left kidney", "right kidney")])  # a third label beside its sides
    meant([KIDNEYS, source(2, "kidney", "liver"), source(3, "kidney")], "2,kidney,kidney", "3,kidney,kidney")
    meant([source(1, "a", "b", "c"), source(2, "x"), source(3, "y")], ",x,a", ",x,b", ",y,x", ",y,c")  # a part
    meant([source(1, "left a", "right b"), source(2, "optic chiasm")])


def test_classes_that_nothing_tells_apart_are_named():
    lines = [",left thalamus,left thalamus", *(f"{d},th,left thalamus" for d in (1, 2)), ",r,r", "1,th,r", "2,th,r"]
    message = fault([source(1, "th", "x"), source(2, "th")], *lines)
    assert "Nothing tells left thalamus and r apart: th of Dataset001_A stands for all of them" in message
    apart = [source(1, "a", "b"), source(2, "a"), source(3, "ab")]
    meant(apart, "3,ab,a", "3,ab,b")
    alone = [source(2, "a"), source(3, "ab", "x")]  # b is what is left of ab
    meant(alone, ",b,b", "3,ab,a", "3,ab,b")
    absent = ("2,background,background",)  # now dataset 2 says nothing of b
    assert "Nothing tells a and b apart" in fault(alone, ",b,b", "3,ab,a", "3,ab,b", *absent)


@pytest.mark.parametrize(
    ("channels", "lines", "merged"),
    [
        ((["MR"], ["mr"]), (), ("MR",)),
        ((["T1"], ["MRI"]), ("1,,,MR", "2,,,MR"), ("MR",)),
        ((["T1"], ["MR"]), ("1,,,MR",), ("MR",)),
        ((["CT"], ["MR"]), ("1,,,CT", "2,,,MR"), ("CT or MR",)),
        ((["T1", "T2"], ["t1w", "t2w"]), ("1,,,MR", "2,,,mr"), ("T1", "T2")),
    ],
)
def test_channels(channels, lines, merged):
    sources = [source(n, f"s{n}", channels=tuple(names)) for n, names in enumerate(channels, 1)]
    assert make_plan(meant(sources, *lines), taxonomy(*lines)).channels == merged


def test_channels_that_differ_are_refused_with_the_lines_that_settle_it():
    sources = [source(1, "a", channels=("T1",)), source(2, "b", channels=("MRI",))]
    message = fault(sources)
    assert "The channels differ: T1 in Dataset001_A, MRI in Dataset002_B." in message
    lines = re.findall(r"^    (.*)$", message, re.M)
    assert make_plan(meant(sources, *lines), taxonomy(*lines)).channels == ("MR",)
    sources = [source(1, "a", channels=("T1", "T2")), source(2, "b", channels=("t2", "T1"))]
    assert "The order of the channels differs: T1, T2 in Dataset001_A" in fault(sources, "1,,,MR", "2,,,MR")
    sources = [source(1, "a", channels=("T1", "T2")), source(2, "b", channels=("T1",))]
    assert "The numbers of channels differ: Dataset001_A has 2 (T1, T2) and Dataset002_B has 1 (T1)." in fault(sources)


def test_shares():
    sources = [source(1, "a", cases=(None,) * 9), source(2, "b", cases=(None,) * 2)]
    meaning = meant(sources)
    assert [dataset.share for dataset in make_plan(meaning).merged.datasets] == [3, 1.414]
    assert [dataset.share for dataset in make_plan(meaning, shares={1: 2, 2: 0.5}).merged.datasets] == [2, 0.5]
    for shares, sentence in (({1: 1}, "2, which has none"), ({1: 1, 2: 1, 3: 1}, "3, which is not merged")):
        with pytest.raises(ClassScaleError, match=f"{sentence}. Write: --shares 1=1 2=1"):
            make_plan(meaning, shares=shares)
    for share in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ClassScaleError, match="Give a positive number"):
            make_plan(meaning, shares={1: 1, 2: share})


ROUND_TRIPS = {
    "names": ([KIDNEYS, source(2, "kidney-LEFT", "liver", ignore=3)], ()),
    "codes": ([source(1, "kidney_left"), source(2, "Niere links", "x", codes="kidney_left")], ()),
    "sets": ([NUCLEI, COARSE, source(3, "Th")], (*THALAMUS, "3,Th,nucleus b", "3,Th,nucleus a")),
    "modalities": ([NUCLEI, COARSE], ("1,,,MR", "2,,,CT")),
    "renamed": ([source(1, "Thal-L", "b"), source(2, "th")], (",left,left", "1,Thal-L,left", "2,th,left", "2,th,b")),
    "dropped": ([source(1, "liver", "vein"), source(2, "a, b", 'c "d"')], ("1,vein,background", "2,background,liver")),
    "formulas": ([source(1, "=1+1", "b"), source(2, "@c")], ("2,@c,b",)),
    "similar": ([source(1, "A-b", "a b"), source(2, "a b", "a_b", "A-b")], ()),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_the_taxonomy_that_is_written_means_the_same(name, tmp_path):
    sources, lines = ROUND_TRIPS[name]
    first = make_plan(meant(sources, *lines), taxonomy(*lines))
    write_taxonomy(tmp_path / "taxonomy.csv", taxonomy_rows(first, taxonomy(*lines)))
    said = Taxonomy.read(tmp_path / "taxonomy.csv")
    meaning = resolve(sources, said)
    check_meaning(meaning, said)
    second = make_plan(meaning, said)
    assert second.merged == first.merged and second.channels == first.channels
    assert [new.tolist() for new in second.maps] == [new.tolist() for new in first.maps]
    assert list(taxonomy_rows(second, said)) == list(taxonomy_rows(first, taxonomy(*lines)))
    assert class_table(meaning).to_csv() == class_table(first.meaning).to_csv()


def test_a_name_that_a_spreadsheet_would_run_comes_back_the_same(tmp_path):
    file = tmp_path / "taxonomy.csv"
    write_taxonomy(file, [(1, "=1+1", "-x", "")])
    assert file.read_text(encoding="utf-8").splitlines()[1] == "1,'=1+1,'-x,"
    [row] = Taxonomy.read(file).rows
    assert (row.dataset, row.label, row.member) == ("1", "=1+1", "-x")


def test_a_thousand_labels_are_understood_in_a_second():
    fine = source(1, *(f"structure {i} left" for i in range(1000)))
    coarse = source(2, *(f"Left structure {i}" for i in range(500)), *(f"set {i}" for i in range(500)))
    lines = [f",set {i},structure {500 + i} left" for i in range(500)]
    begin = time.process_time()
    plan = make_plan(meant([fine, coarse], *lines))
    assert len(plan.merged.names) == 1001 and time.process_time() - begin < 1
