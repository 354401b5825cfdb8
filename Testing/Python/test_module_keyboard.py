"""The panel by keyboard alone, and what a screen reader says: real key events on stand-ins of Qt's wrappers."""

import re
import time

import pytest
from slicer_application import application, load_sample, module, qt, slicer, wait_until  # noqa: F401

from ClassScaleSegPanel.widgets import saving  # isort: skip  needs the stand-ins
from PySide6.QtTest import QTest  # isort: skip


@pytest.fixture
def window(panel):
    """The panel in a window that has the keyboard."""
    holder = application.widget.parent
    holder.resize(420, 1400)
    holder.show()
    holder.activateWindow()
    QTest.qWaitForWindowActive(holder)
    yield panel
    holder.hide()


def focus():
    return qt.QApplication.focusWidget()


def press(key, modifier=qt.Qt.NoModifier):
    """Press a key where the focus is."""
    QTest.keyClick(focus(), key, modifier)
    application.processEvents()


def tab_to(widget, most=60):
    """Press Tab until a widget has the focus."""
    for _press in range(most):
        if focus() is widget:
            return
        press(qt.Qt.Key_Tab)
    raise AssertionError(f"Tab does not reach {widget.objectName}; it ends at {focus().objectName}")


def controls(panel):
    from ClassScaleSegPanel.widgets.keyboard import in_order

    return list(in_order(panel.widget.layout()))


def shown_controls(panel):
    return [widget for widget in controls(panel) if widget.isVisible() and widget.isEnabled()]


def open_all(panel):
    """Open every section."""
    for section in ("queue", "advanced", "result", "compare", "log"):
        getattr(panel.ui, f"{section}CollapsibleButton").collapsed = False


def name_of(widget):
    """What is said first. Qt on Linux says of a list its value instead, so its own name is asked for."""
    name = qt.QAccessible.queryAccessibleInterface(widget).text(qt.QAccessible.Name)
    return widget.accessibleName if isinstance(widget, qt.QComboBox) else name


def test_from_volume_to_saved_result_by_keyboard_alone(window, tmp_path, monkeypatch):
    panel, ui = window, window.ui
    load_sample("CT")
    load_sample("Other")
    target = tmp_path / "saved.seg.nrrd"
    monkeypatch.setattr(saving, "show", lambda title, proposed, filters: (str(target), filters[0]))
    ui.inputsCollapsibleButton.setFocus()
    press(qt.Qt.Key_Tab)
    press(qt.Qt.Key_Down)  # in the list of volumes
    assert ui.inputSelector.currentNode().GetName() == "Other"
    tab_to(ui.modelSearchBox)
    QTest.keyClicks(focus(), "toy 120")
    press(qt.Qt.Key_Down)
    assert focus() is ui.modelComboBox and panel.state.entry.id == "toy-120"
    # classes: two of them, by search, Down, Space
    tab_to(panel.class_list.none_button)
    press(qt.Qt.Key_Space)
    for number in ("3", "4"):
        focus_back(panel.class_list.table.search)
        QTest.keyClicks(focus(), f"cell {number}")
        press(qt.Qt.Key_Down)
        assert focus() is panel.class_list.table.view
        press(qt.Qt.Key_Space)
        press(qt.Qt.Key_Up)
        assert focus() is panel.class_list.table.search
        press(qt.Qt.Key_Escape)
        assert focus().text == ""
    assert len(panel.class_list.ticked) == 2
    tab_to(ui.applyButton)
    press(qt.Qt.Key_Space)
    assert panel.state.run is not None and focus() is ui.cancelButton, "Apply, disabled now, hands its focus over"
    wait_until(lambda: panel.state.run is None)
    assert focus() is ui.applyButton and "Done: " in focus().accessibleDescription
    tab_to(panel.results.table.search)
    went = []
    monkeypatch.setattr(panel.logic, "centerViews", lambda node, segment: went.append(segment))
    press(qt.Qt.Key_Down)
    press(qt.Qt.Key_Return)
    assert went == panel.results.table.shown()[:1]
    press(qt.Qt.Key_Space)
    assert panel.results.table.ticked() == went and len(went) == 1
    tab_back_to(ui.show3DButton)
    press(qt.Qt.Key_Space)
    assert ui.show3DButton.checked
    tab_to(ui.saveButton)
    press(qt.Qt.Key_Space)
    assert target.is_file()


