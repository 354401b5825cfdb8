"""The report of volume nodes: its folder in the panel, what the page calls them, and what is told of it."""

import json
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from ClassScaleSegLib import ClassScaleError, OutputError, Segmentation
from ClassScaleSegLib.process import child
from ClassScaleSegLib.process.job import Job, ReportedAs, read_job
from ClassScaleSegLib.report.report import Report
from panel_scene import make_sequence
from slicer_application import add_volume, import_scene, load_sample, module, qt, saved_scene, slicer, wait_until
from test_module_channels import add_model, put_into_folder, volume
from test_module_queue import add, broken, small, states

FAST = {"device": "cpu", "step": 1, "mirroring": False, "threads": 1}


@pytest.fixture
def scene():
    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


@pytest.fixture
def logic():
    return module.ClassScaleSegLogic()


def cases(folder):
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {case["name"]: case for case in content["cases"]}


def other(name):
    """A volume whose voxels are not those of ``small``."""
    node = small(name)
    slicer.util.arrayFromVolume(node)[:] += 1
    return node


def finish(panel):
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None, 120)


def test_a_volume_has_its_name_in_the_report_and_no_file_that_is_gone(scene, logic, tmp_path):
    folder = tmp_path / "report"
    run = logic.start(logic.request(small("Jane / T1"), "toy-120", report=folder, **FAST))
    run.wait()
    assert run.page == folder / "index.html" and run.page.is_file() and run.notice == ""
    (only,) = cases(folder).values()
    assert (only["name"], only["images"], only["outputs"]) == ("Jane / T1", ["Jane / T1"], [])
    found = {row.name for row in run.statistics[0] if row.voxels}
    assert len(only["structures"]) == len(found) > 5
    said = "".join(file.read_text(encoding="utf-8") for file in folder.rglob("*") if file.is_file())
    assert "image_0000" not in said and "result.seg" not in said and str(run._process.work_folder) not in said


def test_the_same_image_replaces_its_case_and_another_of_its_name_gets_a_number(scene, logic, tmp_path):
    folder, first, second = tmp_path / "report", small("T1"), other("T1")
    for node in (first, second):
        logic.segment(node, "toy-120", report=folder, **FAST)
    before = cases(folder)
    assert list(before) == ["T1 (2)", "T1"]
    assert before["T1"]["structures"] != before["T1 (2)"]["structures"]
    # the same voxels after the scene was closed, in another place, with other choices
    slicer.mrmlScene.Clear()
    for node in (other("T1"), small("T1")):
        node.SetOrigin(5, 5, 5)
        logic.segment(node, "toy-120", report=folder, classes=["cell 7"], **FAST)
    after = cases(folder)
    assert list(after) == list(before)
    assert all(len(case["structures"]) + len(case["not_found"]) == 1 for case in after.values())


@pytest.fixture
def summing(monkeypatch):
    """Checksums that a thread computes once it may; ``.threads`` and ``.found`` are those of each."""
    from ClassScaleSegLib.report import case_files

    real, noted = case_files.origin_of_voxels, SimpleNamespace(may=threading.Event(), threads=[], found=[])

    def compute(images):
        noted.threads.append(threading.current_thread())
        assert noted.may.wait(600)
        noted.found.append(real(images))
        return noted.found[-1]

    monkeypatch.setattr(case_files, "origin_of_voxels", compute)
    yield noted
    noted.may.set()
    for thread in noted.threads:
        thread.join()


def region_of_interest():
    from logic_fixtures import add_roi

    return add_roi((12.0, 12.0, 12.0), (14.0, 14.0, 14.0))


def test_slicer_does_not_wait_for_the_checksum_of_the_image(scene, logic, tmp_path, summing):
    node = small("T1")
    run = logic.start(logic.request(node, "toy-120", region=region_of_interest(), report=tmp_path, **FAST))
    assert [run.poll() for _time in range(3)] == [[], [], []]
    assert run.state == "running" and run._process.state == "new" and summing.found == []
    with pytest.raises(ClassScaleError, match="already running"):
        logic.start(logic.request(node, "toy-120", **FAST))
    summing.may.set()
    kinds = []
    wait_until(lambda: kinds.extend(event.kind for event in run.poll()) or run.state != "running", 120)
    assert run.state == "finished" and run.page.is_file() and "progress" in kinds
    # the child process finds the same checksum of the whole image as Slicer
    logic.segment(node, "toy-120", report=tmp_path, **FAST)
    assert list(cases(tmp_path)) == ["T1"]
    [thread] = summing.threads
    assert thread is not threading.main_thread()
    kept = json.loads((tmp_path / "cases" / "T1.json").read_text(encoding="utf-8"))
    assert [kept["origin"]] == summing.found and len(cases(tmp_path)["T1"]["structures"]) > 5


