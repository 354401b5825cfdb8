"""What must hold in the panel between two actions of a user: see ``panel_user.py``."""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path
from typing import Any

from ClassScaleSegLib.labels.label import one_line
from ClassScaleSegLib.scene.checked import checked_structures
from ClassScaleSegLib.scene.confidence import confidence_of
from ClassScaleSegLib.scene.confidence_colors import has_confidence, shows_confidence
from ClassScaleSegLib.scene.confidence_map import shows_confidence_map
from ClassScaleSegLib.scene.confidence_volume import confidence_volume
from ClassScaleSegLib.scene.correction import correction_in
from ClassScaleSegLib.scene.hiding import is_shown_instead, stand_ins
from slicer_application import application, qt, slicer
from vtk.util.numpy_support import vtk_to_numpy

from ClassScaleSegPanel.parameters import NODES, ClassScaleSegParameterNode  # isort: skip  needs the stand-ins

TEXTS = ("folds", "report")
HIDDEN = "ClassScaleSeg.Hidden"  # role of the display nodes that are hidden for a segmentation of differences


class PanelFault(AssertionError):
    """Something went wrong; the first line of the text says of what kind it is."""


class Faults(logging.Handler):
    """Everything that is raised where Qt and VTK only print it, or that is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        lines = traceback.format_exception(*record.exc_info) if record.exc_info else []
        if not record.getMessage().startswith("Failed to save node"):  # Slicer logs what the panel tells
            self.texts.append(f"logged: {record.getMessage()}\n{''.join(lines)}")

    def note(self, kind: type, error: BaseException | None, trace: Any) -> None:
        self.texts.append(fault_text(error if error is not None else kind()))

    def note_other(self, info: Any) -> None:
        self.note(info.exc_type, info.exc_value, info.exc_traceback)


def fault_text(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "ClassScaleSeg" in Path(f.filename).name or "ClassScaleSeg/" in f.filename]
    where = (own or frames)[-1] if frames else None
    place = f" in {Path(where.filename).name}, {where.name}" if where else ""
    return f"raised: {type(error).__name__}{place}\n{''.join(traceback.format_exception(error))}"


class PanelChecks:
    """Checks the panel ``panel`` on the scene ``scene``.

    :ivar faults: what was raised unseen since the last check.
    :ivar script: a run that the panel has not started, if any.
    """

    panel: Any
    scene: Any
    faults: Faults
    script: Any

    def demand(self, holds: bool, kind: str, *facts: Any) -> None:
        if not holds:
            raise PanelFault("\n".join((kind, *map(repr, facts))))

    def demand_silence(self) -> None:
        self.demand(not self.faults.texts, *self.faults.texts[:1] or [""])
        said = application.vtk_messages
        self.demand(
            not said,
            "VTK: " + (re.sub(r"0x[0-9a-f]+", "", said[0]).strip().splitlines() or [""])[-1][-120:] if said else "",
            *said,
        )

    def check(self) -> None:
        """Check all that must hold between two actions, once the application has handled its events."""
        application.processEvents()
        self.demand_silence()
        panel, state = self.panel, self.panel.state
        running = slicer.modules.ClassScaleSegInstance.running
        self.demand(len(running) <= 1, "two runs at a time", running)
        own = [run for run in running if run is not self.script]
        self.demand(own == runs_of(state.run), "the panel does not know its run", running, state.run)
        self.demand(panel.runs.timer.active == (state.run is not None), "timer", state.run)
        present = state.node is None or self.scene.IsNodePresent(state.node)
        self.demand(present, "the listed node is not in the scene")
        if self.widget.parent.isEntered:
            self.demand(state.parameters is not None, "no parameter node though the module is open")
            self.check_parameters()
            self.check_line()
            self.check_result()

    def check_parameters(self) -> None:
        ui, state, classes = self.panel.ui, self.panel.state, self.panel.class_list
        wanted = panel_values(state.parameters)
        fresh = panel_values(self.panel.logic.getParameterNode())
        for name, found in self.shown().items():
            for kind, value in (("shown", wanted[name]), ("stored", fresh[name])):
                same = found is value if name in NODES else found == value
                self.demand(same, f"disagree with what is {kind}: {name}", found, value)
        for name in NODES:
            there = wanted[name] is None or self.scene.IsNodePresent(wanted[name])
            self.demand(there, f"a removed node is still chosen: {name}")
        models = [state.parameters.model, *state.parameters.moreModels.splitlines()]
        self.demand([model.id for model in state.models] == models, "the state has other models", state.models, models)
        model = models[state.current] if state.current < len(models) else None
        self.demand(model is not None, "no model is shown", state.current, models)
        known = ui.modelComboBox.findData(model) >= 0
        shown = ui.modelComboBox.currentData if ui.modelComboBox.currentIndex >= 0 else None
        self.demand(shown == (model if known else None), "disagree: model", shown, model)
        self.demand(ui.modelsFrame.isHidden() == (len(models) < 2), "the list of models")
        self.demand(ui.modelsListWidget.count == len(models), "other models listed", models)
        self.demand(ui.modelsListWidget.currentRow == state.current, "disagree: row of the list of models")
        rows = [str(label.value) for label in state.table.foreground] if state.table is not None else []
        self.demand(classes.table.keys() == rows, "other classes listed", len(rows), len(classes.table.keys()))
        if state.table is not None:
            same = classes.value() == state.parameters.classes
            self.demand(same, "disagree: classes", classes.value()[:200], state.parameters.classes[:200])
        ticked = [key for key, item in classes.table._items.items() if item.checkState() == qt.Qt.Checked]
        self.demand(classes.ticked == ticked, "disagree: ticks")
        self.demand(classes.count.text == f"{len(ticked)} of {len(rows)}", "count of ticks", classes.count.text)

    def check_line(self) -> None:
        from ClassScaleSegPanel.inputs.channels import channel_volume
        from ClassScaleSegPanel.runs.apply_line import need_text

        ui, state = self.panel.ui, self.panel.state
        text, ready = need_text(state, state.parameters, self.panel.class_list.ticked)
        self.demand(ui.needLabel.text == text, "the line above Apply is old", ui.needLabel.text, text)
        self.demand(ui.applyButton.enabled == (ready and state.run is None), "Apply", ui.applyButton.enabled, text)
        self.demand(ui.cancelButton.enabled == (state.run is not None), "Cancel")
        self.demand(state.queued == tuple(self.panel.queue.chosen()), "other volumes are queued", state.queued)
        self.demand(ui.reportButton.isHidden() == (state.page is None), "View report")
        self.demand(state.page is None or state.run is None, "the page of an earlier run is offered during one")
        self.demand(ui.progressBar.isHidden() == (state.run is None), "progress bar")
        self.demand(ui.statusLabel.text == state.status, "status", ui.statusLabel.text, state.status)
        self.demand(ui.logTextEdit.plainText == state.log, "log", ui.logTextEdit.plainText, state.log)
        channels = state.summaries[0].channels if state.summaries else 1
        rows = self.panel.channels._rows
        shown = [not selector.isHidden() for _label, selector in rows]
        self.demand(shown == [channels >= n for n in range(1, len(rows) + 1)], "rows of channels", shown, channels)
        for number, (_label, selector) in enumerate(rows[:channels], start=1):
            volume = channel_volume(state.parameters, number)
            self.demand(selector.currentNode() is volume, f"disagree: channel {number}", volume)
            there = volume is None or self.scene.IsNodePresent(volume)
            self.demand(there, f"a removed node is still chosen: channel {number}")
        hint = self.panel.channels.hint(state.parameters, state.channels)
        self.demand(ui.channelHintLabel.text == hint, "the hint on channels is old", ui.channelHintLabel.text, hint)

    def check_result(self) -> None:
        panel, node = self.panel, self.panel.state.node
        table = panel.results.table
        self.demand(panel.ui.resultSelector.currentNode() is node, "another node is chosen than listed")
        listed = {key: item.text() for key, item in table._items.items()}
        wanted = with_voxels(node)
        nameless = {key: listed.get(key) for key, name in wanted.items() if not name}  # such as "label 5"
        self.demand(listed == wanted | nameless, "other structures listed", listed, wanted)
        surfaces = node is not None and bool(node.GetSegmentation().ContainsRepresentation("Closed surface"))
        self.demand(panel.ui.show3DButton.checked == surfaces, "Show 3D", surfaces)
        self.demand(panel.ui.show3DButton.enabled == bool(listed), "Show 3D can be pressed")
        self.demand(panel.ui.saveButton.enabled == (node is not None), "Save can be pressed")
        self.demand(panel.ui.tableButton.enabled == bool(listed), "Statistics can be pressed")
        self.demand(panel.ui.correctButton.enabled == bool(listed), "Correct can be pressed")
        for button in (panel.ui.checkedButton, panel.ui.nextButton):
            self.demand(button.enabled == bool(listed), "Checked or Next can be pressed")
        marks = {key for key, items in table._rows.items() if items[3].text()}
        checked = set() if node is None else set(checked_structures(node)) & set(listed)
        self.demand(marks == checked, "other structures are marked as checked", marks, checked)
        self.demand(correction_in(self.scene) is None, "a correction was not taken over")
        self.check_colors()
        self.check_comparison()

    def check_colors(self) -> None:
        """The rows have the colours of the views, and without the choice these are the segments' own."""
        ui, node = self.panel.ui, self.panel.state.node
        display = None if node is None else node.GetDisplayNode()
        by_confidence = display is not None and shows_confidence(node)
        of_voxels = node is not None and confidence_volume(node) is not None
        known = node is not None and has_confidence(node)
        self.demand(ui.colorsWidget.isHidden() == (not (by_confidence or known or of_voxels)), "the choice of colours")
        mapped = "map" if of_voxels and shows_confidence_map(node) else "own"
        self.demand(ui.colorsComboBox.currentData == ("confidence" if by_confidence else mapped), "disagree: colours")
        self.demand((ui.colorsComboBox.findData("map") >= 0) == of_voxels, "the confidence of voxels is offered")
        filled = display is None or bool(display.GetVisibility2DFill())
        self.demand(filled == (not (of_voxels and shows_confidence_map(node))), "segments are outlines, or are not")
        for key, item in self.panel.results.table._items.items() if display is not None else ():
            segment = node.GetSegmentation().GetSegment(key)
            seen = display.GetSegmentColor(key)
            row = item.data(qt.Qt.DecorationRole).getRgb()[:3]
            self.demand(row == tuple(round(255 * part) for part in seen), "another colour is shown", key, row, seen)
            own = by_confidence and confidence_of(segment) is not None or tuple(seen) == segment.GetColor()
            self.demand(own, "a segment has lost its own colour", key, seen)

    def check_comparison(self) -> None:
        panel, ui, comparing = self.panel, self.panel.ui, self.panel.comparing
        node, other = panel.state.node, ui.compareSelector.currentNode()
        self.demand(other is None or self.scene.IsNodePresent(other), "compared with a removed node")
        self.demand(ui.compareButton.enabled == (node is not other and None not in (node, other)), "Compare")
        for button in (ui.compareSaveButton, ui.compareTableButton, ui.differencesButton):
            self.demand(button.enabled == bool(comparing.rows), "a button of the comparison", button.name)
        self.demand(len(comparing.table.keys()) == len(comparing.rows), "other rows than those of the comparison")
        if comparing.rows:
            self.demand(comparing.rows == panel.logic.compare(node, other).rows, "an old comparison is shown")
        cases = panel.case_comparison
        held = [one for one in cases._held if self.scene.IsNodePresent(one)]
        self.demand(len(held) == len(cases._held), "compared with a removed node, as a case")
        self.demand(bool(cases.cases) == bool(held), "cases are compared", cases.cases)
        if cases.dialog is not None:
            self.demand(cases.save_button.enabled == bool(cases.cases), "cases can be saved")
            pairs = [(pair.result, pair.reference) for pair in cases.list.pairs.values()]
            there = [one for pair in pairs for one in pair if one is None or self.scene.IsNodePresent(one)]
            self.demand(len(there) == 2 * len(pairs), "a removed node is a case")
        shown = [one for one in stand_ins(self.scene) if is_shown_instead(one)]
        self.demand(ui.hideDifferencesButton.enabled == bool(shown), "Hide differences", shown)
        for one in shown:
            self.demand(one.GetDisplayVisibility() != 0, "hidden differences hide others", one)
            hidden = [one.GetNthNodeReference(HIDDEN, n) for n in range(one.GetNumberOfNodeReferences(HIDDEN))]
            self.demand(not any(display and display.GetVisibility() for display in hidden), "not hidden", one)

    def shown(self) -> dict[str, Any]:
        """Return what the widgets show, by the name of the parameter."""
        values = {}
        for name, widget in self.widgets().items():
            if isinstance(widget, slicer.qMRMLNodeComboBox):
                values[name] = widget.currentNode()
            else:
                key = "checked" if isinstance(widget, qt.QCheckBox) else "text" if name in TEXTS else "value"
                values[name] = getattr(widget, key)
        lists = {"device": self.panel.ui.deviceComboBox, "locateWith": self.panel.ui.locateComboBox}
        lists |= {name: getattr(self.panel.ui, f"{name}ComboBox") for name in ("overlap", "interpolation")}
        return {**values, **{name: box.currentData for name, box in lists.items()}}

    def widgets(self) -> dict[str, Any]:
        bound = {w.property("SlicerParameterName"): w for w in vars(self.panel.ui).values()}
        return {name: widget for name, widget in bound.items() if name}


