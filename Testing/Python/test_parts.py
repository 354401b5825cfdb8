"""Several models in one job: which part wins, how classes are numbered, what is skipped, what is reported."""

import gc
import threading
import weakref

import numpy as np
import pytest
from ClassScaleSegLib import (
    Cancelled,
    ClassScaleError,
    LabelTable,
    LabelTableError,
    ModelError,
    Options,
    Segmentation,
    open_model,
    segment,
)
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.inference import several_models as parts
from ClassScaleSegLib.inference.several_models import Source, segment_parts
from ClassScaleSegLib.labels.common_classes import common_classes
from ClassScaleSegLib.labels.label import segment_color
from ClassScaleSegLib.resources import resource
from conftest import small_dataset, small_plans

pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")

CPU = {"device": "cpu", "mirroring": False, "threads": 1}
FIRST = {"background": 0, "rock": 1, "paper": 2}
SECOND = {"background": 0, "well": 1, "paper": 2, "scissors": 3}


@pytest.fixture
def two(write_model, tmp_path):
    """Two models that share the class ``paper``."""
    return [
        write_model(dataset=small_dataset(labels), seeds=(seed,), root=tmp_path / str(seed))
        for seed, labels in ((1, FIRST), (2, SECOND))
    ]


@pytest.fixture
def image():
    made = sitk.GetImageFromArray(np.random.default_rng(0).normal(50, 30, (24, 20, 28)).astype(np.float32))
    made.SetSpacing((1.2, 0.9, 1.0))
    return made


def alone(image, sources, **more):
    return [segment(image, open_model(source), **CPU, **more) for source in sources]


def test_the_later_part_wins_where_both_have_foreground(two, image):
    first, second = (result.labels for result in alone(image, two))
    result = segment_parts(image, two, Options(**CPU))
    assert result.table.names == {0: "background", 1: "rock", 2: "paper", 3: "well", 4: "scissors"}
    of_second = np.array([0, 3, 2, 4], np.uint16)[second]
    assert np.array_equal(result.labels, np.where(second > 0, of_second, first))
    assert (second[first > 0] == 0).any() and (second[first > 0] > 0).any()  # the rule was needed
    assert result.labels.dtype == np.uint16 and result.geometry.spacing == pytest.approx((1.2, 0.9, 1.0))
    backwards = segment_parts(image, two[::-1], Options(**CPU))
    assert backwards.table.names == {0: "background", 1: "well", 2: "paper", 3: "scissors", 4: "rock"}
    of_first = np.array([0, 4, 2], np.uint16)[first]
    assert np.array_equal(backwards.labels, np.where(first > 0, of_first, second))


def test_confidence_is_that_of_the_winning_part_and_the_lowest_where_none_wins(two, image):
    first, second = alone(image, two, confidence=True)
    result = segment_parts(image, two, Options(**CPU, confidence=True))
    lowest = np.minimum(first.confidence, second.confidence)
    one = np.where(first.labels > 0, first.confidence, lowest)
    assert np.array_equal(result.confidence, np.where(second.labels > 0, second.confidence, one))
    assert ((first.labels == 0) & (second.labels == 0)).any()


def test_a_part_without_a_wanted_class_is_not_even_opened(two, image, monkeypatch):
    opened = []
    monkeypatch.setattr(parts, "open_model", lambda s, *_: (opened.append(s), open_model(s))[1])
    first, second = alone(image, two)
    result = segment_parts(image, two, Options(**CPU, classes=["rock"]))
    assert opened == two[:1] and result.table.names == {0: "background", 1: "rock"}
    assert np.array_equal(result.labels, first.labels == 1)
    result = segment_parts(image, two, Options(**CPU, classes=["scissors", 2]))
    assert opened == [two[0], *two]
    expected = np.where(first.labels == 2, 2, 0)
    expected[second.labels == 2], expected[second.labels == 3] = 2, 4
    assert np.array_equal(result.labels, expected) and set(result.table.names) == {0, 2, 4}
    with pytest.raises(LabelTableError, match="No label is called paperr; did you mean paper"):
        segment_parts(image, two, Options(**CPU, classes=["paperr"]))
    with pytest.raises(LabelTableError, match="No class was named"):
        segment_parts(image, two, Options(**CPU, classes=["background"]))
    with pytest.raises(ClassScaleError, match="classes is empty"):
        Options(classes=[])
    assert opened == [two[0], *two]