@pytest.mark.parametrize("end", ["cancelled", "removed", "unstartable", "waited for"])
def test_a_run_whose_checksum_is_computed_ends_as_any_other(scene, logic, tmp_path, summing, monkeypatch, end):
    from ClassScaleSegLib.process import child

    node = small("T1")
    run = logic.start(logic.request(node, "toy-120", region=region_of_interest(), report=tmp_path, **FAST))
    folder = run._process.work_folder
    if end == "cancelled":
        run.cancel()
        assert run.state == "cancelled" and run.poll() == []
    elif end == "removed":
        scene.RemoveNode(node)
        assert run.poll() == [] and run.state == "failed" and "was removed from the scene" in run.error
    else:
        summing.may.set()
        if end == "unstartable":
            monkeypatch.setattr(child, "default_python", lambda: (_ for _ in ()).throw(ClassScaleError("No Python.")))
            summing.threads[0].join()
            assert run.poll() == [] and run.state == "failed" and run.error == "No Python."
        else:
            assert run.wait() is run.node and list(cases(tmp_path)) == ["T1"]
    assert not folder.exists() and slicer.modules.ClassScaleSegInstance.running == []


def test_an_image_whose_checksum_fails_is_a_case_of_its_own(scene, monkeypatch):
    from ClassScaleSegLib.report import case_files
    from ClassScaleSegLib.scene.report import OriginOfVolumes

    def fails(images):
        raise MemoryError

    monkeypatch.setattr(case_files, "origin_of_voxels", fails)
    monkeypatch.setattr(threading, "excepthook", lambda told: None)
    origins = [OriginOfVolumes([small("T1")]).get(None) for _time in range(2)]
    assert all(origins) and origins[0] != origins[1]


def test_a_checksum_is_computed_at_once_without_a_copy(monkeypatch):
    """In Slicer a thread goes on only while Python runs, so it must not come back for every plane."""
    import hashlib

    from ClassScaleSegLib.report import case_files

    updates = []
    monkeypatch.setattr(
        case_files, "hashlib", SimpleNamespace(sha256=lambda: SimpleNamespace(update=updates.append, hexdigest=str))
    )
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    case_files.origin_of_voxels([voxels])
    whole, at_once = updates[1], len(updates)
    assert at_once == 2 and np.shares_memory(np.asarray(whole), voxels)
    updates.clear()
    case_files.origin_of_voxels([voxels[:, 1:3]])
    assert len(updates) == 4, "a part of an image would be copied whole otherwise"
    sums = [hashlib.sha256(b"".join(bytes(one) for one in updates)).hexdigest()]
    monkeypatch.undo()
    assert sums == [case_files.origin_of_voxels([voxels[:, 1:3]])]


@pytest.mark.parametrize("kind", ["b", "B", "h", "H", "i", "I", "q", "Q", "f", "d"])
def test_the_checksum_of_a_file_is_that_of_the_volume_as_reports_of_earlier_versions_have_it(scene, tmp_path, kind):
    import hashlib

    from ClassScaleSegLib.commands.job_report import _voxels
    from ClassScaleSegLib.report.case_files import origin_of_voxels
    from ClassScaleSegLib.scene.volume import write_volume

    array = np.arange(60).reshape(3, 4, 5).astype(kind)
    files = [tmp_path / "a.nrrd", tmp_path / "b.nrrd"]
    for file, voxels in zip(files, (array, array[:1] + np.array(1, kind)), strict=True):
        write_volume(add_volume(voxels), file)
    before = hashlib.sha256(f"(3, 4, 5) {array.dtype.str}\n".encode() + array.tobytes())
    before.update(f"(1, 4, 5) {array.dtype.str}\n".encode() + (array[:1] + np.array(1, kind)).tobytes())
    assert origin_of_voxels(_voxels(files)) == before.hexdigest()


