# ruff: noqa: F811  fixtures
"""The dialog "From an archive" of the panel: what it asks an archive, what it fetches, what it keeps and forgets."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import threading
import time

import pytest
import sentences
import translations
from archive_fixtures import no_credentials, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.catalog.catalog import data_folder
from reading_server import JSON
from slicer_application import qt, slicer, wait_until
from test_module_compare import panel, scene, shown, told  # noqa: F401
from test_module_queue import states
from test_translations import english_words, german  # noqa: F401

# isort: split
from ClassScaleSegPanel.archives.known import KnownArchive, known_archives, remember, secret_of
from ClassScaleSegPanel.archives.words import panel_words
from ClassScaleSegPanel.widgets.process_dialog import POLL_MILLISECONDS

pytest.importorskip("pydicom")

from dicom_phantom import planes, write_series  # noqa: E402

ROOT = "1.2.826.0.1.3680043.8.498.7"
SETTINGS = ("Archives", "ArchivesAgreed", "ArchiveFolder")


@pytest.fixture
def archive(shelf, tmp_path):
    """Two studies: two series of CT and a segmentation; a series of MR."""
    for study, number, modality, what in ((1, 1, "CT", "venous"), (1, 2, "CT", "lung"), (1, 3, "SEG", "organs"),
                                          (2, 4, "MR", "T1")):  # fmt: skip
        facts = {"PatientName": ("Doe^Jane", "Smith^John")[study - 1], "PatientID": f"p-{study}"}
        facts |= {"StudyDate": "20260102", "StudyDescription": "Chest", "StudyInstanceUID": f"{ROOT}.{study}"}
        facts |= {"Modality": modality, "SeriesDescription": what, "SeriesNumber": number}
        shelf.add(write_series(tmp_path / f"{number}", planes(4), f"{ROOT}.{study}.{number}", **facts))
    return shelf


@pytest.fixture
def no_keyring(monkeypatch):
    monkeypatch.setattr("ClassScaleSegLib.kept_secrets._keyring", lambda: None)
    yield
    (data_folder() / "archive-secrets.json").unlink(missing_ok=True)


@pytest.fixture
def dialog(panel, no_keyring):
    """The open dialog, which nothing was chosen in before."""
    for name in SETTINGS:
        slicer.app.userSettings().remove(f"ClassScaleSeg/{name}")
    menu = panel.queue.add_menu
    menu.aboutToShow.emit()
    next(action for action in menu.actions() if action.text == "From an archive...").trigger()
    yield panel.archive
    panel.archive.end()
    for name in SETTINGS:
        slicer.app.userSettings().remove(f"ClassScaleSeg/{name}")


def ended(dialog, seconds=60):
    wait_until(lambda: dialog.process is None, seconds)


def searched(dialog, archive, **criteria):
    dialog.access.address.setEditText(archive.address)
    for name, text in criteria.items():
        getattr(dialog.criteria, name).text = text
    dialog.search_button.click()
    ended(dialog)
    return dialog.status.text


def rows(dialog):
    return [row[:4] for row in shown(dialog.table)]


def test_what_is_found_is_listed_without_what_has_no_voxels(dialog, archive):
    assert not dialog.fetch_button.enabled and not dialog.cancel_button.enabled and dialog.bar.isHidden()
    assert not dialog.access.forget_button.enabled
    said = searched(dialog, archive)
    assert dialog.access.forget_button.enabled
    assert rows(dialog) == [
        ["Doe Jane", "2026-01-02 Chest", "CT: venous", "4"],
        ["Doe Jane", "2026-01-02 Chest", "CT: lung", "4"],
        ["Smith John", "2026-01-02 Chest", "MR: T1", "4"],
    ]
    assert said.startswith("3 series found. Tick those that you want. Of 1 more,")
    assert known_archives() == [KnownArchive(archive.address)]


def test_the_criteria_are_asked_for(dialog, archive):
    dialog.criteria.modality.setEditText("ct")
    said = searched(dialog, archive, name="nobody", patient="p-*", first="2026-01-01", last="31.01.2026")
    asked = dict(archive.requests[0][1])
    assert {key: asked[key] for key in ("PatientName", "PatientID", "StudyDate", "ModalitiesInStudy")} == {
        "PatientName": "*nobody*", "PatientID": "p-*", "StudyDate": "20260101-20260131", "ModalitiesInStudy": "CT"
    }  # fmt: skip
    assert said == "No study is like that. Some archives compare upper and lower case, and accents of names."
    said = searched(dialog, archive, name="Doe")
    assert said == "2 series found. Tick those that you want." and len(rows(dialog)) == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"first": "yesterday"}, "yesterday is not a day. Write it as 2026-01-31, or leave it out."),
        ({"first": "20260230"}, "20260230 is not a day."),
        ({"first": "2026-02-01", "last": "2026-01-01"}, "The search ends before it begins."),
        ({"name": "a\\b"}, "cannot be searched for. Give 1 to 64 letters without a backslash, or leave it out."),
    ],
)
def test_what_cannot_be_searched_for_is_said_and_not_asked(dialog, archive, fields, sentence):
    assert sentence in searched(dialog, archive, **fields) and not archive.requests
    assert known_archives() == []


def test_fetched_series_are_cases_of_the_queue(panel, dialog, archive, tmp_path):
    searched(dialog, archive)
    dialog.folder.text = str(tmp_path / "got")
    assert not dialog.fetch_button.enabled
    dialog.table.tick([f"{ROOT}.1.2", f"{ROOT}.2.4"])
    dialog.render()
    archive.answer = lambda path, *_: time.sleep(0.5) if "/instances" in path else None  # longer than between two looks
    seen = set()
    dialog.fetch_button.click()
    wait_until(lambda: (seen.add((dialog.status.text, dialog.cancel_button.enabled)), dialog.process is None)[1], 60)
    assert any(text.startswith("Fetching series 1 of 2: ") and on for text, on in seen)
    assert dialog.status.text == "2 series are there, and in the list of volumes."
    assert sorted(os.listdir(tmp_path / "got")) == [f"{ROOT}.1.2", f"{ROOT}.2.4"]
    assert states(panel) == {"Doe Jane - CT: lung": "waiting", "Smith John - MR: T1": "waiting"}
    keys = [key for key, _name in panel.queue.chosen()]
    assert keys == [f"file:{tmp_path}/got/{ROOT}.1.2", f"file:{tmp_path}/got/{ROOT}.2.4"]
    assert [row[4] for row in shown(dialog.table)] == ["", "fetched", "fetched"] and dialog.table.ticked() == []
    from ClassScaleSegPanel.inputs.queued_case import volumes_of_case

    (volume,) = volumes_of_case(keys[0], "CT", ["CT"])
    assert volume.GetImageData().GetDimensions()[2] == 4


def test_with_several_channels_a_study_is_a_case(panel, dialog, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(type(panel.state), "channels", ("T1", "FLAIR"))
    searched(dialog, archive)
    dialog.folder.text = str(tmp_path / "got")
    dialog.table.tick(dialog.table.keys())
    dialog.fetch()
    assert f"{ROOT}.1.2" not in " ".join(dialog.process.words), "Windows has no room for hundreds"
    ended(dialog)
    assert [name for _key, name in panel.queue.chosen()] == [
        "Doe Jane / 2026-01-02 Chest", "Smith John / 2026-01-02 Chest"
    ]  # fmt: skip
    assert panel.queue.chosen()[0][0].count("\n") == 2


def test_a_series_that_is_not_whole_is_not_segmented(panel, dialog, archive, tmp_path):
    searched(dialog, archive)
    dialog.folder.text = str(tmp_path / "got")
    archive.answer = lambda path, *_: (404, {}, b"") if path.count("/") >= 4 and ".1.2" in path else None
    dialog.table.tick([f"{ROOT}.1.1", f"{ROOT}.1.2"])
    dialog.fetch()
    ended(dialog)
    assert list(states(panel)) == ["Doe Jane - CT: venous"]
    assert "One series is there, and in the list of volumes. Doe Jane - CT: lung: " in dialog.status.text
    assert "0 of 4 images are there." in dialog.status.text
    assert [row[4] for row in shown(dialog.table)] == ["fetched", "incomplete", ""]
    assert dialog.table.ticked() == [f"{ROOT}.1.2"], "to try it again"


def test_cancelling_takes_over_what_is_whole(panel, dialog, archive, tmp_path):
    searched(dialog, archive)
    dialog.folder.text = str(tmp_path / "got")
    ending, waiting = threading.Event(), threading.Event()

    def answer(path, *_):
        if path.endswith(".1.2"):
            waiting.set()
            ending.wait(30)

    archive.answer = answer
    dialog.table.tick([f"{ROOT}.1.1", f"{ROOT}.1.2"])
    dialog.fetch()
    wait_until(lambda: waiting.is_set() and "Fetching series" in dialog.status.text, 60)
    dialog.cancel_button.click()
    ending.set()
    assert dialog.process is None and dialog.status.text.startswith("Cancelled. What has arrived is kept")
    assert list(states(panel)) == ["Doe Jane - CT: venous"] and not dialog.timer.isActive()
    assert dialog.search_button.enabled and dialog.fetch_button.enabled


def test_a_closed_dialog_goes_on_fetching_and_opens_at_the_end(panel, dialog, archive, tmp_path):
    searched(dialog, archive)
    dialog.folder.text = str(tmp_path / "got")
    dialog.table.tick([f"{ROOT}.1.1"])
    dialog.fetch()
    dialog.dialog.reject()
    assert dialog.dialog is None and dialog.process is not None
    ended(dialog)
    assert list(states(panel)) == ["Doe Jane - CT: venous"]
    assert dialog.dialog is not None and dialog.status.text.startswith("One series is there")
    assert dialog.folder.text == str(tmp_path / "got")


def test_a_search_ends_with_its_window(dialog, archive):
    ending = threading.Event()
    archive.answer = lambda *_: ending.wait(30) and None
    dialog.access.address.setEditText(archive.address)
    dialog.search()
    process = dialog.process
    dialog.close()
    ending.set()
    assert dialog.process is None and process.state == "cancelled"


def test_without_a_folder_nothing_is_fetched(dialog, archive):
    searched(dialog, archive)
    dialog.table.tick([f"{ROOT}.1.1"])
    for text in ("", "got"):
        dialog.folder.text = text
        dialog.fetch()
        assert dialog.process is None and dialog.status.text.startswith("Choose the folder to which")


# --- who asks


def test_a_password_is_kept_only_if_the_user_wants_it_and_not_in_the_settings(dialog, archive):
    dialog.access.address.setEditText(archive.address)
    dialog.access.user.text, dialog.access.secret.text = "me", "pass-word"
    dialog.search_button.click()
    ended(dialog)
    assert archive.requests[-1][2]["Authorization"] == "Basic bWU6cGFzcy13b3Jk"
    file = data_folder() / "archive-secrets.json"
    assert not file.exists() and dialog.access.secret.text == "pass-word", "for the fetch that follows"
    dialog.access.keep.checked = True
    dialog.search_button.click()
    ended(dialog)
    mine = KnownArchive(archive.address, "me")
    assert secret_of(mine) == "pass-word" and known_archives() == [mine]
    assert dialog.access.secret.text == "" and dialog.access.secret.placeholderText == "as before"
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    settings = slicer.app.userSettings()
    assert all("pass-word" not in str(settings.value(key)) for key in settings.allKeys())
    archive.requests.clear()
    dialog.close()
    dialog.open()
    assert dialog.access.archive() == mine and dialog.access.keep.checked
    dialog.search_button.click()
    ended(dialog)
    assert archive.requests[-1][2]["Authorization"] == "Basic bWU6cGFzcy13b3Jk"
    dialog.access.keep.checked = False
    dialog.search_button.click()
    ended(dialog)
    assert secret_of(mine) == ""


def test_a_password_reaches_no_other_address_and_no_other_user(dialog, archive):
    remember(KnownArchive(archive.address, "me"))
    from ClassScaleSegPanel.archives.known import keep_secret

    keep_secret(KnownArchive(archive.address, "me"), "pass-word")
    dialog.open()
    assert dialog.access.archive().user == "me"
    dialog.access.user.text = "you"
    assert dialog.access.access().secret == "" and not dialog.access.keep.checked
    dialog.access.user.text = "me"
    assert dialog.access.access().secret == "pass-word"
    dialog.access.address.setEditText("https://elsewhere.invalid/dicom-web")
    assert dialog.access.access().secret == ""


def test_forgetting_an_archive_forgets_its_secret(dialog, archive, monkeypatch):
    from ClassScaleSegPanel.archives.known import keep_secret

    mine = KnownArchive(archive.address, "me")
    remember(mine)
    keep_secret(mine, "pass-word")
    dialog.open()
    questions = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: questions.append(text) or True)
    dialog.access.forget_button.click()
    assert questions == [f"Forget {archive.address}, and its password or token?"]
    assert known_archives() == [] and secret_of(mine) == "" and dialog.access.archive() == KnownArchive("")
    assert not dialog.access.forget_button.enabled


@pytest.mark.parametrize("yes", [True, False])
def test_an_address_of_http_is_asked_only_after_yes(dialog, monkeypatch, yes):
    questions, started = [], []
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **more: questions.append(text) or yes, raising=False
    )
    monkeypatch.setattr("ClassScaleSegLib.process.archive.ArchiveProcess.start", lambda self: started.append(self))
    dialog.access.address.setEditText("http://pacs.invalid:8042/dicom-web/")
    dialog.search()
    assert len(questions) == 1 and "http://pacs.invalid:8042/dicom-web\n" in questions[0]
    assert "NOT encrypted" in questions[0] and bool(started) == yes
    dialog.end()
    dialog.open()
    dialog.access.address.setEditText("http://pacs.invalid:8042/dicom-web")
    dialog.search()
    assert len(questions) == (1 if yes else 2), "a Yes is remembered"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("", "Enter the address of the archive."),
        ("https://me:pass@pacs.invalid/dicom-web", "Enter user and password in their own fields, not in the address."),
        ("pacs.invalid/dicom-web", "is not an address of a DICOM archive. Give the root of its DICOMweb service"),
        ("http://127.0.0.1:9/dicom-web", "cannot be reached"),
    ],
)
def test_what_is_no_address_is_said_and_not_remembered(dialog, address, sentence):
    dialog.access.address.setEditText(address)
    dialog.search()
    ended(dialog)
    assert sentence in dialog.status.text and known_archives() == []


def test_an_archive_that_asks_who_it_is_tells_the_dialog_s_words(dialog, archive):
    archive.answer = lambda *_: (401, {}, b"")
    said = searched(dialog, archive)
    assert said == f"{archive.address} asks who you are (status 401). Enter user and password, or a token."
    archive.answer = lambda path, *_: (200, JSON, json.dumps([{}] * 3).encode())
    assert "do not" not in searched(dialog, archive) and "left out" in dialog.status.text


@pytest.mark.parametrize("setting", ["{", "[3]", '[{"address": 3}]', '[{"address": "a", "more": ""}]', '{"a": 1}'])
def test_settings_that_are_damaged_are_none(dialog, setting):
    slicer.app.userSettings().setValue("ClassScaleSeg/Archives", setting)
    assert known_archives() == []
    dialog.open()
    assert dialog.access.archive() == KnownArchive("")


def test_a_file_of_secrets_that_is_damaged_is_said(dialog, archive):
    remember(KnownArchive(archive.address, "me"))
    file = data_folder() / "archive-secrets.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{")
    dialog.open()
    dialog.search()
    assert "archive-secrets.json cannot be read" in dialog.status.text and not archive.requests


def test_no_sentence_on_archives_speaks_of_options_of_the_command():
    catalogue = translations.read(translations.FOLDER / "ClassScaleSeg_de.ts")
    said = {text for file in (sentences.MODULE / "ClassScaleSegLib" / "archive").glob("*.py")
            for text in sentences._templates(ast.parse(file.read_text(encoding="utf-8")))}  # fmt: skip
    assert len(said) > 100
    for text in said:
        in_english = panel_words(text.replace("--{what}", "--name"))
        for words in (in_english, catalogue[sentences.LIBRARY, text].text):
            assert not re.search("--[a-z]|CLASSSCALESEG_|REQUESTS_CA|classscaleseg ", words), words


# --- the keyboard and screen readers


def test_all_fields_have_names_and_the_focus_stays_at_hand(dialog, archive):
    fields = [*dialog.criteria.fields, dialog.access.address, dialog.access.user, dialog.access.secret]
    fields += [dialog.access.certificate, dialog.folder]
    assert [field.accessibleName for field in fields] == [
        "Patient's name", "Patient's ID", "Study from", "Study until", "Description", "Modality",
        "Address", "User", "Password or token", "Certificate", "Folder",
    ]  # fmt: skip
    labels = [label.text for label in dialog.dialog.findChildren(qt.QLabel) if label.buddy() is not None]
    shortcuts = [text[text.index("&") + 1].lower() for text in labels]
    assert len(set(shortcuts)) == len(shortcuts)
    dialog.dialog.activateWindow()
    qt.QApplication.processEvents()
    dialog.access.address.setEditText(archive.address)
    dialog.search_button.setFocus()
    dialog.search()
    assert qt.QApplication.focusWidget() is dialog.cancel_button
    ended(dialog)
    assert qt.QApplication.focusWidget() is dialog.search_button


def test_enter_in_a_field_searches(dialog, archive):
    dialog.access.address.setEditText(archive.address)
    dialog.criteria.name.returnPressed.emit()
    ended(dialog)
    assert len(rows(dialog)) == 3 and POLL_MILLISECONDS < 500


def test_both_dialogs_are_german_and_not_too_wide(panel, no_keyring, scene, german):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organe")
    panel.archive.open()
    panel.results.sending.open(node)
    for dialog, width in ((panel.archive.dialog, 760), (panel.results.sending.dialog, 520)):
        labels = [widget.text for widget in dialog.findChildren(qt.QLabel) if widget.buddy() is not None]
        shortcuts = [text[text.index("&") + 1].lower() for text in labels]
        assert len(set(shortcuts)) == len(shortcuts) >= 4
        for widget in dialog.findChildren(qt.QWidget):
            for name in ("text", "toolTip", "placeholderText", "accessibleName"):
                value = widget.property(name)
                assert not isinstance(value, str) or english_words(value) == [], value
        qt.QApplication.processEvents()
        assert dialog.minimumSizeHint().width() <= width
    headers = [panel.archive.table.model.headerData(column, qt.Qt.Horizontal) for column in range(5)]
    assert headers == ["Patient", "Studie", "Serie", "Bilder", "Stand"]