def test_one_model_alone_is_plain_segmentation(two, image):
    progress = []
    result, plain = segment_parts(image, two[:1], Options(**CPU), progress.append), alone(image, two[:1])[0]
    assert np.array_equal(result.labels, plain.labels) and result.table == plain.table
    assert progress[0].stage == "read"


def test_parts_with_the_classes_of_totalsegmentator_are_numbered_like_its_task_total(two):
    total = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    names = [label.name for label in total.foreground]
    assert len(names) == 117
    fifths = [names[start::5] for start in range(5)]  # none of them in the order of the whole
    tables = [LabelTable.from_names({0: "background", **dict(enumerate(part, start=1))}) for part in fifths]
    assert common_classes(tables).table == total
    assert common_classes(tables[3:]).table == total.select(fifths[3] + fifths[4])
    foreign = LabelTable.from_names({0: "background", 1: "spleen", 2: "gadget"})
    assert common_classes([tables[0], foreign]).table.names == {
        0: "background", **dict(enumerate([*fifths[0], "gadget"], start=1))
    }  # fmt: skip


def test_the_classes_of_a_single_model_stay_as_they_are():
    table = LabelTable.from_names({0: "background", 7: "gadget", 3: "liver"})
    common = common_classes([table], ["A"])
    assert common.table is table and common.values == ({3: 3, 7: 7},)


def test_a_renumbered_class_keeps_a_colour_of_its_own_and_its_codes():
    from dataclasses import replace

    plain = LabelTable.from_names({0: "background", 1: "spleen", 2: "gadget"})
    painted = LabelTable.from_names({0: "background", 1: "liver", 2: "thing"})
    painted = LabelTable(tuple(replace(row, color=(1, 2, 3)) if row.value == 2 else row for row in painted))
    table = common_classes([plain, painted]).table
    assert [row.name for row in table] == ["background", "spleen", "gadget", "liver", "thing"]
    assert [row.id for row in table.foreground] == ["Segment_1", "Segment_2", "Segment_3", "Segment_4"]
    assert table[3].color == segment_color(3) and table[4].color == (1, 2, 3)
    assert table[3].type.meaning == "Liver"


def test_progress_is_of_the_whole_job_and_never_goes_back(two, image):
    seen = []
    segment_parts(image, two, Options(**CPU), seen.append)
    stages = list(dict.fromkeys(report.title for report in seen))
    assert stages == [f"part {i} of 2: {s}" for i in (1, 2) for s in ("load", "read", "preprocess", "segment")]
    assert {report.total for report in seen} == {2000}
    done = [report.done for report in seen]
    assert done == sorted(done) and done[0] == 0 and done[-1] == 2000
    assert next(report.done for report in seen if (report.part, report.stage) == (2, "load")) == 1000
    assert seen[0].remaining is None and seen[-1].remaining == 0


@pytest.mark.parametrize("stage", ["part 1 of 2: load", "part 1 of 2: segment", "part 2 of 2: read"])
def test_cancelling_works_in_each_part(two, image, stage):
    token = threading.Event()
    with pytest.raises(Cancelled):
        segment_parts(image, two, Options(**CPU), lambda r: token.set() if r.title == stage else None, token)


def test_only_one_model_is_in_memory_at_a_time_without_waiting_for_garbage_to_be_collected(two, image, monkeypatch):
    alive, most = [], []

    def watched(source, *_):
        most.append(sum(model() is not None for model in alive))
        model = open_model(source)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(parts, "open_model", watched)
    segment_parts(image, two, Options(**CPU))  # imports what it needs
    alive.clear()
    most.clear()
    gc.disable()  # the command lets it wait for thousands of objects
    try:
        segment_parts(image, two, Options(**CPU))
    finally:
        gc.enable()
    assert most == [0, 0] and len(alive) == 2


def test_the_command_takes_several_models(two, image, tmp_path, capsys):
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    arguments = ["segment", str(tmp_path / "ct.nrrd"), "-o", str(tmp_path / "o.seg.nrrd"), "--device", "cpu"]
    arguments += ["--no-mirroring", "--threads", "1", "-m", str(two[0]), "-m", str(two[1]), "--keep-empty"]
    assert main(arguments) == ExitCode.OK
    written, expected = (
        Segmentation.from_image(tmp_path / "o.seg.nrrd"),
        segment_parts(image, named(two), Options(**CPU)),
    )
    assert np.array_equal(written.labels, expected.labels)
    assert [row.name for row in written.table.foreground] == [row.name for row in expected.table.foreground]