def focus_back(widget):
    tab_to(widget) if widget.isVisible() else None


def tab_back_to(widget, most=60):
    for _press in range(most):
        if focus() is widget:
            return
        press(qt.Qt.Key_Backtab, qt.Qt.ShiftModifier)
    raise AssertionError(f"Shift+Tab does not reach {widget.objectName}")


def test_tab_goes_from_top_to_bottom_and_leaves_every_control(window):
    panel = window
    load_sample("CT")
    open_all(panel)
    application.processEvents()
    wanted = shown_controls(panel)
    places = [widget.mapTo(panel.widget, qt.QPoint(0, 0)) for widget in wanted]
    heights = [widget.height for widget in wanted]
    for (before, height), after in zip(zip(places, heights, strict=True), places[1:], strict=False):
        assert after.y() >= before.y() - height or after.x() > before.x(), "the order is that of reading"
    wanted[0].setFocus()
    seen = [focus()]
    for _control in wanted[1:]:
        press(qt.Qt.Key_Tab)
        seen.append(focus())
    assert [w.objectName for w in seen] == [w.objectName for w in wanted] and seen == wanted


def test_every_control_says_to_a_screen_reader_what_it_is(window):
    panel = window
    load_sample("CT")
    open_all(panel)
    silent = [
        (widget.objectName, widget.className())
        for widget in controls(panel)
        if not name_of(widget).strip(" .") and widget.className() != "ctkCollapsibleButton"  # a button, in Slicer
    ]
    assert silent == []
    assert name_of(panel.ui.regionSelector._box) == "Region" and name_of(panel.ui.modelComboBox) == "Model"
    assert name_of(panel.ui.progressBar) == "Progress"
    assert name_of(panel.class_list.table.search) == "Search by name, code or group"


def test_shortcuts_of_letters_do_not_collide(window):
    panel = window
    load_sample("CT")
    assert_no_collision(panel)


def assert_no_collision(panel):
    texts = [label.text for label in panel.widget.findChildren(qt.QLabel) if label.buddy() is not None]
    texts += [button.text for button in panel.widget.findChildren(qt.QAbstractButton)]
    letters = [match[1].lower() for text in texts for match in re.finditer(r"(?<!&)&([^&])", text.replace("&&", ""))]
    assert len(letters) == len(set(letters)) and len(letters) > 15, sorted(letters)


def test_a_letter_of_a_label_leads_to_its_control(window):
    panel = window
    load_sample("CT")
    panel.ui.modelSearchBox.setFocus()
    press(qt.Qt.Key_R, qt.Qt.AltModifier)
    assert focus() is panel.ui.regionSelector._box
    press(qt.Qt.Key_O, qt.Qt.AltModifier)
    assert focus() is panel.ui.inputSelector._box


def test_the_names_of_channels_are_shown_as_they_are_though_labels_have_shortcuts(panel):
    rows, ui = panel.channels, panel.ui
    rows.render(panel.state.parameters, ("T1 & more", "T2"))
    assert ui.inputLabel.text == "T1 && more:" and ui.inputSelector._box.accessibleName == "T1 & more"
    rows.render(panel.state.parameters, ("CT",))
    assert ui.inputLabel.text == "V&olume:" and ui.inputSelector._box.accessibleName == "Volume"


def test_nothing_but_a_disabled_button_loses_the_focus_during_a_run(window):
    panel, ui = window, window.ui
    load_sample("CT")
    ui.applyButton.click()
    ui.modelSearchBox.setFocus()
    end = time.monotonic() + 60
    while panel.state.run is not None and time.monotonic() < end:
        application.processEvents()
        time.sleep(0.02)
        assert focus() is ui.modelSearchBox
    assert panel.state.run is None and focus() is ui.modelSearchBox
