"""Removing islands against SciPy, class by class; both clean-ups as options, and what is said of them."""

from __future__ import annotations

import csv
import json
import sys
import threading

import numpy as np
import pytest
from ClassScaleSegLib import (
    Cancelled,
    ClassScaleError,
    LabelTableError,
    Options,
    Segmentation,
    open_model,
    segment,
)
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images import cleanup, smoothing
from ClassScaleSegLib.inference.several_models import segment_parts
from ClassScaleSegLib.resources import resource
from cleanup_fixtures import SHAPES, SPACINGS, check_report, random_labels, result_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")

TOY, SAMPLE = resource("Models", "toy-120.zip"), resource("SampleData", "toy-120.nrrd")


# --- islands ----------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    shape=SHAPES,
    classes=st.sampled_from((1, 3, 300, 65535)),
    spacing=st.sampled_from(SPACINGS),
    smallest=st.sampled_from((0.5, 1, 2, 3, 5, 5.5, 1000)),
    at_once=st.sampled_from((1, 7, 1 << 20)),
    few=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_islands_are_those_of_scipy_class_by_class(shape, classes, spacing, smallest, at_once, few, seed):
    labels = random_labels(shape, classes, seed)
    original, before = labels.copy(), result_of(labels, spacing)
    chosen = sorted({*np.unique(labels).tolist()} - {0})[: 2 if few else None]
    expected, islands = labels.copy(), {}
    for value in chosen:
        parts, count = ndimage.label(labels == value)
        for part in range(1, count + 1):
            if (parts == part).sum() < smallest:
                expected[parts == part] = 0
                islands[value] = islands.get(value, 0) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleanup, "VOXELS_AT_ONCE", at_once)
        mm3 = smallest * float(np.prod(spacing))
        after = before.without_islands(mm3, chosen if few and chosen else None)
    assert after.labels.dtype == np.uint16
    np.testing.assert_array_equal(after.labels, expected)
    np.testing.assert_array_equal(before.labels, original)
    check_report(before, after, islands)


def test_an_island_of_exactly_the_size_is_kept():
    labels = np.zeros((3, 20, 30), np.uint16)
    labels[1, 5:15, 5:15] = 1
    for step in (0.1, 0.3, 0.7, 1.1):
        before = result_of(labels, (step, step, step))
        for mm3 in (100 * step**3, 100 * step * step * step, round(100 * step**3, 6)):
            assert before.without_islands(mm3).changes == ()
        assert before.without_islands(101 * step**3).changes[0].after == 0


def test_a_common_edge_or_corner_connects_nothing():
    labels = np.zeros((2, 2, 4), np.uint16)
    labels[0, 0, 0] = labels[0, 1, 1] = labels[1, 0, 2] = 1
    [change] = result_of(labels).without_islands(2).changes
    assert (change.lost, change.islands) == (3, 3)


def test_the_same_class_is_not_connected_through_another():
    labels = np.array([1, 1, 2, 1, 0, 2, 2], np.uint16).reshape(1, 1, 7)
    assert result_of(labels).without_islands(2).labels.ravel().tolist() == [1, 1, 0, 0, 0, 2, 2]


def test_a_label_map_that_is_not_contiguous():
    labels = random_labels((6, 8, 10), 4, 0)
    turned = labels.transpose(2, 0, 1)[::-1]
    assert not turned.flags.c_contiguous
    for change in (lambda result: result.without_islands(3), lambda result: result.smoothed(1)):
        np.testing.assert_array_equal(
            change(result_of(turned)).labels, change(result_of(np.ascontiguousarray(turned))).labels
        )


# --- smoothing --------------------------------------------------------------------------------------------------------


# --- both, and what there is to say -----------------------------------------------------------------------------------


def test_smoothing_comes_before_islands_so_that_none_is_left():
    labels = random_labels((12, 14, 16), 3, 5)
    before = result_of(labels)
    both = before.cleaned(smooth=0.7, remove_islands=6)
    np.testing.assert_array_equal(both.labels, before.smoothed(0.7).without_islands(6).labels)
    assert both.without_islands(6).changes == ()
    islands = {change.value: change.islands for change in before.smoothed(0.7).without_islands(6).changes}
    check_report(before, both, islands)
    assert before.changes is None and before.cleaned().changes == ()