def named(sources):
    """The sources as models of their own."""
    return [Source(path, f"Dataset007_Small{' 2' * number}") for number, path in enumerate(sources)]


def test_names_that_meet_in_two_models_are_told_apart(two, image):
    sources = [Source(path, name) for path, name in zip(two, ("Hands", "Wells"), strict=True)]
    first, second = (result.labels for result in alone(image, two))
    result = segment_parts(image, sources, Options(**CPU))
    names = {1: "rock", 2: "paper (Hands)", 3: "well", 4: "paper (Wells)", 5: "scissors"}
    assert result.table.names == {0: "background", **names}
    of_second = np.array([0, 3, 4, 5], np.uint16)[second]
    assert np.array_equal(result.labels, np.where(second > 0, of_second, first))
    only = segment_parts(image, sources, Options(**CPU, classes=["paper (Wells)"]))
    assert np.array_equal(only.labels == 4, second == 2)
    with pytest.raises(LabelTableError, match=r"called paper; did you mean paper \((Hands|Wells)\), paper"):
        segment_parts(image, sources, Options(**CPU, classes=["paper"]))


@pytest.mark.parametrize(
    "other, meets",
    [("Kidney-Left", True), ("left kidney", True), ("kidney_right", False), ("kidney (A)", False)],
)
def test_names_meet_in_the_terminology_and_whatever_their_case(other, meets):
    tables = [LabelTable.from_names({0: "background", 1: "kidney_left"}), LabelTable.from_names({1: other})]
    names = {label.name for label in common_classes(tables, ["A", "B"]).table.foreground}
    assert names == ({"kidney_left (A)", f"{other} (B)"} if meets else {"kidney_left", other})


def test_a_name_that_is_told_apart_is_never_that_of_another_class():
    tables = [LabelTable.from_names(names) for names in ({1: "paper", 2: "paper (B)"}, {1: "paper"})]
    names = [label.name for label in common_classes(tables, ["A", "B"]).table.foreground]
    assert len(set(names)) == 3 and names[:2] == ["paper (A)", "paper (B)"] and names[2] == "paper (B) (3)"


def test_overlaps_are_kept_in_layers(two, image):
    sources = [Source(path, name) for path, name in zip(two, ("Hands", "Wells"), strict=True)]
    first, second = (result.labels for result in alone(image, two))
    kept = segment_parts(image, sources, Options(**CPU, overlap="keep"))
    below, above = kept.layers
    assert np.array_equal(below, first) and np.array_equal(above, np.array([0, 3, 4, 5], np.uint16)[second])
    apart = segment_parts(image, sources, Options(**CPU, overlap="keep", classes=["rock"]))
    assert len(apart.layers) == 1 and np.array_equal(apart.labels == 1, first == 1)
    with pytest.raises(ClassScaleError, match="confidence is that of one class in each voxel"):
        Options(overlap="keep", confidence=True)


@pytest.mark.parametrize("name, more", [("o.nii.gz", []), ("o.seg.dcm", []), ("o.seg.nrrd", ["-o", "p.mha"])])
def test_a_file_that_cannot_hold_overlaps_is_refused_first(two, image, tmp_path, capsys, name, more):
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    more = [*more[:-1], str(tmp_path / more[-1])] if more else []
    models = ["-m", str(two[0]), "-m", str(two[1]), "--overlap", "keep"]
    code = main(["segment", str(tmp_path / "ct.nrrd"), "-o", str(tmp_path / name), *more, *models])
    assert code == ExitCode.OUTPUT and "classes that overlap are to be kept" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("[op].*")] == []


def test_a_class_of_two_parts_stays_in_its_layer(two, image):
    first, second = (result.labels for result in alone(image, two))
    below, above = segment_parts(image, two, Options(**CPU, overlap="keep")).layers
    assert np.array_equal(below == 2, (first == 2) | (second == 2))
    assert np.array_equal(below == 1, (first == 1) & (second != 2))
    assert np.array_equal(above, np.array([0, 3, 0, 4], np.uint16)[second])


def test_parts_that_want_other_channels_are_refused(two, write_model, tmp_path):
    other = write_model(small_plans(channels=2), small_dataset(FIRST, channels=2), root=tmp_path / "other")
    with pytest.raises(ModelError, match=r"needs 2 channel\(s\), but .* needs 1. Models that segment the same image"):
        parts.common_channels([*two, other])
