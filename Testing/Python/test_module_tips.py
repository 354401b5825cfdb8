# ruff: noqa: F811  fixtures
"""Texts that the panel is too narrow for: a tip tells each of them whole."""

from __future__ import annotations

from html import unescape

import numpy as np
import pytest
from ClassScaleSegLib.remote.servers import KnownServer, Servers
from slicer_application import add_volume, application, qt, slicer
from standins.application import ModulePanel
from test_module_compare import labels, panel, scene, segmentation, select  # noqa: F401

from ClassScaleSegPanel.models import class_list  # isort: skip  needs the stand-ins
from ClassScaleSegPanel.servers.dialog import ServerDialog  # isort: skip
from ClassScaleSegPanel.widgets.texts import add_named  # isort: skip

LONG = "that somebody has given a name which no row of a narrow panel has room for, <b>& so on</b>"
NONE = "no tip"
ADDRESS = f"https://{'gpu-host-' * 12}.example.org:8471"


@pytest.fixture
def narrow(panel):
    """Shows the panel with a width of 371 pixels, as narrow as Slicer's often is."""
    windows = []

    def show():
        window = ModulePanel(application.widget.parent)
        window.resize(371 - window.verticalScrollBar().sizeHint().width(), 900)
        window.show()
        for _round in range(4):
            application.processEvents()
        windows.append(window)

    yield show
    qt.QToolTip.hideText()
    for window in windows:
        window.release()
        window.close()


def tip_of(widget, place=None) -> str:
    """What Qt shows if the mouse rests on a widget, as the text that people read."""
    place = widget.rect.center() if place is None else place
    on_screen = widget.mapToGlobal(place)
    qt.QToolTip.showText(on_screen, NONE, widget)  # a tip that is hidden would be told for a while
    qt.QCursor.setPos(on_screen)
    event = qt.QHelpEvent(qt.QEvent.ToolTip, place, on_screen)
    qt.QApplication.sendEvent(widget, event)
    text = qt.QToolTip.text()
    document = qt.QTextDocument()
    document.setHtml(text) if text.startswith("<qt>") else document.setPlainText(text)
    return document.toPlainText().replace(NONE, "")


def box_of(selector):
    return selector.findChildren(qt.QComboBox)[0]


def row_of(view, row):
    """Viewport of a list, and the middle of one of its rows."""
    rect = view.visualRect(view.model().index(row, 0))
    return view.viewport(), qt.QPoint(min(rect.center().x(), view.viewport().width - 2), rect.center().y())


def test_names_of_nodes_servers_and_folders_are_told_whole(scene, panel, narrow):
    volume = add_volume(np.zeros((12, 14, 16), np.int16), f"CT {LONG}")
    one, two = segmentation(scene, f"One {LONG}"), segmentation(scene, f"Two {LONG}", labels(1))
    panel.ui.inputSelector.setCurrentNode(volume)
    select(panel.ui.resultSelector, one)
    select(panel.ui.compareSelector, two)
    parameters = panel.state.parameters
    parameters.report, parameters.device = f"/data/{LONG}", f"server:{ADDRESS}"
    for section in ("result", "compare"):
        getattr(panel.ui, f"{section}CollapsibleButton").collapsed = False
    narrow()
    for selector, name in (
        (panel.ui.inputSelector, f"CT {LONG}"),
        (panel.ui.resultSelector, f"One {LONG}"),
        (panel.ui.compareSelector, f"Two {LONG}"),
    ):
        own = box_of(selector).toolTip
        assert own and tip_of(box_of(selector)) == f"{name}\n{own}", "and what the list is for"
    assert tip_of(panel.ui.reportLineEdit).startswith(f"/data/{LONG}\n")
    assert tip_of(panel.ui.deviceComboBox).startswith(f"{ADDRESS}\n")
    assert panel.ui.deviceComboBox.currentText.endswith("…")


def test_a_text_that_has_room_leaves_the_tip_as_it_is(scene, panel, narrow):
    panel.ui.inputSelector.setCurrentNode(add_volume(np.zeros((12, 14, 16), np.int16), "CT"))
    narrow()
    for box in (box_of(panel.ui.inputSelector), panel.ui.deviceComboBox, panel.ui.reportLineEdit):
        assert tip_of(box) == box.toolTip != ""
    panel.ui.reportLineEdit.text = "/a"
    assert tip_of(panel.ui.reportLineEdit) == panel.ui.reportLineEdit.toolTip
    assert tip_of(panel.ui.statusLabel) == ""


