"""What the panel asks before anything goes to a server, and that nothing goes there without a yes."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import json
from dataclasses import replace

import pytest
from ClassScaleSegLib import addresses
from ClassScaleSegLib.remote.servers import Servers
from remote_fixtures import lying_server
from slicer_application import application, slicer, wait_until

from ClassScaleSegPanel.servers.consent import withdraw  # isort: skip

from panel_server import asked, choose_device, choose_lab, lab, server, small_volume  # noqa: F401  (fixtures)


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