def test_confidence_table_and_grid_stay():
    labels = random_labels((4, 5, 6), 2, 0)
    before = result_of(labels, confidence=np.random.default_rng(0).random(labels.shape, np.float32))
    after = before.cleaned(1.0, 5)
    assert after.changes and (after.table, after.geometry) == (before.table, before.geometry)
    assert after.confidence is before.confidence


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 7), (5, 1, 1)])
@pytest.mark.parametrize("value", [0, 65535])
def test_one_class_everywhere_is_not_changed(shape, value):
    result = result_of(np.full(shape, value, np.uint16))
    assert result.cleaned(3.0, 1.0).changes == ()
    if value:
        [change] = result.without_islands(1e6).changes
        assert change.after == 0 and change.islands == 1


def test_a_class_that_was_not_found_may_be_named():
    assert result_of(np.zeros((2, 3, 4), np.uint16)).cleaned(1, 5, ["class 2"]).changes == ()


@pytest.mark.parametrize("number", [0, -5, float("nan"), float("inf")])
def test_numbers_that_are_not_positive_are_sentences(number):
    result = result_of(np.zeros((2, 3, 4), np.uint16))
    with pytest.raises(ClassScaleError, match=f"The smallest island is {number}; it must be a number above 0."):
        result.without_islands(number)
    with pytest.raises(ClassScaleError, match=f"The smoothing is {number}; it must be a number above 0."):
        result.smoothed(number)


def test_a_class_that_the_table_lacks_is_a_sentence():
    result = result_of(np.zeros((2, 3, 4), np.uint16))
    with pytest.raises(LabelTableError, match="spleen"):
        result.smoothed(1, ["class 1", "spleen"])
    with pytest.raises(LabelTableError, match="77"):
        result.without_islands(1, [77])


def test_a_missing_package_is_a_sentence_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cc3d", None)
    with pytest.raises(ClassScaleError, match="python -m pip install connected-components-3d$"):
        result_of(np.ones((2, 3, 4), np.uint16)).without_islands(5)


def test_smoothing_reports_its_blocks_and_can_be_stopped(monkeypatch):
    monkeypatch.setattr(smoothing, "_BLOCK", 4)
    steps = []
    result_of(random_labels((9, 10, 11), 3, 0)).cleaned(0.1, step=lambda *numbers: steps.append(numbers))
    assert steps == [(done, 27) for done in range(28)]

    def stop(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        result_of(random_labels((9, 10, 11), 3, 0)).cleaned(0.1, step=stop)


def test_many_changed_classes_are_one_sentence():
    few = [cleanup.ClassChange(value, f"class {value}", 10, 9, 2, 1, 1) for value in range(1, 21)]
    assert list(cleanup.sentences(few))[3] == (
        "Cleaned up class 4: from 10 to 9 voxels (2 lost, 1 gained), 1 island removed."
    )
    assert list(cleanup.sentences([*few, few[0]])) == [
        "Cleaning up changed 21 classes, which lost 42 voxels and gained 21; islands removed: 21."
    ]


# --- as options -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    """A file with a part of the embedded sample."""
    file = tmp_path_factory.mktemp("images") / "corner.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(SAMPLE))[20:60, 20:60, 20:60], str(file))
    return file


@pytest.fixture(scope="module")
def plain(corner):
    """What the model says without a clean-up."""
    return segment(corner, open_model(TOY), device="cpu", mirroring=False, confidence=True)


def command(corner, folder, *more):
    out = folder / "out.seg.nrrd"
    wanted = ["segment", corner, "-m", "toy-120", "-o", out, "--device", "cpu", "--no-mirroring", *more]
    return main([str(word) for word in wanted]), out


def test_the_command_cleans_up_and_says_what_changed(corner, plain, tmp_path, capsys):
    named = [row.name for row in plain.statistics() if row.voxels][:3]
    more = ["--smooth", 1.5, "--remove-islands", 500, "--clean-classes", *named, "--json-progress"]
    more += ["--confidence", tmp_path / "c.nrrd", "--statistics", tmp_path / "s.csv"]
    code, out = command(corner, tmp_path, *more)
    assert code == ExitCode.OK
    expected = plain.cleaned(1.5, 500, named)
    written = Segmentation.from_image(out)
    assert expected.changes
    np.testing.assert_array_equal(written.labels, expected.labels)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["changes"] == [vars(change) for change in expected.changes]
    assert {"clean"} < {event.get("stage") for event in events}
    told = [event["message"] for event in events if event.get("stage") == "clean" and event.get("message")]
    assert told == [f"Cleaned up {change}." for change in expected.changes]
    confidence = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "c.nrrd")))
    np.testing.assert_allclose(confidence, plain.confidence, atol=1e-6)
    rows = {row["Name"]: int(row["Voxels"]) for row in csv.DictReader((tmp_path / "s.csv").open())}
    assert rows == {row.name: row.voxels for row in expected.statistics()}