def runs_of(run: Any) -> list[Any]:
    """Return the runs that are under way: of a queue, the one of the volume whose turn it is."""
    items = getattr(run, "items", None)
    if items is not None:
        return [item.run for item in items if item.state == "running"]
    return [] if run is None else [run]


def panel_values(parameters: Any) -> dict[str, Any]:
    return {name: getattr(parameters, name) for name in ClassScaleSegParameterNode.__annotations__}


def with_voxels(node: Any) -> dict[str, str]:
    """Return the names of the segments that have voxels, by id."""
    segmentation = node.GetSegmentation() if node is not None else None
    transform = node.GetParentTransformNode() if node is not None else None
    if segmentation is None or (transform is not None and not transform.IsTransformToWorldLinear()):
        return {}
    if not segmentation.ContainsRepresentation("Binary labelmap"):  # Slicer drops it when surfaces become the source
        copy = slicer.vtkSegmentation()
        copy.DeepCopy(segmentation)
        copy.CreateRepresentation("Binary labelmap")
        segmentation = copy
    names = {}
    for identifier in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(identifier)
        image, value = segment.GetRepresentation("Binary labelmap"), segment.GetLabelValue()
        scalars = image.GetPointData().GetScalars() if image is not None else None
        if scalars is not None and 0 < value < 1 << 16 and (vtk_to_numpy(scalars) == value).any():
            names[identifier] = one_line(segment.GetName() or "")
    return names