def test_a_case_of_the_command_is_not_replaced_nor_one_that_cannot_be_read(tmp_path):
    from test_report import GRID, NAMES, LabelTable

    labels = np.zeros((20, 20, 20), np.uint16)
    labels[5:9, 5:9, 5:9] = 1
    result, report = Segmentation(labels, LabelTable.from_names(NAMES), GRID), Report(tmp_path, overwrite=True)
    report.add("T1", result, outputs=[tmp_path / "t1.seg.nrrd"])
    report.add("T1 (2)", result)
    (tmp_path / "cases" / "T1 (3).json").write_text("{}")
    assert report.name_for("T1", "a") == "T1 (4)"
    report.add("T1 (4)", result, origin="a", image_names=["a/b"])
    assert report.name_for("T1", "a") == "T1 (4)" and report.name_for("T1", "b") == "T1 (5)"
    assert report.name_for("t1 (4)", "a") == "t1 (4) (2)"  # one name on some file systems
    (tmp_path / "cases" / "T1.json").unlink()
    assert report.name_for("T1", "a") == "T1 (4)" and report.name_for("T1", "b") == "T1"
    with pytest.raises(OutputError, match="is of another result of that name"):
        report.add("T1 (4)", result, origin="b")


@pytest.mark.parametrize("more", [{}, {"overlap": "keep"}])
def test_several_models_are_in_the_report_with_and_without_layers(scene, logic, tmp_path, more):
    run = logic.start(logic.request(small("T1"), ["toy-120", "toy-1000"], report=tmp_path, **FAST, **more))
    run.wait()
    (only,) = cases(tmp_path).values()
    assert len(only["structures"]) == sum(row.voxels > 0 for row in run.statistics[0])
    voxels = sum(one["voxels"] for one in only["structures"])
    assert voxels > 24**3 if more else voxels <= 24**3
    assert len(only["run"]["models"]) == 2 and len(run.results[0].layers) == (2 if more else 1)


def test_the_coarse_model_is_named_without_its_folder(scene, logic, tmp_path):
    model = str(Path(module.__file__).parents[1] / "Resources" / "Models" / "toy-1000.zip")
    logic.segment(small("T1"), "toy-120", report=tmp_path / "r", locate_with=model, **FAST)
    (only,) = cases(tmp_path / "r").values()
    assert "locate_with='Toy atlas, 1000 classes'" in only["run"]["options"]


def test_a_report_that_cannot_be_written_is_refused_before_the_run(scene, logic, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "index.html").write_text("<h1>Mine</h1>")
    node = small("T1")
    for folder, said in (
        (tmp_path / "file" / "r", "file"),
        (tmp_path / "foreign", "was not written by a report"),
        (tmp_path / ("r" * 300), "cannot be written"),
        (tmp_path / "r\ud800", "is not a name in UTF-8"),
    ):
        with pytest.raises(OutputError, match=said):
            logic.segment(node, "toy-120", report=folder, **FAST)
    with pytest.raises(OutputError, match="A report is of single volumes, not of a sequence."):
        logic.segment(node, "toy-120", report=tmp_path / "r", all_frames=True)
    assert not (tmp_path / "r").exists() and (tmp_path / "foreign" / "index.html").read_text() == "<h1>Mine</h1>"


def test_a_report_that_fails_at_the_end_does_not_cost_the_segmentation(scene, logic, tmp_path):
    folder = tmp_path / "r"
    run = logic.start(logic.request(small("T1"), "toy-120", report=folder, **FAST))

    def spoil(event):
        if event.stage == "segment" and not folder.exists():
            folder.write_text("in the way")

    run.wait(spoil)
    assert run.state == "finished" and run.node.GetSegmentation().GetNumberOfSegments() > 5 and run.page is None
    assert run.notice.startswith("The report is not written. ") and str(folder) in run.notice


def test_a_volume_that_fails_is_listed_until_it_succeeds(scene, logic, tmp_path):
    with pytest.raises(ClassScaleError, match="CT 3 has 8,000 voxels that are NaN"):
        logic.segment(broken("CT 3"), "toy-120", report=tmp_path, **FAST)
    (only,) = cases(tmp_path).values()
    assert only["error"].startswith("CT 3 has 8,000 voxels that are NaN") and only["images"] == ["CT 3"]
    assert (tmp_path / "index.html").is_file()