def test_the_command_tells_people_what_changed(corner, plain, tmp_path, capsys):
    code, out = command(corner, tmp_path, "--remove-islands", "500")
    assert code == ExitCode.OK
    expected = plain.without_islands(500)
    np.testing.assert_array_equal(Segmentation.from_image(out).labels, expected.labels)
    said = capsys.readouterr().err
    assert all(sentence in said for sentence in cleanup.sentences(expected.changes))


def test_without_the_options_nothing_is_cleaned_up(corner, plain, tmp_path, capsys):
    code, out = command(corner, tmp_path, "--json-progress")
    assert code == ExitCode.OK and plain.changes is None
    np.testing.assert_array_equal(Segmentation.from_image(out).labels, plain.labels)
    assert "clean" not in capsys.readouterr().out


def test_several_models_are_cleaned_up_together(corner, plain):
    options = Options(device="cpu", mirroring=False, smooth=1.5, remove_islands=500)
    reports = []
    found = segment_parts(corner, [TOY, TOY], options, reports.append)
    expected = plain.cleaned(1.5, 500)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.changes == expected.changes
    assert [report.message for report in reports if report.message] == list(cleanup.sentences(expected.changes))
    assert {report.part for report in reports if report.stage == "clean"} == {2}


def test_a_run_can_be_cancelled_while_it_cleans_up(corner, monkeypatch):
    monkeypatch.setattr(smoothing, "_BLOCK", 4)
    token = threading.Event()

    def cancel(report) -> None:
        if report.stage == "clean" and report.done:
            token.set()

    with pytest.raises(Cancelled, match="during clean"):
        segment(
            corner, open_model(TOY), device="cpu", mirroring=False, step=1.0, smooth=1, progress=cancel, cancel=token
        )


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--remove-islands", "-5"], "The remove_islands is -5.0; it must be a number above 0"),
        (["--remove-islands", "many"], "could not convert string to float: 'many'"),
        (["--smooth", "-0.5"], "The smooth is -0.5; it must be a number above 0 and at most 20"),
        (["--smooth", "21"], "The smooth is 21.0; it must be a number above 0 and at most 20"),
    ],
)
def test_numbers_out_of_range_are_refused(corner, tmp_path, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        command(corner, tmp_path, *arguments)
    assert ended.value.code == ExitCode.USAGE and sentence in capsys.readouterr().err


def test_faults_are_found_before_the_image_is_read(tmp_path, capsys, monkeypatch):
    damaged = tmp_path / "damaged.nrrd"
    damaged.write_bytes(b"no image")

    def fails(code: ExitCode, sentence: str, *arguments: str) -> None:
        assert command(damaged, tmp_path, *arguments)[0] == code
        assert sentence in capsys.readouterr().err

    fails(ExitCode.LABELS, "spleen", "--smooth", "1", "--clean-classes", "spleen")
    fails(ExitCode.LABELS, "cell 5", "--smooth", "1", "--classes", "cell 7", "--clean-classes", "cell 5")
    fails(ExitCode.LABELS, "spleen", "-m", "toy-1000", "--smooth", "1", "--clean-classes", "spleen")
    fails(ExitCode.USAGE, "needs smooth (--smooth) or remove_islands", "--clean-classes", "cell 5")
    monkeypatch.setitem(sys.modules, "cc3d", None)
    fails(ExitCode.FAULT, "python -m pip install connected-components-3d", "--remove-islands", "5")
