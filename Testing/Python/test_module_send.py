# ruff: noqa: F811  fixtures
"""The dialog "Send to an archive" of the panel: what is sent, after which question, and what the archive answered."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from archive_fixtures import no_credentials, server, shelf  # noqa: F401  (fixtures)
from slicer_application import load_sample, qt, slicer, wait_until
from test_module_archive import SETTINGS, ended, no_keyring  # noqa: F401
from test_module_compare import panel, scene, told  # noqa: F401
from test_scene_dicom import segmented

# isort: split
from ClassScaleSegPanel.archives.known import KnownArchive, known_archives, may_be_asked

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from ClassScaleSegLib.scene.loading import load_image  # noqa: E402
from dicom_phantom import Plane, planes, write_series  # noqa: E402


@pytest.fixture
def node(scene, tmp_path):
    """The segmentation of a series that was loaded from a folder."""
    facts = {"PatientName": "Dent^Arthur", "PatientID": "p-1", "StudyDate": "20260102", "StudyDescription": "Chest"}
    folder = write_series(tmp_path / "series", planes(4), Modality="CT", FrameOfReferenceUID="1.2.3", **facts)
    volume = load_image(scene, folder, "CT")
    return segmented(volume, slicer.util.arrayFromVolume(volume))


@pytest.fixture
def asked(monkeypatch):
    """The questions with OK and Cancel, which are answered with OK."""
    questions: list[str] = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, **more: questions.append(text) or True, raising=False
    )
    return questions


@pytest.fixture
def dialog(panel, node, server, no_keyring):
    for name in SETTINGS:
        slicer.app.userSettings().remove(f"ClassScaleSeg/{name}")
    panel.results.show_node(node)
    next(action for action in panel.ui.saveButton.menu().actions() if action.text == "Send to an archive...").trigger()
    panel.results.sending.access.address.setEditText(server.address)
    yield panel.results.sending
    panel.results.sending.end()
    for name in SETTINGS:
        slicer.app.userSettings().remove(f"ClassScaleSeg/{name}")


def sent(server):
    return [data for batch in server.instances for data in batch]


def test_a_segmentation_is_sent_after_a_question_that_names_patient_and_address(dialog, server, asked):
    assert dialog.send_button.enabled and not dialog.cancel_button.enabled
    dialog.send_button.click()
    assert asked == [
        f"Send to {server.address}?\n\nPatient: Dent Arthur, p-1\nStudy: 2026-01-02, Chest\n\nDICOM segmentation"
    ]
    work = dialog.process.work_folder
    assert dialog.cancel_button.enabled and not dialog.send_button.enabled and not dialog.kinds[".seg.dcm"].enabled
    ended(dialog)
    assert dialog.status.text == "DICOM segmentation: stored."
    (data,) = sent(server)
    assert data.Modality == "SEG" and data.PatientID == "p-1" and str(data.PatientName) == "Dent^Arthur"
    assert known_archives() == [KnownArchive(server.address)] and not work.exists()


def test_all_kinds_are_objects_of_one_study_and_the_report_refers_to_the_segmentation(dialog, server, asked):
    for box in dialog.kinds.values():
        box.checked = True
    dialog.send()
    ended(dialog)
    assert asked[0].endswith(
        "\nDICOM segmentation\nRT structure set\nReport with the volumes, which refers to the DICOM segmentation"
    )
    found = {data.Modality: data for data in sent(server)}
    assert set(found) == {"SEG", "RTSTRUCT", "SR"} and len({data.StudyInstanceUID for data in found.values()}) == 1
    assert {data.PatientID for data in found.values()} == {"p-1"}
    assert str(found["SEG"].SOPInstanceUID) in str(found["SR"])
    assert dialog.status.text.count(": stored.") == 3


def test_a_report_is_not_sent_without_the_segmentation(dialog, server, asked):
    dialog.kinds[".sr.dcm"].checked = True
    dialog.kinds[".seg.dcm"].checked = False
    assert not dialog.kinds[".sr.dcm"].enabled and not dialog.send_button.enabled
    dialog.kinds[".rtstruct.dcm"].checked = True
    dialog.send()
    ended(dialog)
    assert [data.Modality for data in sent(server)] == ["RTSTRUCT"]


def test_all_fields_have_names_and_the_focus_stays_at_hand(dialog, server, asked):
    access = dialog.access
    fields = (access.address, access.user, access.secret, access.certificate)
    assert all(field.accessibleName for field in fields)
    dialog.dialog.activateWindow()
    qt.QApplication.processEvents()
    dialog.send_button.setFocus()
    dialog.send()
    assert qt.QApplication.focusWidget() is dialog.cancel_button
    ended(dialog)
    assert qt.QApplication.focusWidget() is dialog.send_button


def test_nothing_is_sent_without_ok(dialog, server, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: False, raising=False)
    before = set(wait_folders())
    dialog.send()
    assert dialog.process is None and not server.methods and dialog.send_button.enabled
    assert set(wait_folders()) == before, "nothing of the patient stays"


def wait_folders():
    import tempfile
    from pathlib import Path

    from ClassScaleSegLib.process.work_folder import PREFIX

    return list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def test_what_the_archive_refuses_is_told_of_each_object(dialog, server, asked):
    for box in dialog.kinds.values():
        box.checked = True

    def answer(instances):
        for data in instances:
            if data.Modality == "SR":
                server.verdicts[data.SOPInstanceUID] = ("FailedSOPSequence", 0x0122)
            if data.Modality == "SEG":
                server.verdicts[data.SOPInstanceUID] = ("ReferencedSOPSequence", 0xB000)
        return server.usual(instances)

    server.answer = answer
    dialog.send()
    ended(dialog)
    assert "refused. The archive refuses it: it does not store this kind of object" in dialog.status.text
    assert "stored, with changes or doubts. The archive warns: it changed values" in dialog.status.text
    assert "RT structure set: stored." in dialog.status.text


def test_an_archive_that_is_not_reached_is_told_once(dialog, asked):
    dialog.access.address.setEditText("http://127.0.0.1:9/dicom-web")
    dialog.kinds[".rtstruct.dcm"].checked = True
    dialog.send()
    ended(dialog)
    assert dialog.status.text.count("cannot be reached") == 1 and dialog.status.text.count(": not sent.") == 2
    assert known_archives() == []


def test_a_segmentation_that_was_drawn_or_whose_series_is_gone_is_not_sent(
    panel, dialog, server, node, asked, tmp_path
):
    (tmp_path / "series").rename(tmp_path / "elsewhere")
    dialog.send()
    assert "from which CT was loaded, is gone" in dialog.status.text and asked == [] and not server.methods
    (tmp_path / "elsewhere").rename(tmp_path / "series")
    node.RemoveAttribute("ClassScaleSeg.Origin")
    dialog.send()
    assert "It is not known which model found the structures" in dialog.status.text and asked == []
    slicer.mrmlScene.RemoveNode(node)
    assert not dialog.send_button.enabled


def test_a_volume_that_is_not_from_dicom_has_no_such_entry(panel, node):
    from ClassScaleSegLib.scene.dicom import is_from_dicom

    node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()).RemoveAttribute("ClassScaleSeg.SeriesFolder")
    panel.results.show_node(node)
    assert not is_from_dicom(node) and panel.ui.saveButton.menu() is None


def test_cancelling_and_closing_while_an_archive_does_not_answer(dialog, server, asked):
    ending = threading.Event()
    server.answer = lambda instances: ending.wait(30) and server.usual(instances)
    dialog.send()
    wait_until(lambda: bool(server.methods), 60)
    dialog.close()
    assert dialog.process is not None, "it goes on"
    dialog.open()
    work = dialog.process.work_folder
    dialog.cancel_button.click()
    ending.set()
    assert dialog.process is None and not work.exists()
    assert dialog.status.text.endswith(
        "Cancelled.\nWhat was sent before may be stored: look in the archive before you send again."
    )
    assert dialog.send_button.enabled


def test_after_a_lost_connection_nobody_is_told_to_send_again_as_that_would_be_new_objects(dialog, server, asked):
    server.answer = lambda instances: None  # it hangs up
    for _ in range(2):
        dialog.send()
        ended(dialog)
        assert "not known. Look there before you send again." in dialog.status.text
        assert "Send them again" not in dialog.status.text
    first, second = sent(server)
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_plain_http_to_another_machine_is_asked_about_before_anything_is_written(dialog, server, asked, monkeypatch):
    answers = []
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **more: answers.append(text) and False, raising=False
    )
    dialog.access.address.setEditText("http://pacs.invalid/dicom-web")
    dialog.send()
    assert len(answers) == 1 and "NOT encrypted" in answers[0] and asked == [] and dialog.process is None
    assert may_be_asked(KnownArchive(server.address)) and len(answers) == 1


def test_the_whole_way_from_an_archive_and_back(panel, server, shelf, no_keyring, asked, tmp_path):
    """A series is found, fetched, segmented under "Several volumes", and its result is sent."""
    toy = load_sample("Toy")
    voxels = slicer.util.arrayFromVolume(toy)[16:40, 16:40, 16:40]
    slicer.mrmlScene.RemoveNode(toy)
    facts = {"PatientName": "Dent^Arthur", "PatientID": "p-1", "FrameOfReferenceUID": "1.2.3", "Modality": "CT"}
    place = [(0.0, 0.0, float(number)) for number in range(len(voxels))]
    slices = [Plane(plane, at, spacing=(1.0, 1.0)) for plane, at in zip(voxels.astype(np.int16), place, strict=True)]
    shelf.add(write_series(tmp_path / "stored", slices, **facts))
    panel.archive.open()
    panel.archive.access.address.setEditText(shelf.address)
    panel.archive.search()
    ended(panel.archive)
    panel.archive.table.tick(panel.archive.table.keys())
    panel.archive.folder.text = str(tmp_path / "fetched")
    panel.archive.fetch()
    ended(panel.archive)
    panel.choose_models(("toy-120",))
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None, 120)
    assert panel.ui.statusLabel.text.startswith("Done: "), panel.ui.statusLabel.text
    sending = panel.results.sending
    sending.open(panel.state.node)
    sending.access.address.setEditText(server.address)
    for box in sending.kinds.values():
        box.checked = True
    sending.send()
    ended(sending)
    assert sending.status.text.count(": stored.") == 3 and "Patient: Dent Arthur, p-1" in asked[-1]
    series = shelf.files[0][1]
    for data in sent(server):
        assert data.StudyInstanceUID == series.StudyInstanceUID and data.PatientID == "p-1"
    (seg,) = (data for data in sent(server) if data.Modality == "SEG")
    assert seg.FrameOfReferenceUID == "1.2.3" and "toy" in seg.SeriesDescription.lower()
    assert {item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence} == {series.SeriesInstanceUID}