def test_a_run_that_is_cancelled_leaves_no_report(scene, logic, tmp_path):
    run = logic.start(logic.request(load_sample(), "toy-120", report=tmp_path / "r", **FAST))
    while not any(event.stage == "segment" for event in run.poll()):
        pass
    run.cancel()
    assert run.state == "cancelled" and not (tmp_path / "r").exists()


def test_a_run_that_is_cancelled_while_it_draws_leaves_no_file(scene, logic, tmp_path, monkeypatch):
    """Of the child process, and of the one that renders by VTK."""
    pytest.importorskip("vtkmodules")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(child, "subprocess", subprocess)  # a child that renders by VTK
    run = logic.start(logic.request(small("T1"), "toy-120", report=tmp_path / "r", **FAST))
    while not drawing(run._process.pid):
        assert not run.poll() or run.state == "running"
    run.cancel()
    # Python looks once in the folder whether it can be written
    left = [path.name for path in (tmp_path / "temporary").iterdir() if path.name.startswith("classscaleseg")]
    assert run.state == "cancelled" and left == [] and not (tmp_path / "r").exists()


def drawing(pid):
    """Return whether a process has started one that renders."""
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
            if any("rendering" in word for word in process.cmdline()):
                return True
    return False


JOB = {"images": ["i.nrrd"], "model": ["toy-120"], "output": "o.nrrd"}
RIGHT = {"name": "a", "images": ["b"], "origin": "c", "modality": None}


@pytest.mark.parametrize(
    "reported, said",
    [
        ([], "reported must be a JSON object"),
        ({**RIGHT, "name": None}, "The name of reported must be text"),
        ({**RIGHT, "origin": 3}, "The origin of reported must be text"),
        ({**RIGHT, "modality": ["CT"]}, "The modality of reported must be text"),
        ({**RIGHT, "images": "b"}, "The images of reported must be a list of texts"),
        ({**RIGHT, "images": [None]}, "The images of reported must be a list of texts"),
        ({**RIGHT, "folder": "x"}, "There is no option folder"),
    ],
)
def test_what_a_job_says_of_the_report_is_checked(tmp_path, reported, said):
    (tmp_path / "job.json").write_text(json.dumps({**JOB, "reported": reported}))
    with pytest.raises(ClassScaleError, match=said):
        read_job(tmp_path / "job.json")


def test_a_job_keeps_what_the_report_says_and_is_of_one_case_then(tmp_path, capsys):
    from ClassScaleSegLib.commands.main import ExitCode, main

    reported = ReportedAs("T1", ("T1", "T2 \ud800"), "abc", "MR")
    for name in ("a.nrrd", "b.nrrd"):
        (tmp_path / name).write_text("")
    images = (tmp_path / "a.nrrd", tmp_path / "b.nrrd")
    job = Job(images, "toy-120", tmp_path / "out", report=tmp_path / "r", reported=reported)
    job.write(tmp_path / "job.json")
    assert read_job(tmp_path / "job.json").reported == reported
    assert main(["segment", "--job", str(tmp_path / "job.json")]) == ExitCode.FAULT
    assert "reported says what the report calls a single case" in capsys.readouterr().err


# --- the panel


def type_folder(panel, folder):
    panel.ui.reportLineEdit.selectAll()
    panel.ui.reportLineEdit.insert(str(folder))


def test_a_folder_is_chosen_and_the_page_is_opened_after_the_run(panel, tmp_path, monkeypatch, answers):
    opened = []
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *more: str(tmp_path / "r"))
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()) is None)
    panel.ui.inputSelector.setCurrentNode(small("T1"))
    panel.ui.reportFolderButton.click()
    assert panel.state.parameters.report == str(tmp_path / "r")
    assert panel.ui.needLabel.text.endswith(f"A report is written into {tmp_path / 'r'}.")
    assert panel.ui.reportButton.isHidden()
    finish(panel)
    assert panel.ui.statusLabel.text.endswith(" structures found. The report is written.")
    assert not panel.ui.reportButton.isHidden()
    panel.ui.reportButton.click()
    assert opened == [str(tmp_path / "r" / "index.html")] and not answers
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: False)
    panel.ui.reportButton.click()
    panel.state.page.unlink()
    panel.ui.reportButton.click()
    assert answers == [
        f"No web browser could be started. Open {tmp_path / 'r' / 'index.html'} yourself.",
        f"{tmp_path / 'r' / 'index.html'} is not there any more.",
    ]
    slicer.mrmlScene.Clear()
    assert panel.ui.reportButton.isHidden()