def test_rows_of_lists_are_told_whole(scene, panel, narrow):
    for number in range(3):
        add_volume(np.zeros((4, 4, 4), np.int16), f"CT {number} {LONG}" if number else "CT")
    panel.choose_models((f"no-{LONG}", "toy-120"))
    narrow()
    viewport, place = row_of(panel.ui.modelsListWidget, 0)
    assert tip_of(viewport, place) == f"1. no-{LONG}"
    assert tip_of(*row_of(panel.ui.modelsListWidget, 1)) == panel.ui.modelsListWidget.toolTip
    box = box_of(panel.ui.inputSelector)
    box.showPopup()
    box.view().window().resize(200, 300)  # some styles make it as wide as its longest name
    application.processEvents()
    try:
        assert [tip_of(*row_of(box.view(), row)) for row in range(3)] == ["Volume", f"CT 1 {LONG}", f"CT 2 {LONG}"]
    finally:
        box.hidePopup()


def test_a_path_that_cannot_be_wrapped_is_told_whole(panel, narrow):
    path = "/data/" + 30 * "a_folder/" + "report"
    panel.state.status = f"{path} cannot be written."
    panel.runs.render()
    narrow()
    assert panel.ui.statusLabel.wordWrap and tip_of(panel.ui.statusLabel) == f"{path} cannot be written."


def test_channels_of_a_model_are_told_whole_also_those_that_it_alone_has(scene, panel, narrow):
    volume = add_volume(np.zeros((4, 4, 4), np.int16), f"CT {LONG}")
    panel.ui.inputSelector.setCurrentNode(volume)
    channels = [f"channel {number} {LONG}" for number in range(6)]
    panel.channels.render(panel.state.parameters, channels)
    narrow()
    for (label, selector), name in zip(panel.channels._rows, channels, strict=True):
        assert unescape(label.toolTip) == f"<qt>{name}</qt>"
        selector.setCurrentNode(volume)
        assert tip_of(box_of(selector)).startswith(f"CT {LONG}")


def test_menus_tell_whole_what_they_shorten(panel, monkeypatch):
    monkeypatch.setattr(class_list, "load_presets", lambda: {f"Preset {LONG}": [], "Short": []})
    menu = panel.class_list.preset_menu
    menu.aboutToShow.emit()
    long, short = menu.actions()[:2]
    assert menu.toolTipsVisible and long.text.endswith("…")
    assert unescape(long.toolTip) == f"<qt>Preset {LONG}</qt>" and short.text == "Short"
    plain = qt.QMenu()
    entry = add_named(plain, "Ribs & sternum", lambda name: f"{name} (24)")
    assert entry.text == "Ribs && sternum (24)" and not plain.toolTipsVisible


def test_servers_of_the_dialog_are_told_whole(panel, monkeypatch):
    server = KnownServer(f"Lab {LONG}", ADDRESS)
    monkeypatch.setattr(Servers, "all", property(lambda self: (server,)))
    dialog = ServerDialog(qt.QPushButton(), Servers(), lambda servers: None)
    dialog.open()
    try:
        dialog.list.setCurrentRow(0)
        application.processEvents()
        assert tip_of(*row_of(dialog.list, 0)) == f"Lab {LONG}: {ADDRESS}"
        assert tip_of(dialog.address) == ADDRESS and tip_of(dialog.name) == f"Lab {LONG}"
        dialog.token.text = "secret" * 40
        assert tip_of(dialog.token) == "", "a token is never shown"
    finally:
        dialog.close()


def test_rows_of_tables_have_their_texts_as_tips(scene, panel):
    names = {0: "background", 1: f"liver {LONG}"}
    select(panel.ui.resultSelector, segmentation(scene, "One", np.minimum(labels(), 1), names))
    proxy = panel.results.table.proxy
    assert unescape(proxy.data(proxy.index(0, 0), qt.Qt.ToolTipRole)) == f"<qt>liver {LONG}</qt>"
    panel.queue.add([("key", f"CT {LONG}")])
    proxy = panel.queue.table.proxy
    assert unescape(proxy.data(proxy.index(0, 0), qt.Qt.ToolTipRole)) == f"<qt>CT {LONG}</qt>"
    assert slicer.mrmlScene is scene
