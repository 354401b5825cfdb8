"""The list of devices and servers in the panel, and its dialog."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from ClassScaleSegLib.catalog.catalog import data_folder
from ClassScaleSegLib.remote.servers import Servers
from panel_server import choose_device, choose_lab, lab, server  # noqa: F401  (fixtures)
from slicer_application import application, qt, slicer, wait_until


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