def test_a_queue_makes_one_report_in_which_names_are_told_apart(panel, tmp_path):
    small("T1"), broken("Bad"), other("T1")
    panel.select_volume()
    add(panel, "All volumes of the scene")
    type_folder(panel, tmp_path / "r")
    assert panel.ui.needLabel.text.endswith(f"A report is written into {tmp_path / 'r'}.")
    finish(panel)
    found = cases(tmp_path / "r")
    assert {name: case["error"] is None for name, case in found.items()} == {"Bad": False, "T1": True, "T1 (2)": True}
    assert found["Bad"]["error"].startswith("Bad has 8,000 voxels")
    assert panel.ui.statusLabel.text.endswith(" The report is written.") and panel.state.page.parent == tmp_path / "r"
    assert states(panel)["Bad"].startswith("failed")


def test_a_case_of_several_volumes_has_the_name_of_its_folder(panel, write_model, tmp_path):
    for name in ("Anna", "Otto"):
        put_into_folder([volume("T1"), volume("FLAIR")], name)
    panel.select_volume()
    add_model(write_model, panel, "T1", "FLAIR")
    add(panel, "All folders, patients and studies of the scene")
    type_folder(panel, tmp_path / "r")
    finish(panel)
    assert {name: case["images"] for name, case in cases(tmp_path / "r").items()} == {
        "Anna": ["T1", "FLAIR"],
        "Otto": ["T1", "FLAIR"],
    }


def test_a_folder_that_came_with_a_scene_is_asked_for(panel, tmp_path, answers, monkeypatch):
    panel.ui.inputSelector.setCurrentNode(small("T1"))
    folder = str(tmp_path / "r")
    panel.store(report=folder)
    text = saved_scene()
    slicer.mrmlScene.Clear()
    import_scene(text)
    panel.ui.inputSelector.setCurrentNode(small("T1"))
    assert panel.state.parameters.report == folder == panel.ui.reportLineEdit.text
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: answers.append(text) and False)
    panel.ui.applyButton.click()
    assert panel.state.run is None and len(answers) == 1
    assert answers[0].startswith(f"The scene names {folder} as the folder of a report, which has pictures")
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: answers.append(text) or True)
    finish(panel)
    assert len(answers) == 2 and (tmp_path / "r" / "index.html").is_file()
    panel.store(segmentation=None)
    finish(panel)
    assert len(answers) == 2  # agreed, and the last choice
    panel.reports._agreed.clear()
    assert panel.reports.agreed() and len(answers) == 2


def test_a_folder_that_was_typed_or_used_before_is_not_asked_for(panel, tmp_path, answers):
    from ClassScaleSegPanel.runs.last_choice import load_choices

    panel.ui.inputSelector.setCurrentNode(small("T1"))
    type_folder(panel, tmp_path / "r")
    finish(panel)
    assert not answers and load_choices()["toy-120"]["report"] == str(tmp_path / "r")
    panel.store(report="")
    menu = panel.ui.modelMenuButton.menu()
    menu.aboutToShow.emit()
    action = menu.actions()[0]
    assert f"Report: {tmp_path / 'r'}" in action.toolTip
    action.trigger()
    assert panel.state.parameters.report == str(tmp_path / "r")
    assert panel.reports.agreed() and not answers
    panel.store(report=str(tmp_path / "of a script"))
    assert panel.reports.agreed() and len(answers) == 1


def test_a_folder_without_its_whole_path_and_a_sequence_are_told_above_apply(panel):
    panel.ui.inputSelector.setCurrentNode(small("T1"))
    type_folder(panel, "report")
    assert not panel.ui.applyButton.enabled
    assert panel.ui.needLabel.text.startswith("The folder of the report needs its whole path, such as ")
    type_folder(panel, "  ")
    assert panel.ui.applyButton.enabled and "report" not in panel.ui.needLabel.text
    panel.ui.inputSelector.setCurrentNode(make_sequence("Frames"))
    type_folder(panel, Path.home() / "report")
    assert panel.ui.applyButton.enabled
    panel.store(allFrames=True)
    assert not panel.ui.applyButton.enabled
    assert panel.ui.needLabel.text.startswith("A report is of single volumes, not of a sequence.")
