"""A server as the device of the panel: its models, a run there, and everything that can go wrong on the way."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib.process import child
from ClassScaleSegLib.remote.segmenter import RemoteSegmenter
from ClassScaleSegLib.remote.servers import Servers
from live_server import live_server
from slicer_application import add_volume, application, import_scene, load_sample, saved_scene, slicer, wait_until

from ClassScaleSegPanel.install import missing  # isort: skip  needs the stand-ins
from ClassScaleSegPanel.servers import watch  # isort: skip

from panel_server import asked, choose_device, choose_lab, lab, server, small_volume, unused_tcp_port  # noqa: F401  (fixtures)

AT_WORK = ("Segmenting", "Assigning the classes", "Writing the result")  # a small image is in each for a moment


def test_a_server_segments_for_the_panel_once_the_user_has_agreed(lab, server, asked):
    api, _token = server
    ui = lab.ui
    ui.inputSelector.setCurrentNode(load_sample("CT"))
    assert "This run will take" in ui.needLabel.text
    choose_device(lab, "Server: Lab")
    assert lab.state.parameters.device == f"server:{api.address}"
    assert ui.needLabel.text == "Asking Lab for its models..." and not ui.applyButton.enabled
    wait_until(lambda: ui.applyButton.enabled, 30)
    assert ui.needLabel.text.startswith("Lab computes this run, on cpu")
    assert "This run will take about " in ui.needLabel.text and "GPU" not in ui.needLabel.text
    assert "classes. That fits: there are " in ui.needLabel.text and "  " not in ui.needLabel.text
    assert [ui.modelComboBox.itemData(i) for i in range(ui.modelComboBox.count)] == ["toy-120"]
    assert "120 classes" in ui.modelFactsLabel.text and "not for clinical use" in ui.modelFactsLabel.text
    assert not ui.memoryLimitSpinBox.enabled and not ui.threadsSpinBox.enabled
    lab.store(classes="cell 7\ncell 9", threads=3, step=1.0, mirroring=False)
    assert lab.class_list.ticked == ["7", "9"] and ui.applyButton.enabled
    stages = set()
    ui.applyButton.click()
    (question,) = asked
    assert api.address in question
    while lab.state.run is not None:
        application.processEvents()
        stages.add(ui.statusLabel.text.partition(",")[0])
        time.sleep(0.01)
    assert ui.statusLabel.text == "Done: 2 structures found."
    assert stages & {*AT_WORK}
    wait_until(lambda: api.files() == [])
    ui.applyButton.click()
    assert len(asked) == 1, "it is asked once for each address"
    ui.cancelButton.click()
    choose_device(lab, "Automatic")
    assert ui.modelComboBox.count > 3 and "This run will take" in ui.needLabel.text and ui.threadsSpinBox.enabled


def test_several_volumes_are_asked_for_once_and_segmented_one_after_the_other(lab, server, asked):
    lab.store(step=1.0, mirroring=False)
    volumes = [small_volume("CT 1"), small_volume("CT 2")]
    lab.queue.add([(volume.GetID(), volume.GetName()) for volume in volumes])
    choose_lab(lab)
    assert "2 volumes are segmented" in lab.ui.needLabel.text and "Lab computes this run" in lab.ui.needLabel.text
    lab.ui.applyButton.click()
    wait_until(lambda: lab.state.run is None, 120)
    assert len(asked) == 1 and lab.ui.statusLabel.text.startswith("Done: 2 of 2 volumes segmented.")


def test_cancel_removes_everything_from_the_server(lab, server, asked, monkeypatch):
    monkeypatch.setattr(child, "_SECONDS_TO_STOP", 30.0)  # it is not killed on a machine that stood still
    api, _token = server
    large = np.random.default_rng(0).integers(0, 100, (180, 180, 180)).astype(np.int16)  # so that it is found at work
    lab.ui.inputSelector.setCurrentNode(add_volume(large, "CT"))
    choose_lab(lab)
    lab.ui.applyButton.click()
    wait_until(lambda: lab.ui.statusLabel.text.startswith("Segmenting"))
    lab.ui.cancelButton.click()
    assert lab.ui.statusLabel.text == "Cancelled. The scene was not changed." and lab.ui.applyButton.enabled
    wait_until(lambda: api.files() == [] and api("get", "health").json()["queue"]["running"] == 0)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_wrong_token_is_one_sentence_and_asking_again_helps_once_it_is_right(lab, server, asked):
    api, token = server
    Servers().add("Lab", api.address, "css_wrong")
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    ui = lab.ui
    assert "does not take the token" in ui.needLabel.text and 'Press "Try again"' in ui.needLabel.text
    assert not ui.applyButton.enabled and not ui.retryButton.isHidden() and not lab.servers.timer.active
    assert ui.applyButton.accessibleDescription.endswith(ui.needLabel.text)
    Servers().remove("Lab")  # and its token
    Servers().add("Lab", api.address)
    ui.retryButton.click()
    assert ui.needLabel.text == "Asking Lab for its models..." and ui.retryButton.isHidden()
    wait_until(lambda: lab.state.server.fault, 30)
    assert 'asks for a token. Enter it in the list of servers ("Servers...").' in ui.needLabel.text
    assert "CLASSSCALESEG_TOKEN" not in ui.needLabel.text
    Servers().add("Lab", api.address, token)
    ui.retryButton.click()
    wait_until(lambda: ui.applyButton.enabled, 30)


def test_a_server_that_does_not_answer_does_not_stop_the_application(panel, asked, unused_tcp_port):
    Servers().add("Lab", f"http://127.0.0.1:{unused_tcp_port}")
    application.leave()
    application.enter()
    panel.ui.inputSelector.setCurrentNode(small_volume())
    choose_device(panel, "Server: Lab")
    assert panel.ui.needLabel.text == "Asking Lab for its models..."
    wait_until(lambda: panel.state.server.fault, 40)
    assert "cannot be reached" in panel.ui.needLabel.text and panel.ui.modelComboBox.count == 0
    choose_device(panel, "CPU")
    assert panel.ui.applyButton.enabled and panel.ui.retryButton.isHidden()


def test_a_scene_from_elsewhere_leads_to_no_server_that_the_user_does_not_know(lab, server, asked, monkeypatch):
    api, _token = server
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    saved = saved_scene()
    Servers().remove("Lab")
    slicer.mrmlScene.Clear()
    monkeypatch.setattr(watch, "Asking", lambda *arguments: pytest.fail("it was asked"))
    application.leave()
    application.enter()
    import_scene(saved)
    lab.ui.inputSelector.setCurrentNode(small_volume())
    ui = lab.ui
    assert ui.deviceComboBox.currentText == f"Server: {api.address}"
    assert f"The device is the server {api.address}, which is not in your list. Add it" in ui.needLabel.text
    assert not ui.applyButton.enabled and ui.retryButton.isHidden()
    choose_device(lab, "Automatic")
    lab.store(model="toy-120")
    assert ui.applyButton.enabled


def test_a_model_that_the_server_does_not_offer_is_named(lab):
    lab.ui.inputSelector.setCurrentNode(small_volume())
    lab.store(model="toy-1000")
    choose_lab(lab)
    assert "Lab does not offer the model toy-1000. Select one that it offers" in lab.ui.needLabel.text
    lab.ui.modelComboBox.setCurrentIndex(0)
    assert lab.state.parameters.model == "toy-120" and lab.ui.applyButton.enabled
    lab.store(locateWith="gone")
    assert "Lab does not offer the model gone, which is to locate classes" in lab.ui.needLabel.text
    lab.store(locateWith="toy-120")
    assert lab.ui.applyButton.enabled and lab.ui.locateComboBox.itemText(0) == "Automatic: as the server does"


def test_the_catalogue_of_this_computer_is_not_changed_while_the_device_is_a_server(lab, answers, tmp_path):
    choose_lab(lab)
    texts = {action.text: action.enabled for action in lab.ui.modelMenuButton.menu().actions() if action.text}
    assert texts["Model card..."] and not texts["Remove this model..."] and not texts["Add model file..."]
    lab.models.add(str(tmp_path))
    assert "To add one here, select another device first" in answers[-1]
    lab.models.show_card()
    assert lab.models.card.dialog is not None
    choose_device(lab, "CPU")
    lab.ui.inputSelector.setCurrentNode(small_volume())
    texts = {action.text: action.enabled for action in lab.ui.modelMenuButton.menu().actions() if action.text}
    assert texts["Add model file..."]


def test_the_last_choice_of_a_model_may_be_a_server(lab, server, asked):
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    lab.ui.applyButton.click()
    lab.ui.cancelButton.click()
    choose_device(lab, "Automatic")
    menu = lab.ui.modelMenuButton.menu()
    menu.aboutToShow.emit()
    use = menu.actions()[0]
    assert use.enabled and f"Device: Server: {server[0].address}" in use.toolTip
    use.trigger()
    assert lab.ui.deviceComboBox.currentText == "Server: Lab"


def test_only_what_a_client_needs_is_installed(lab, asked, monkeypatch):
    from ClassScaleSegPanel.install import dialog

    real, shown = missing.is_installed, []
    monkeypatch.setattr(missing, "is_installed", lambda name: name == "scipy" and real(name))
    monkeypatch.setattr(dialog, "show", lambda text, button: shown.append(text) or "")
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    lab.ui.applyButton.click()
    assert lab.state.run is None and "- psutil\n" in shown[0] and "torch" not in shown[0] and "nnunetv2" not in shown[0]


def test_a_server_that_stops_in_the_middle_and_comes_back_finishes_the_run(panel, asked, tmp_path):
    folder, port = tmp_path / "server", None
    panel.ui.inputSelector.setCurrentNode(load_sample("CT"))
    panel.store(step=1.0, mirroring=False)
    with live_server(folder) as api:
        port = int(api.address.rpartition(":")[2])
        Servers().add("Lab", api.address)
        application.leave()
        application.enter()
        choose_lab(panel)
        panel.ui.applyButton.click()
        wait_until(lambda: panel.ui.statusLabel.text.startswith(AT_WORK))
    for result in (folder / "results").iterdir():  # of a job that was done before its server had stopped
        shutil.rmtree(result)
    with live_server(folder, port=port):
        wait_until(lambda: panel.state.run is None, 120)
        assert panel.ui.statusLabel.text == "Done: 120 structures found.", panel.ui.logTextEdit.plainText
        assert "the image is sent once more" in panel.ui.logTextEdit.plainText


@pytest.mark.parametrize("before, text", [(0, "the server"), (1, "one job is before"), (4, "4 jobs are before")])
def test_the_place_in_the_queue_of_the_server_is_shown(before, text):
    from ClassScaleSegLib.process import Event
    from ClassScaleSegPanel.runs.progress import RunProgress

    progress = RunProgress()
    progress.update(Event("progress", "queue", done=5 - before, total=5))
    assert progress.text.startswith("Waiting") and text in progress.text


def test_the_queue_is_asked_for_again_but_the_models_only_after_a_restart(lab, server, monkeypatch):
    api, _token = server
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    models, told = lab.state.server.models, []
    real = RemoteSegmenter.models
    monkeypatch.setattr(RemoteSegmenter, "models", lambda self, cancel=None: told.append(1) or real(self, cancel))
    assert lab.servers.timer.interval == watch.QUEUE_MILLISECONDS

    def ask():
        before = lab.state.server
        lab.servers.poll()
        wait_until(lambda: lab.state.server is not before, 30)

    ask()
    assert lab.state.server.models is models and not told
    lab.state.server = replace(lab.state.server, health=replace(lab.state.server.health, instance="another"))
    ask()
    assert told == [1] and lab.state.server.models.keys() == models.keys() and lab.ui.applyButton.enabled
    application.leave()
    lab.servers.poll()
    assert not lab.servers.timer.active, "nothing is asked while another module is open"
    application.enter()
    assert lab.servers.timer.active
