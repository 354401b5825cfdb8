"""A server as the device of the panel: its models, a run there, and everything that can go wrong on the way."""

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import addresses
from ClassScaleSegLib.catalog.catalog import data_folder
from ClassScaleSegLib.process import child
from ClassScaleSegLib.remote.segmenter import RemoteSegmenter
from ClassScaleSegLib.remote.servers import Servers
from ClassScaleSegLib.server.tokens import Tokens
from live_server import live_server
from remote_fixtures import lying_server
from slicer_application import add_volume, application, import_scene, load_sample, qt, saved_scene, slicer
from test_module_panel import wait_until

from ClassScaleSegPanel.install import missing  # isort: skip  needs the stand-ins
from ClassScaleSegPanel.servers import watch  # isort: skip
from ClassScaleSegPanel.servers.consent import withdraw  # isort: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that asks for a token, and such a token."""
    folder = tmp_path_factory.mktemp("server")
    token = Tokens(folder).make("anna")
    with live_server(folder, token=token, require_token=True) as api:
        yield api, token


@pytest.fixture
def lab(server, panel, tmp_path):
    """The panel of a user who knows the server."""
    api, token = server
    Servers().add("Lab", api.address, token)
    application.leave()
    application.enter()
    return panel


@pytest.fixture
def asked(monkeypatch):
    """The questions with Yes and No, which are answered with Yes."""
    questions = []
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **more: questions.append(text) or True, raising=False
    )
    return questions


def choose_device(panel, text):
    box = panel.ui.deviceComboBox
    box.setCurrentIndex(box.findText(text))


AT_WORK = ("Segmenting", "Assigning the classes", "Writing the result")  # a small image is in each for a moment


def choose_lab(panel):
    choose_device(panel, "Server: Lab")
    wait_until(lambda: panel.state.server.models is not None or panel.state.server.fault, 30)


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


def small_volume(name="CT"):
    return add_volume(np.random.default_rng(0).integers(0, 100, (30, 30, 30)).astype(np.int16), name)


def test_nothing_is_sent_without_a_yes(lab, server, monkeypatch):
    api, _token = server
    seen = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **more: bool(seen.append(text)), raising=False)
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    for again in (1, 2):
        lab.ui.applyButton.click()
        assert lab.state.run is None and len(seen) == again  # asked each time until there is a yes
    assert f"is sent to:\n{api.address}\n" in seen[0] and "may be a tunnel to another computer" in seen[0]
    assert api.files() == [] and application.settings.value("ClassScaleSeg/ServersAgreed") is None
    lab.queue.add([(lab.state.parameters.inputVolume.GetID(), "CT")])
    lab.ui.applyButton.click()
    assert lab.state.run is None and len(seen) == 3


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"a": 1}', "null"])
def test_a_damaged_list_of_agreements_agrees_to_nothing(lab, asked, damaged):
    application.settings.setValue("ClassScaleSeg/ServersAgreed", damaged)
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    lab.ui.applyButton.click()
    lab.ui.cancelButton.click()
    assert len(asked) == 1
    assert json.loads(application.settings.value("ClassScaleSeg/ServersAgreed")) == [lab.state.server.server.address]


@pytest.mark.parametrize("queued", [False, True])
def test_what_was_agreed_is_done_whatever_happens_while_a_question_is_open(lab, server, monkeypatch, queued):
    """The answer of Yes is of one server: another device gets nothing, and the server need not be there meanwhile."""
    api, _token = server
    started, meanwhile = [], []
    monkeypatch.setattr(lab.logic, "start", started.append)
    monkeypatch.setattr(lab.logic, "startQueue", lambda items: started.append(items[0].request()))

    def yes(text, **more):
        for do in meanwhile:
            do()
        return True

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", yes, raising=False)
    lab.ui.inputSelector.setCurrentNode(small_volume())
    choose_lab(lab)
    if queued:
        lab.queue.add([(lab.state.parameters.inputVolume.GetID(), "CT")])
    meanwhile.append(lambda: setattr(lab.state.parameters, "device", "server:http://127.0.0.1:9"))
    lab.ui.applyButton.click()
    assert started == [] and lab.state.run is None

    lab.state.parameters.device = f"server:{api.address}"
    wait_until(lambda: lab.state.server.chosen is not None, 30)
    application.settings.clear()
    lose = replace(lab.state.server, chosen=None, models=None, fault="It is gone.")
    meanwhile[:] = [lambda: setattr(lab.state, "server", lose)]
    monkeypatch.setattr(lab.runs, "_start", lambda start: start())
    lab.ui.applyButton.click()
    (request,) = started
    assert request.segmented_by.address == api.address and request.segmented_by.models


def test_a_device_that_becomes_a_server_while_a_question_is_open_gets_nothing(lab, server, monkeypatch):
    started, questions = [], []
    monkeypatch.setattr(lab.logic, "start", started.append)
    lab.ui.inputSelector.setCurrentNode(small_volume())
    filled = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Filled")
    filled.GetSegmentation().AddEmptySegment("a")
    lab.ui.segmentationSelector.setCurrentNode(filled)

    def agree(text, **more):
        questions.append(text)
        lab.state.parameters.device = f"server:{server[0].address}"
        return True

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", agree)
    lab.ui.applyButton.click()
    assert len(questions) == 1 and started == [] and lab.state.run is None


def test_what_the_question_says_of_the_way(lab):
    from ClassScaleSegPanel.servers.texts import consent

    assert "The connection is encrypted." in consent("https://lab-gpu:8471", "Lab")
    plain = consent("http://lab-gpu:8471", "Lab")
    assert "NOT encrypted: others in the network could read the image and the token" in plain


