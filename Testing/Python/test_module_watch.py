# ruff: noqa: F811  fixtures
"""The dialog "Watch an archive" of the panel: what it starts, asks and shows, and what goes on without it."""

from __future__ import annotations

import json
from dataclasses import replace

import psutil
import pytest
from archive_fixtures import no_credentials, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.commands.main import _parser
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.options import FIELDS, Options
from slicer_application import slicer, wait_until
from test_module_archive import no_keyring  # noqa: F401
from test_module_compare import panel, scene, shown, told  # noqa: F401

# isort: split
from ClassScaleSegPanel.archives import watching
from ClassScaleSegPanel.archives.known import KnownArchive, known_archives, remember
from ClassScaleSegPanel.runs.request import watching_with

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_phantom import planes, write_series  # noqa: E402

SETTINGS = ("Archives", "ArchivesAgreed", "Watch", "WatchFolder")
STUDY = "1.2.826.0.1.3680043.8.498.1"


def forget_settings():
    for name in SETTINGS:
        slicer.app.userSettings().remove(f"ClassScaleSeg/{name}")


@pytest.fixture
def dialog(panel, shelf, no_keyring, tmp_path, monkeypatch):
    """The open dialog, with an archive and a folder; results stay there."""
    forget_settings()
    monkeypatch.setattr(watching, "EVERY", 5)
    panel.queue.add_menu.aboutToShow.emit()
    next(action for action in panel.queue.add_menu.actions() if action.text == "Watch an archive...").trigger()
    shown = panel.watch
    shown.access.address.setEditText(shelf.address)
    shown.folder.text, shown.least.text, shown.sends.checked = str(tmp_path / "out"), "2", False
    yield shown
    shown.end()
    forget_settings()


@pytest.fixture
def arrived(shelf, tmp_path):
    """Two series that have arrived, as an earlier attempt has noted."""
    records = tmp_path / "out" / "records"
    records.mkdir(parents=True)
    for number in (1, 2):
        uid = f"1.2.{number}"
        shelf.add(write_series(tmp_path / uid, planes(4), uid, SeriesNumber=number))
        facts = {"series": uid, "study": STUDY, "images": 4, "state": "failed", "reason": "It was stopped."}
        with replacing(records / f"{uid}.json", overwrite=True) as file:
            file.write_text(json.dumps(facts))
    shelf.ignores.add("filters")  # the studies are of another day
    return tmp_path / "out"


def test_what_is_missing_is_said_and_nothing_is_started(panel, dialog, monkeypatch):
    for field, text, said in (
        ("folder", "out", "Choose the folder for the results; give its whole path."),
        ("least", "0", "The least number of images must be a whole number, such as 10."),
    ):
        before = getattr(dialog, field).text
        getattr(dialog, field).text = text
        dialog.start_button.click()
        assert dialog.status.text == said and dialog.process is None
        getattr(dialog, field).text = before
    monkeypatch.setattr(panel.state, "server", object())
    dialog.start_button.click()
    assert "Choose another device than a server." in dialog.status.text and dialog.process is None


def test_nothing_is_sent_without_an_agreement_that_names_the_archive(dialog, shelf, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or False)
    dialog.sends.checked, dialog.description.text = True, "venous"
    dialog.start_button.click()
    assert dialog.process is None and not shelf.requests and shelf.address in asked[0]
    assert "Description: venous" in asked[0] and "WITHOUT a further question" in asked[0]
    dialog.sends.checked = False
    dialog.start_button.click()
    assert dialog.process is not None and len(asked) == 1 and "--no-send" in dialog.process.words


