"""A user of the panel in the stand-in application: what somebody can do there, and what must hold after each action.

    user = PanelUser(folder)
    user.act("add_volume", kind="normal", name="CT")
    user.act("apply", how="finish", yes=True)
    user.close_application()

Actions choose nodes and rows by number, counted round, so that every action is possible at any time. `PanelUser.act`
raises a `PanelFault` if an exception was raised or printed anywhere, or the panel shows something else than it should.
Runs are real, but for the program of the child process: see ``panel_child.py``.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ClassScaleSegLib.catalog import catalog
from ClassScaleSegLib.errors import Cancelled, CatalogError, ClassScaleError
from ClassScaleSegLib.inference import devices
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.process import child
from ClassScaleSegLib.remote.chosen_server import ChosenServer
from ClassScaleSegLib.remote.health import Health
from ClassScaleSegLib.remote.offers import RemoteModel
from ClassScaleSegLib.remote.servers import KnownServer, Servers
from hypothesis import strategies as st
from panel_actions import SEARCHES, action, leaves, number, toggle, yes
from panel_checks import NODES, Faults, PanelFault, fault_text
from panel_child import HOWS, ORDINARY
from panel_result_actions import ResultActions
from panel_scene import add_view, model_of_channels
from panel_scene_actions import SceneActions
from slicer_application import ROOT, application, module, qt, slicer
from user_data import data_environment

from ClassScaleSegPanel.results import result_panel, saving  # isort: skip  needs the stand-ins
from ClassScaleSegPanel.servers import dialog, watch  # isort: skip
from ClassScaleSegPanel.state import ServerView  # isort: skip

MODELS = ("toy-120", "toy-1000", "own-two", "own-five", "totalsegmentator-3mm", "totalsegmentator-1.5mm")
REPORTS = ("", "", "*report", "*report", "*folder", "*a", "not whole", " ")  # with a star: in the folder of results
FOLDS = ("", "0", "0,1", "x", "all")
BEGINNINGS = (
    "empty",
    "volume",
    "result",
    "outputs",
    "frames",
    "running",
    "left",
    "compared",
    "cases",
    "reported",
    "server",
)


class Children:
    """Stands in for the module ``subprocess`` in ``child.py``, and starts ``panel_child.py``.

    :ivar how: how the next child behaves, one of ``HOWS``, or "unstartable".
    :ivar latest: how the child that was started last behaves.
    """

    PIPE, DEVNULL, TimeoutExpired = subprocess.PIPE, subprocess.DEVNULL, subprocess.TimeoutExpired

    def __init__(self) -> None:
        self.how, self.latest, self.started = "finish", "", []

    def Popen(self, command: list[str], **options: Any) -> subprocess.Popen:
        if self.how == "unstartable":
            raise FileNotFoundError(2, "No such file or directory")
        self.latest = self.how
        program = str(Path(__file__).with_name("panel_child.py"))
        self.started.append(subprocess.Popen([sys.executable, "-I", "-S", program, self.how, *command], **options))
        return self.started[-1]


class Asked:
    """Stands in for the question to a server, which answers at the second look; one whose name is "Off" does not."""

    def __init__(self, servers: Servers, server: KnownServer, before: ServerView | None = None) -> None:
        self._server, self._looks = server, 0

    def cancel(self) -> None:
        pass

    def answer(self) -> ServerView | None:
        self._looks += 1
        if self._looks < 2:
            return None
        view = ServerView(self._server.address, self._server)
        if self._server.name == "Off":
            return replace(view, fault=f"{self._server.address} cannot be reached. Check host and port.")
        models = {"toy-120": toy_of_server()}
        chosen = ChosenServer(self._server.address, "token", None, models)
        return replace(view, health=Health("0.2.0", "x", "accepted", ("cuda:0",), 2, 1), models=models, chosen=chosen)


@functools.cache
def toy_of_server() -> RemoteModel:
    path = ROOT / "Resources" / "Models" / "toy-120.zip"
    return RemoteModel("toy-120", "Toy", (replace(summarize(path), path=Path("toy-120")),), None, "Generated.", ("",))


class PanelUser(SceneActions, ResultActions):
    """Opens the panel on an empty scene.

    :ivar steps: what the user did, as arguments of `act`.
    :ivar ended: the states of the runs that have ended.
    :param folder: a new folder for models, results and temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps, self.ended, self.saved, self.script = folder, [], [], "", None
        self.chosen: dict[str, Any] = {}
        self.children, self.faults, self.yes, self.file = Children(), Faults(), True, ""
        self.folder_chosen, self.opened = "", []
        for name in ("models", "temporary", "results", "results/folder"):
            (folder / name).mkdir(parents=True)
        self._two = model_of_channels(2)
        self._undo: list[tuple[Any, str, Any]] = []
        self._imitate()
        self.scene = slicer.mrmlScene
        self.scene.Clear()
        node = self.scene.GetSingletonNode("ClassScaleSeg", "vtkMRMLScriptedModuleNode")
        if node is not None:
            self.scene.RemoveNode(node)
        self.scene.ClearUndoStack()
        self.scene.ClearRedoStack()
        application.settings.clear()
        application.vtk_messages.clear()
        self._write_own_models()
        self.widget = application.make_widget(module)
        self.panel = self.widget.panel
        end = self.panel.runs._end
        self.panel.runs._end = lambda run: (self.ended.append(run.state), end(run))
        self.view = add_view()
        self.check()

    def _imitate(self) -> None:
        own = data_environment(self.folder / "data")
        self._replace(os, "environ", {**os.environ, **own, "CLASSSCALESEG_MODELS": str(self.folder / "models")})
        self._replace(tempfile, "tempdir", str(self.folder / "temporary"))
        self._replace(child, "subprocess", self.children)
        self._replace(catalog, "download_parts", self._download)
        self._replace(result_panel, "SETTLE_MILLISECONDS", 0)  # the checks look at once
        self._replace(devices, "find_devices", lambda: {"cpu": "CPU", "cuda:0": "A GPU"})
        self._replace(slicer.util, "errorDisplay", lambda text, **more: None)
        self._replace(slicer.util, "infoDisplay", lambda text, **more: None)
        self._replace(slicer.util, "confirmOkCancelDisplay", lambda text, **more: self.yes)
        self._replace(slicer.util, "confirmYesNoDisplay", lambda text, **more: self.yes)
        for asking in (watch, dialog):
            self._replace(asking, "Asking", Asked)
        self._replace(saving, "show", self._choose_file)
        self._replace(qt.QFileDialog, "getExistingDirectory", lambda *_: self.folder_chosen)
        self._replace(qt.QFileDialog, "getOpenFileName", lambda *_: self.file and str(self.folder / self.file))
        self._replace(qt.QDesktopServices, "openUrl", lambda url: self.opened.append(url.toLocalFile()) is None)
        self._replace(qt.QInputDialog, "getText", lambda *_: self.file)
        self._replace(sys, "excepthook", self.faults.note)
        self._replace(sys, "unraisablehook", self.faults.note_other)
        self._replace(threading, "excepthook", self.faults.note_other)
        logging.getLogger().addHandler(self.faults)

    def _choose_file(self, title: str, proposed: str, filters: list[str]) -> tuple[str, str]:
        return self.file and str(self.folder / "results" / self.file), filters[-1]  # tables as workbooks

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _write_own_models(self) -> None:
        added = catalog.Catalog().add(self._two, "two")
        assert added.id == "own-two"
        Servers().add("Lab", "https://lab-gpu:8471")
        Servers().add("Off", "http://off:8471")
        assert catalog.Catalog().add(model_of_channels(5), "five").id == "own-five"

    def _download(self, remote: list, progress: Any, cancel: Any) -> None:
        if self.file == "":
            raise Cancelled("The download was cancelled.")
        if self.file == "a":
            raise CatalogError("The address does not answer.")
        for _part, place in remote:
            progress(1, 2)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "Resources" / "Models" / "toy-120.zip", place)

    # --- the course of a sequence

    def act(self, name: str, /, **arguments: Any) -> None:
        """Do something, and check everything afterwards.

        :raises PanelFault: if something is not as it should be.
        """
        self.steps.append((name, arguments))
        try:
            getattr(self, name)(**arguments)
        except PanelFault:
            raise
        except Exception as error:
            raise PanelFault(fault_text(error)) from error
        self.check()

    def close_application(self) -> None:
        """Close the application, and check that nothing is left.

        :raises PanelFault: if anything is.
        """
        panel = self.panel
        try:
            self.widget.cleanup()
            if self.script is not None:
                self.script.cancel()
            application.processEvents()
            timers = [
                timer
                for timer in (panel.runs.timer, panel.results._soon, panel.channels.timer, panel.servers.timer)
                if timer.active
            ]
            alive = [process.pid for process in self.children.started if process.poll() is None]
            left = [path.name for path in (self.folder / "temporary").iterdir()]
            running = slicer.modules.ClassScaleSegInstance.running
            for what, found in (("timer", timers), ("process", alive), ("folder", left), ("run", running)):
                self.demand(not found, f"left at the end: {what}", found)
            self.demand_silence()
        finally:
            for process in self.children.started:
                if process.poll() is None:
                    process.kill()
            slicer.modules.ClassScaleSegInstance.running.clear()
            logging.getLogger().removeHandler(self.faults)
            for owner, name, value in reversed(self._undo):
                setattr(owner, name, value)
            self.scene.SetUndoOff()
            self.scene.ClearUndoStack()
            self.scene.ClearRedoStack()
            self.scene.SetRootDirectory("")
            self.scene.RemoveNode(self.view)
            self.widget.parent.deleteLater()
            qt.QCoreApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
            self.scene.Clear()

    def begin(self, state: str) -> None:
        """Begin in one of the ``BEGINNINGS``.

        :param state: "left": with another module open, "compared": two results, "cases": as cases, "reported": with a
            report, "server": with a result that a server has made.
        """
        if state != "empty":
            self.add_volume("frames" if state == "frames" else "normal", "CT")
        if state == "frames":
            self.set_option(("allFrames", True))
        if state == "outputs":
            for name in ("region", "segmentation", "confidence", "statistics"):
                self.create(name)
        if state == "reported":
            self.choose_report("*report", "type")
        if state in ("result", "outputs", "frames", "compared", "cases", "reported"):
            self.segment("finish", True)
        if state in ("compared", "cases"):
            self.panel.state.parameters.segmentation = None
            self.segment("finish", True)
            selector = self.panel.ui.compareSelector
            selector.setCurrentNode(selector._nodes()[0])
            self.press("compareButton")
            self.demand(bool(self.panel.comparing.rows), "nothing was compared")
        if state == "cases":
            for what in ("open", "row", "reference", "compare"):
                self.use_cases(what, 1, "", True)
            self.demand(bool(self.panel.case_comparison.cases), "no case was compared")
        if state == "reported":
            self.demand(self.panel.state.page is not None, "there is no report")
        if state == "running":
            self.apply("slow", True)
        if state == "left":
            application.leave()
        if state == "server":
            box = self.panel.ui.deviceComboBox
            box.setCurrentIndex(box.findText("Server: Lab"))
            self.hear_of_server(2)
            self.demand(self.panel.ui.applyButton.enabled, "the server cannot be used", self.panel.ui.needLabel.text)
            self.segment("finish", True)
            self.demand(self.ended == ["finished"], "no run on the server", self.panel.state.status)

    # --- actions: parameters

    @action(name=st.sampled_from(NODES), index=number)
    def choose(self, name: str, index: int) -> None:
        selector = self.widgets()[name]
        if self.open and (nodes := ([None] if selector.noneEnabled else []) + selector._nodes()):
            selector.setCurrentNode(nodes[index % len(nodes)])

    @action(index=number)
    def choose_fifth_channel(self, index: int) -> None:
        if self.open and len(self.panel.state.channels) == 5:
            selector = self.panel.channels.selector(5)
            nodes = [None, *selector._nodes()]
            selector.setCurrentNode(nodes[index % len(nodes)])

    @action(spoil=st.sampled_from(("", "", "{", '{"toy-120": {"step": 9, "classes": "x"}}')))
    def use_last_choice(self, spoil: str) -> None:
        if spoil:
            application.settings.setValue("ClassScaleSeg/LastChoices", spoil)
        menu = self.panel.ui.modelMenuButton.menu()
        menu.aboutToShow.emit()
        entry = menu.actions()[0]
        if self.open and entry.enabled:
            entry.trigger()
            menu.aboutToShow.emit()
            self.demand(not entry.enabled, "the last choice was not used", entry.toolTip)

    @action(name=st.sampled_from(("region", "segmentation", "confidence", "statistics")))
    def create(self, name: str) -> None:
        if self.open:
            self.widgets()[name].addNode()

    @action(model=st.sampled_from(MODELS))
    def choose_model(self, model: str) -> None:
        box = self.panel.ui.modelComboBox
        if self.open and box.findData(model) >= 0:
            box.setCurrentIndex(box.findData(model))

    @action(index=number)
    def add_model(self, index: int) -> None:
        menu = self.panel.model_list.add_menu
        if self.open and len(self.panel.state.models) < 4:
            menu.aboutToShow.emit()
            actions = [action for action in menu.actions() if action.enabled]
            if actions:
                actions[index % len(actions)].trigger()

    @action(index=number, button=st.sampled_from(("", "modelUpButton", "modelDownButton", "removeModelButton")))
    def arrange_models(self, index: int, button: str) -> None:
        ui = self.panel.ui
        if self.open and not ui.modelsFrame.isHidden():
            ui.modelsListWidget.setCurrentRow(index % ui.modelsListWidget.count)
            if button:
                getattr(ui, button).click()

    @action(text=st.sampled_from(REPORTS), how=st.sampled_from(("type", "choose", "script")))
    def choose_report(self, text: str, how: str) -> None:
        folder = str(self.folder / "results" / text[1:]) if text.startswith("*") else text
        if how == "script":
            self.panel.logic.getParameterNode().report = folder
        elif self.open and how == "type":
            self.panel.ui.reportLineEdit.selectAll()
            self.panel.ui.reportLineEdit.insert(folder)
        elif self.open:
            self.folder_chosen = folder
            self.panel.ui.reportFolderButton.click()

    @action(there=st.booleans())
    def open_report(self, there: bool) -> None:
        page = self.panel.state.page
        if self.open and page is not None:
            if not there:
                page.unlink(missing_ok=True)
            self.opened.clear()
            self.panel.ui.reportButton.click()
            self.demand(self.opened == [str(page)] * page.is_file(), "another page was opened", self.opened)

    @action(index=number)
    def choose_in_a_list(self, index: int) -> None:
        if self.open:
            box = self.panel.ui.overlapComboBox if index % 4 < 2 else self.panel.ui.interpolationComboBox
            box.setCurrentIndex(index % 2)

    @action(what=st.sampled_from(("all", "folder", "empty")), index=number)
    def queue_volumes(self, what: str, index: int) -> None:
        queue = self.panel.queue
        if self.open and self.panel.state.run is None:
            queue.add_menu.aboutToShow.emit()
            actions = [action for action in leaves(queue.add_menu) if action.text and action.enabled]
            if what == "empty":
                queue.empty_button.click()
            elif actions:
                actions[0 if what == "all" else index % len(actions)].trigger()

    @action(index=number)
    def tick_volume(self, index: int) -> None:
        if self.open and self.panel.state.run is None:
            toggle(self.panel.queue.table, index)

    @action(text=st.sampled_from(("", "toy", "cell 1000", "qqqq", "pancreas mr")))
    def search_models(self, text: str) -> None:
        if self.open:
            self.panel.ui.modelSearchBox.setText(text)

    @action(
        choice=st.sampled_from(
            [("model", "gone"), ("model", ""), ("model", "toy-120"), ("classes", "cell 5\ncell 6"), ("classes", "x\ny")]
            + [("locateWith", "gone"), ("locateWith", "toy-120"), ("locateWith", "")]
            + [("moreModels", "toy-120"), ("moreModels", "gone\ntoy-1000"), ("moreModels", "")]
            + [
                ("step", 0.75),
                ("threads", 3),
                ("device", "cuda:7"),
                ("device", "server:https://gone:8471"),
                ("segmentation", None),
                ("inputVolume", None),
            ]
        )
    )
    def set_by_a_script(self, choice: tuple[str, Any]) -> None:
        setattr(self.panel.logic.getParameterNode(), *choice)

    @action(
        option=st.one_of(
            st.tuples(st.just("step"), st.sampled_from((0.1, 0.55, 1.0))),
            st.tuples(st.just("threads"), st.sampled_from((0, 1, 1024))),
            st.tuples(st.just("folds"), st.sampled_from(FOLDS)),
            st.tuples(st.just("memoryLimit"), st.sampled_from((0.0, 0.1, 1024.0))),
            st.tuples(st.just("smooth"), st.sampled_from((0.0, 1.5))),
            st.tuples(st.just("removeIslands"), st.sampled_from((0.0, 500.0))),
            st.tuples(st.sampled_from(("allFrames", "standardNames", "keepEmpty", "mirroring")), st.booleans()),
        )
    )
    def set_option(self, option: tuple[str, Any]) -> None:
        name, value = option
        widget = self.widgets()[name]
        if self.open:
            key = "checked" if isinstance(value, bool) else "text" if name == "folds" else "value"
            setattr(widget, key, value)

    @action(index=number)
    def choose_device(self, index: int) -> None:
        box = self.panel.ui.deviceComboBox
        if self.open:
            box.setCurrentIndex(index % box.count)

    @action(answers=st.integers(1, 2))
    def hear_of_server(self, answers: int) -> None:
        for _answer in range(answers):
            self.panel.servers.poll()

    @action()
    def ask_server_again(self) -> None:
        if self.open and not self.panel.ui.retryButton.isHidden():
            self.panel.ui.retryButton.click()

    @action(index=number)
    def choose_locating(self, index: int) -> None:
        box = self.panel.ui.locateComboBox
        if self.open:
            box.setCurrentIndex(index % box.count)

    @action(section=st.sampled_from(("classes", "advanced", "result")))
    def open_or_close_section(self, section: str) -> None:
        button = getattr(self.panel.ui, f"{section}CollapsibleButton")
        button.collapsed = not button.collapsed

    # --- actions: classes

    @action(index=number)
    def tick_class(self, index: int) -> None:
        if self.open:
            toggle(self.panel.class_list.table, index)

    @action(which=st.sampled_from(("all_button", "none_button")))
    def tick_all_or_none(self, which: str) -> None:
        if self.open:
            getattr(self.panel.class_list, which).click()

    @action(text=st.sampled_from(SEARCHES))
    def search(self, text: str) -> None:
        self.panel.class_list.table.search.text = text
        self.panel.results.table.search.text = text

    @action(menu=st.sampled_from(("group_menu", "preset_menu")), index=number, file=st.sampled_from(("", "a")), yes=yes)
    def use_menu(self, menu: str, index: int, file: str, yes: bool) -> None:
        self.yes, self.file, opened = yes, file, getattr(self.panel.class_list, menu)
        if self.open:
            opened.aboutToShow.emit()
            actions = [a for a in leaves(opened) if a.text]
            if actions:
                actions[index % len(actions)].trigger()

    # --- actions: runs

    @action(how=st.sampled_from((*HOWS[:-1], *HOWS[:5], "finish", "finish", "unstartable")), yes=yes)
    def apply(self, how: str, yes: bool) -> None:
        self.children.how, self.yes = how, yes
        if self.open:
            self.panel.ui.applyButton.click()

    @action(how=st.sampled_from(ORDINARY), yes=yes)
    def segment(self, how: str, yes: bool) -> None:
        self.apply(how, yes)
        self.let_finish()

    @action()
    def let_go_on(self) -> None:
        time.sleep(0.03)
        self.panel.runs.poll()

    @action()
    def let_finish(self) -> None:
        hanging = self.children.latest in ("hang", "deaf")
        end = time.monotonic() + (0.1 if hanging else 10)
        while self.panel.state.run is not None and time.monotonic() < end:
            time.sleep(0.005)
            self.panel.runs.poll()
        self.demand(hanging or self.panel.state.run is None, "a run does not end")

    @action()
    def cancel(self) -> None:
        self.panel.ui.cancelButton.click()

    @action(index=number, how=st.sampled_from(("finish", "error", "hang")))
    def start_a_script(self, index: int, how: str) -> None:
        self.children.how = how
        if self.script is None and (volume := self.pick(index, "vtkMRMLScalarVolumeNode")):
            try:
                self.script = self.panel.logic.start(self.panel.logic.request(volume, "toy-120"))
            except ClassScaleError:
                self.script = None

    @action(cancel=st.booleans())
    def end_the_script(self, cancel: bool) -> None:
        if self.script is not None:
            end = time.monotonic() + 0.2
            while not cancel and self.script.state == "running" and time.monotonic() < end:
                time.sleep(0.005)
                self.script.poll()
            self.script.cancel()
            self.script = None

    # --- actions: models

    @action(file=st.sampled_from(("two channels", "copy.zip", "evil.zip", "ct.nrrd")))
    def drop(self, file: str) -> None:
        path = self._two if file == "two channels" else self.folder / file
        if file == "copy.zip":
            shutil.copy(ROOT / "Resources" / "Models" / "toy-120.zip", path)
        elif file == "evil.zip":
            path.write_bytes(b"PK\x05\x06" + bytes(18))
        mime = qt.QMimeData()
        mime.setUrls([qt.QUrl.fromLocalFile(str(path))])
        event = qt.QDropEvent(qt.QPoint(5, 5), qt.Qt.CopyAction, mime, qt.Qt.LeftButton, qt.Qt.NoModifier)
        if self.open:
            self.panel.model_drop.eventFilter(self.panel.widget, event)

    @action(yes=yes)
    def remove_model(self, yes: bool) -> None:
        self.yes = yes
        if self.open:
            self.panel.models.remove()

    @action()
    def delete_a_dropped_model(self) -> None:
        (self.folder / "copy.zip").unlink(missing_ok=True)

    @action(yes=yes, file=st.sampled_from(("", "a", "arrives")))
    def download(self, yes: bool, file: str) -> None:
        self.yes, self.file = yes, file
        if self.open and not self.panel.ui.downloadButton.isHidden():
            self.panel.ui.downloadButton.click()

    @action()
    def read_catalogue_again(self) -> None:
        self.panel.models.reload()

    @action(opened=st.booleans())
    def read_card(self, opened: bool) -> None:
        (self.panel.models.show_card if opened else self.panel.models.close)()
