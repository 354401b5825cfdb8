# ruff: noqa: F811  fixtures
"""Several readers of one folder of cases: who has which case open, who has saved it, and what the other one drew."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from ClassScaleSegLib import ImageError, Segmentation
from ClassScaleSegLib.images.case_claim import claim, claim_file, claimed_by, release
from ClassScaleSegLib.images.case_notes import CaseNotes, read_notes
from ClassScaleSegLib.images.review_state import review_state
from ClassScaleSegLib.images.seg_nrrd import stored_type, write_seg_nrrd
from ClassScaleSegLib.scene.case_files import find_cases, open_case
from slicer_application import application, qt, slicer, wait_until
from test_module_case_review import (  # noqa: F401
    choose,
    counted,
    folder,
    open_row,
    review,
    rows,
    scene,
    write_case,
)
from test_module_colors import result
from test_module_compare import labels, panel  # noqa: F401


def hold(case, **facts) -> None:
    """Let a reader on another computer have a case open."""
    told = {"reader": "Anna", "machine": "pc3", "process": 1, "since": "2026-11-30T08:05:00+00:00"} | facts
    claim_file(case).write_text(json.dumps(told), "utf-8")


def case_of(folder, name):
    return folder / "segmentations" / f"{name}.seg.nrrd"


def readers(shown) -> list[str]:
    model = shown.table.proxy
    return [model.data(model.index(row, 3)) for row in range(model.rowCount())]


@pytest.fixture
def answers(monkeypatch):
    """What the next question is answered with, and what was asked."""
    asked, answer = [], {"yes": False}
    monkeypatch.setattr(
        "ClassScaleSegPanel.results.case_review.ask", lambda text, title: (asked.append(text), answer["yes"])[1]
    )
    return asked, answer


def test_a_program_holds_what_it_opens_and_lets_it_go(panel, review, folder):
    first, second = case_of(folder, "a"), case_of(folder, "b")
    review.reader.text = "Ben"
    open_row(review, "a")
    told = json.loads(claim_file(first).read_text("utf-8"))
    assert told["reader"] == "Ben" and told["machine"] == platform.node() and told["process"] == os.getpid()
    assert claimed_by(first) is None, "it is this program"
    open_row(review, "a")
    assert claim_file(first).is_file(), "opened again"
    open_row(review, "b")
    assert not claim_file(first).exists() and claim_file(second).is_file()
    review.close()
    assert claim_file(second).is_file(), "the case stays open"
    panel.case_review.end()
    assert not claim_file(second).exists() and panel.case_review.opened is None


@pytest.mark.skipif(sys.platform == "win32", reason="links of folders need rights there")
def test_the_open_case_is_known_in_another_spelling_of_its_folder(panel, review, folder):
    open_row(review, "a")
    (folder / "link").symlink_to(folder / "segmentations")
    review.segmentations.text = str(folder / "link")
    review.segmentations.returnPressed.emit()
    open_row(review, "a")
    assert claim_file(case_of(folder, "a")).is_file(), "opened again"
    panel.ui.nextButton.click()
    panel.ui.checkedButton.click()
    review.next_button.click()
    assert rows(review)[0][1] == "1/3" and review.opened.files.name == "b"
    assert not claim_file(case_of(folder, "a")).exists() and claim_file(case_of(folder, "b")).is_file()


def test_removing_the_segmentation_lets_the_case_go(panel, review, folder):
    open_row(review, "a")
    slicer.mrmlScene.RemoveNode(panel.state.node)
    assert not claim_file(case_of(folder, "a")).exists()


def test_what_somebody_else_has_open_is_opened_after_a_question_alone(panel, review, folder, answers):
    asked, answer = answers
    hold(case_of(folder, "b"))
    open_row(review, "b")
    assert review.opened is None and claimed_by(case_of(folder, "b")).reader == "Anna"
    assert asked[0].startswith("Anna has b open on the computer pc3, since 2026-11-")
    assert asked[0].endswith(". Open it nevertheless?") and readers(review) == ["", "Anna (open)", ""]
    answer["yes"] = True
    open_row(review, "b")
    assert review.opened.files.name == "b" and claimed_by(case_of(folder, "b")) is None
    assert readers(review) == ["", "", ""]


def test_a_reader_without_a_name_is_told_by_the_computer(review, folder, answers):
    hold(case_of(folder, "b"), reader="")
    open_row(review, "b")
    assert answers[0][0].startswith("b is open on the computer pc3, since 2026-11-")
    assert readers(review)[1] == "pc3 (open)"


def test_the_way_to_the_next_case_passes_over_what_others_have_open(panel, review, folder):
    open_row(review, "a")
    hold(case_of(folder, "b"))
    review.next_button.click()
    application.processEvents()
    assert review.opened.files.name == "c" and claimed_by(case_of(folder, "b")).machine == "pc3"
    assert readers(review)[1] == "Anna (open)"


def test_a_case_that_cannot_be_opened_is_not_held(panel, review, folder, monkeypatch):
    monkeypatch.setattr("ClassScaleSegPanel.results.case_review.tell_error", lambda *texts: None)
    case_of(folder, "a").write_bytes(b"damaged")
    open_row(review, "a")
    assert review.opened is None and not claim_file(case_of(folder, "a")).exists()


def test_a_program_of_this_computer_that_has_crashed_holds_nothing(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    case = tmp_path / "a.seg.nrrd"
    claim(case)
    own = json.loads(claim_file(case).read_text("utf-8"))
    hold(case, machine=own["machine"], home=own["home"], process=ended.pid)
    assert claimed_by(case) is None
    hold(case, machine=own["machine"], process=ended.pid)
    assert claimed_by(case).reader == "Anna", "another computer of the same name"
    hold(case, machine=own["machine"], process=os.getpid())
    assert claimed_by(case).reader == "Anna", "also if the number of its program is that of this one"
    hold(case, machine=own["machine"], home=own["home"], process=os.getppid())
    assert claimed_by(case).reader == "Anna"
    release(case)
    assert claimed_by(case) is not None, "that of another program stays"
    claim(case)
    release(case)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 4000, '{"since": "soon"}', '{"since": 5, "reader": []}', '{"reader": "x"}', "\x00"]
)
def test_a_note_from_elsewhere_is_not_trusted(tmp_path, text):
    case = tmp_path / "a.seg.nrrd"
    claim_file(case).write_text(text, "utf-8")
    assert claimed_by(case) is None


def test_names_from_elsewhere_are_short_and_on_one_line(tmp_path):
    case = tmp_path / "a.seg.nrrd"
    hold(case, reader="An\x1b[2J\nna" + "a" * 200, machine=None)
    found = claimed_by(case)
    assert found.reader.startswith("An [2J na") and len(found.reader) == 60 and found.machine == ""


def test_a_folder_that_cannot_be_written_has_no_notes(tmp_path):
    (tmp_path / "file").write_text("")
    claim(tmp_path / "file" / "a.seg.nrrd")
    claim(tmp_path / "gone" / "a.seg.nrrd")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"], "a folder that is gone is not made"


def test_a_saved_case_names_its_readers(panel, review, folder):
    case = case_of(folder, "a")
    open_row(review, "a")
    panel.ui.nextButton.click()
    panel.ui.checkedButton.click()
    review.save_button.click()
    assert read_notes(case).readers == () and readers(review) == ["", "", ""], "no name was given"
    for name, told in (("Ben", ("Ben",)), ("Anna", ("Ben", "Anna")), (" Ben ", ("Anna", "Ben"))):
        review.reader.text = name
        panel.ui.nextButton.click()
        panel.ui.checkedButton.click()
        review.save_button.click()
        assert read_notes(case).readers == told == review_state(case).readers
    assert readers(review)[0] == "Anna, Ben"
    review.table.search.text = "anna"
    assert [row[0] for row in rows(review)] == ["a"], "the search finds readers"


def test_the_reader_is_remembered(panel, review):
    review.reader.text = " Ben "
    review.reader.editingFinished.emit()
    review.close()
    panel.ui.reviewCasesButton.click()
    assert panel.case_review.reader.text == "Ben"
    slicer.app.userSettings().remove("ClassScaleSeg/Reader")


def test_readers_come_with_the_other_notes(tmp_path):
    notes = CaseNotes(("liver",), ("model",), ("Anna", "Ben"))
    (tmp_path / "a").write_text("NRRD0004\n" + "".join(f"{k}:={v}\n" for k, v in notes.fields().items()) + "\n")
    assert read_notes(tmp_path / "a") == notes


def test_the_notes_on_a_thousand_corrected_structures_are_found(tmp_path):
    file, found = tmp_path / "a.seg.nrrd", result()
    notes = CaseNotes(
        tuple(f"structure {number} of the left side, with a long name" for number in range(2000)), (), ("Anna",)
    )
    write_seg_nrrd(file, found.layers, found.table, found.geometry, stored_type(found.table), True, notes.fields())
    assert read_notes(file) == notes


def test_a_file_is_read_again_if_it_has_changed_alone(review, folder, monkeypatch):
    from ClassScaleSegLib.images import review_state as module

    opened, read = [], module._header
    monkeypatch.setattr(module, "_header", lambda file: (opened.append(file.name), read(file))[1])
    review.segmentations.returnPressed.emit()
    assert opened == []
    write_case(folder, "b", 1, "_0000")
    os.utime(case_of(folder, "b"), ns=(1, 1))
    review.segmentations.returnPressed.emit()
    assert opened == ["b.seg.nrrd"]


# --- the segmentation of another reader


@pytest.fixture
def others(folder):
    """The folder of the other reader, who has drawn a and c."""
    second = folder / "second"
    second.mkdir()
    for name in "ac":
        (second / f"{name}.seg.nrrd").write_bytes(case_of(folder, name).read_bytes())
    return second


def with_others(review, others) -> None:
    review.others.text = str(others)
    review.others.returnPressed.emit()


def test_the_other_segmentation_comes_with_the_case_and_goes_with_it(scene, panel, review, folder, others):
    before = counted()
    with_others(review, others)
    open_row(review, "a")
    other = panel.ui.compareSelector.currentNode()
    assert other is review.opened.other and other.GetName() == "a other segmentation"
    assert not other.GetDisplayNode().GetVisibility() and panel.state.node is review.opened.segmentation
    open_row(review, "b")
    assert review.opened.other is None and panel.ui.compareSelector.currentNode() is None
    open_row(review, "c")
    slicer.mrmlScene.RemoveNode(review.opened.other)
    open_row(review, "b")
    assert np.subtract(counted(), before).tolist() == [1, 1, 1], "one case is in the scene"


def test_where_two_readers_differ_is_compared(panel, review, folder, others):
    Segmentation(labels(1), result().table, result().geometry).write(others / "a.seg.nrrd", overwrite=True)
    with_others(review, others)
    open_row(review, "a")
    panel.ui.compareButton.click()
    by_name = {row.name: row.dice for row in panel.comparing.rows}
    assert by_name["liver"] < 1 == by_name["spleen"]
    panel.ui.nextButton.click()
    panel.ui.checkedButton.click()
    other = (others / "a.seg.nrrd").read_bytes()
    review.save_button.click()
    assert (others / "a.seg.nrrd").read_bytes() == other, "that of the other reader is not written"


def test_the_folder_of_the_segmentations_is_no_other_one(folder):
    segmentations = folder / "segmentations"
    with pytest.raises(ImageError, match="is the folder of the segmentations themselves"):
        find_cases(folder / "images", segmentations, None, folder / "images" / ".." / "segmentations")
    with pytest.raises(ImageError, match="missing is no folder"):
        find_cases(folder / "images", segmentations, None, folder / "missing")


def test_a_damaged_one_of_the_other_reader_leaves_the_scene_as_it_was(scene, folder, others):
    (others / "a.seg.nrrd").write_bytes(b"damaged")
    cases, _told = find_cases(folder / "images", folder / "segmentations", None, others)
    before = counted()
    with pytest.raises(ImageError, match="second"):
        open_case(slicer.mrmlScene, cases[0])
    assert counted() == before


# --- all cases compared with those of the other reader


def agreements(shown) -> list[str]:
    model = shown.table.proxy
    return [model.data(model.index(row, 4)) for row in range(model.rowCount())]


def compared(shown) -> str:
    assert shown.compare_button.text == "Compare all"
    shown.compare_button.click()
    assert shown.compare_button.text == "Cancel"
    wait_until(lambda: not shown.comparing.is_running)
    application.processEvents()
    return shown.line.text


def test_the_case_of_most_disagreement_comes_first(panel, review, folder, others):
    assert not review.compare_button.enabled, "there is nothing to compare with"
    drawn = labels()
    drawn[6:9, 8:12, 9:12] = 0  # no left kidney, which the other cases have
    Segmentation(labels(1), result().table, result().geometry).write(others / "a.seg.nrrd", overwrite=True)
    Segmentation(drawn, result().table, result().geometry).write(others / "c.seg.nrrd", overwrite=True)
    with_others(review, others)
    assert compared(review) == "Cases compared: 2."
    assert agreements(review) == ["0.80 liver", "", "0.00 kidney_left"]
    review.table.view.sortByColumn(4, qt.Qt.AscendingOrder)
    assert [row[0] for row in rows(review)] == ["c", "a", "b"]
    review.table.view.sortByColumn(0, qt.Qt.AscendingOrder)
    open_row(review, "a")
    panel.ui.nextButton.click()
    panel.ui.checkedButton.click()
    review.save_button.click()
    assert agreements(review) == ["", "", "0.00 kidney_left"], "the file is another one"
    os.utime(others / "c.seg.nrrd", ns=(1, 1))
    review.segmentations.returnPressed.emit()
    assert agreements(review) == ["", "", ""], "that of the other reader, too"


def test_what_only_the_other_reader_has_drawn_is_no_agreement(panel, review, folder, others):
    drawn = labels()
    drawn[6:9, 8:12, 9:12] = 0
    Segmentation(drawn, result().table, result().geometry).write(case_of(folder, "c"), overwrite=True)
    with_others(review, others)
    compared(review)
    assert agreements(review) == ["1.00 liver", "", "0.00 kidney_left"]


def test_a_case_that_cannot_be_compared_is_told_and_the_others_are(review, folder, others):
    (others / "a.seg.nrrd").write_bytes(b"damaged")
    with_others(review, others)
    said = compared(review)
    assert said.startswith("Cases compared: 1. ") and "a.seg.nrrd" in said
    assert agreements(review)[0] == "" and agreements(review)[2] == "1.00 liver"


def test_nothing_that_can_be_compared_is_told(review, folder, others):
    for name in "ac":
        (others / f"{name}.seg.nrrd").write_bytes(b"damaged")
    with_others(review, others)
    assert "seg.nrrd" in compared(review) and agreements(review) == ["", "", ""]


def test_other_folders_end_a_comparison(review, folder, others):
    with_others(review, others)
    review.compare_button.click()
    process = review.comparing._process
    with_others(review, "")
    assert not review.comparing.is_running and process.state == "cancelled"
    assert not review.compare_button.enabled and review.compare_button.text == "Compare all"


def test_a_comparison_can_be_cancelled_and_ends_with_the_module(panel, review, others):
    with_others(review, others)
    for end in (review.compare_button.click, review.end):
        review.compare_button.click()
        process = review.comparing._process
        end()
        assert not review.comparing.is_running and process.state == "cancelled"


def test_files_that_were_saved_meanwhile_have_no_agreement(review, folder, others):
    with_others(review, others)
    review.compare_button.click()
    os.utime(case_of(folder, "a"), ns=(1, 1))
    wait_until(lambda: not review.comparing.is_running)
    assert agreements(review) == ["", "", "1.00 liver"]