def test_it_goes_on_without_the_window_and_ends_with_stop(panel, dialog, arrived, shelf):
    dialog.access.user.text, dialog.access.secret.text = "me", "hidden"
    dialog.start_button.click()
    process = dialog.process
    wait_until(lambda: "failed" in [row[1] for row in shown(dialog.table)], 60)
    wait_until(lambda: "Last look: " in dialog.status.text, 60)
    assert "hidden" not in " ".join(psutil.Process(process.pid).cmdline())
    dialog.dialog.close()
    assert dialog.process is process and not panel.ui.queueCollapsibleButton.collapsed
    wait_until(lambda: "2 done" in panel.queue.watched.text, 120)
    assert not panel.queue.watched.isHidden()
    assert sorted(file.name for file in (arrived / "results").iterdir()) == ["1.2.1.seg.dcm", "1.2.2.seg.dcm"]
    assert known_archives()[0].user == "me" and shelf.requests[0][2]["Authorization"].startswith("Basic ")
    dialog.open()
    assert shown(dialog.table) == [] and not dialog.start_button.enabled
    dialog.cancel_button.click()
    assert dialog.status.text == "Stopped. To go on, start with the same folder." and panel.queue.watched.isHidden()
    assert not psutil.pid_exists(process.pid) and not process.work_folder.exists()


def test_the_window_names_the_archive_that_is_watched_and_not_the_one_asked_last(dialog, shelf):
    shelf.answer = lambda *_: (503, {"Content-Type": "text/plain"}, b"maintenance")
    dialog.access.user.text = "me"
    dialog.start_button.click()
    dialog.dialog.close()
    remember(KnownArchive("http://localhost:1/other", "you"))
    dialog.open()
    assert dialog.process is not None and dialog.access.archive() == KnownArchive(shelf.address, "me")
    assert not dialog.access.address.enabled


def test_a_fault_opens_the_window_again(panel, dialog, arrived, monkeypatch):
    (arrived / "records" / "1.2.1.json").unlink()
    dialog.modality.setEditText("C\\T")
    dialog.start_button.click()
    dialog.dialog.close()
    wait_until(lambda: dialog.process is None, 60)
    assert dialog.dialog is not None and "cannot be searched for" in dialog.status.text
    assert panel.queue.watched.isHidden()


def test_the_choices_are_there_the_next_time(dialog, tmp_path):
    dialog.modality.setEditText("MR")
    dialog.days.setCurrentIndex(dialog.days.findData(7))
    dialog.start_button.click()
    dialog.cancel_button.click()
    dialog.open()
    assert (dialog.modality.currentText, dialog._day_count(), dialog.least.text) == ("MR", 7, "2")
    assert dialog.folder.text == str(tmp_path / "out") and not dialog.sends.checked


def test_all_that_the_panel_shows_of_a_run_counts(panel, dialog, tmp_path):
    chosen = {"device": "cpu", "step": 0.75, "mirroring": False, "bfloat16": True, "folds": "0, 2", "threads": 3}
    chosen |= {"memoryLimit": 4.5, "smooth": 1.5, "removeIslands": 20.0, "locateWith": "none", "keepEmpty": True}
    panel.store(**chosen, interpolation="nearest", classes="cell 7\ncell 9")
    models, options = watching_with(panel.state)
    words = ["dicom", "watch", "--from", "http://localhost", "--modality", "CT", "--days", "1", "-o", str(tmp_path)]
    parsed = vars(_parser().parse_args([*words, "-m", *models, *watching._words_of(options)]))
    there = {name: value for name, value in parsed.items() if name in FIELDS}
    assert replace(Options(**there), dicom_seg=options.dicom_seg) == options
    wanted = Options(
        **{"device": "cpu", "step": 0.75, "mirroring": False, "bfloat16": True, "folds": (0, 2), "threads": 3},
        **{"memory_limit_gib": 4.5, "smooth": 1.5, "remove_islands": 20.0, "locate_with": "none"},
        **{"interpolation": "nearest", "classes": ("cell 7", "cell 9")},
    )
    assert replace(options, folds=wanted.folds) == wanted and list(map(int, options.folds)) == [0, 2]


def test_overlaps_are_not_kept_in_an_archive(panel, dialog, monkeypatch):
    panel.store(overlap="keep")
    two = panel.state.summaries * 2
    monkeypatch.setattr(type(panel.state), "summaries", property(lambda state: two))
    dialog.start_button.click()
    assert "Do not keep overlaps." in dialog.status.text and dialog.process is None