def test_no_token_is_sent_where_others_could_read_it_without_a_yes(panel, monkeypatch):
    questions, answers = [], [False]
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **more: questions.append(text) or answers[-1], raising=False
    )
    monkeypatch.setattr(addresses, "is_private", lambda address: False)
    with lying_server() as liar:
        liar.says("GET /v1/models", {"models": []})
        Servers().add("Lab", liar.address, "css_secret")
        application.leave()
        application.enter()
        panel.ui.inputSelector.setCurrentNode(small_volume())
        choose_lab(panel)
        line = panel.ui.needLabel
        assert "is not encrypted, so others in the network could read the token. Nothing was sent. To send" in line.text
        assert "--insecure" not in line.text and "Python" not in line.text
        assert 'To send it all the same, press "Try again"' in line.text and not panel.ui.applyButton.enabled
        panel.ui.retryButton.click()
        assert len(questions) == 1 and f"its token is sent to:\n{liar.address}\n" in questions[0]
        panel.on_servers(Servers().all)  # the list was read again, which asks no question
        wait_until(lambda: panel.state.server.fault, 30)
        panel.ui.serversButton.click()
        dialog = panel.server_dialog
        dialog.list.setCurrentRow(0)
        dialog.test_button.click()
        wait_until(lambda: len(questions) == 2, 30)
        assert "is not encrypted" in dialog.result.text and liar.requests == []
        answers.append(True)
        dialog.test_button.click()
        wait_until(lambda: dialog.result.text.startswith("The server answers."), 30)
        assert len(questions) == 3 and liar.requests[0][2]["Authorization"] == "Bearer css_secret"
        panel.ui.retryButton.click()  # a yes holds for the address
        wait_until(lambda: panel.state.server.health, 30)
        assert len(questions) == 3
        withdraw(liar.address)
        choose_device(panel, "CPU")
        choose_lab(panel)
        panel.ui.retryButton.click()
        wait_until(lambda: panel.state.server.health, 30)
        assert len(questions) == 4


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


@pytest.fixture
def unused_tcp_port():
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


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


def test_servers_are_added_tested_changed_and_removed_in_the_dialog(panel, server, answers, monkeypatch):
    api, token = server
    panel.ui.serversButton.click()
    shown = panel.server_dialog
    assert shown.dialog is not None and not shown.test_button.enabled and not shown.remove_button.enabled
    names = {field.accessibleName for field in (shown.name, shown.address, shown.token, shown.ca, shown.list)}
    assert names == {"Name", "Address", "Token", "Certificate", "Servers"}
    shown.name.text, shown.address.text = "Lab", "lab-gpu:8471"
    shown.add()
    assert "lacks its beginning. Write https://lab-gpu:8471" in answers[-1] and Servers().all == ()
    shown.address.text, shown.token.text = api.address, token
    assert shown.token.echoMode == qt.QLineEdit.Password
    shown.add_button.click()
    assert [server.name for server in Servers().all] == ["Lab"] and shown.token.text == ""
    assert "token is in" in shown.result.text and token not in shown.result.text
    assert panel.ui.deviceComboBox.findText("Server: Lab") >= 0
    shown.test_button.click()
    assert shown.result.text == "Asking Lab..."
    wait_until(lambda: shown.result.text.startswith("The server answers."), 30)
    assert "Devices: cpu" in shown.result.text and "Models: toy-120" in shown.result.text
    shown.add_button.click()  # again, without the token, which is kept
    assert Servers().token(Servers().named("Lab")) == token
    choose_lab(panel)
    assert panel.state.server.models
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    shown.remove_button.click()
    assert Servers().all == () and panel.ui.deviceComboBox.currentText == f"Server: {api.address}"
    assert "which is not in your list" in panel.ui.needLabel.text
    choose_device(panel, "Automatic")
    panel.on_servers(())
    assert panel.ui.deviceComboBox.findText("Server: ", qt.Qt.MatchStartsWith) < 0
    shown.close()
    assert shown.dialog is None


def test_the_devices_of_this_computer_are_looked_for_when_the_list_is_used(panel, monkeypatch):
    from ClassScaleSegLib.inference import devices

    monkeypatch.setattr(devices, "find_devices", lambda: {"cuda:0": "NVIDIA A40", "cpu": "x86_64"})
    box = panel.ui.deviceComboBox
    assert box.count == 2
    qt.QCoreApplication.sendEvent(box, qt.QFocusEvent(qt.QEvent.FocusIn))
    assert [box.itemText(index) for index in range(box.count)] == ["Automatic", "CPU", "cuda:0 (NVIDIA A40)"]


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


def test_a_list_that_the_command_changes_changes_in_the_open_dialog(lab, answers):
    Servers().add("Work", "https://work:8471")
    lab.ui.serversButton.click()
    dialog = lab.server_dialog
    dialog.list.setCurrentRow(1)
    Servers().add("Attic", "https://attic:8471")
    application.leave()
    application.enter()
    assert [dialog.list.item(row).text().partition(":")[0] for row in range(3)] == ["Attic", "Lab", "Work"]
    assert dialog.name.text == "Work"
    dialog.remove_button.click()
    assert "Remove Work from the list" in answers[-1]
    assert [server.name for server in Servers().all] == ["Attic", "Lab"]
    Servers().remove("Attic")
    application.leave()
    application.enter()
    assert dialog.list.count == 1 and not dialog.remove_button.enabled


def test_a_damaged_list_of_servers_is_told_once(panel, answers):
    (data_folder() / "servers.json").parent.mkdir(parents=True)
    (data_folder() / "servers.json").write_text("{")
    for _again in range(2):
        application.leave()
        application.enter()
    assert len(answers) == 1 and "servers.json cannot be read (" in answers[0]
