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
from dataclasses import replace
from pathlib import Path
from typing import Any

from ClassScaleSegLib.catalog import catalog
from ClassScaleSegLib.errors import Cancelled, CatalogError
from ClassScaleSegLib.inference import devices
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.process import child
from ClassScaleSegLib.remote.chosen_server import ChosenServer
from ClassScaleSegLib.remote.health import Health
from ClassScaleSegLib.remote.offers import RemoteModel
from ClassScaleSegLib.remote.servers import KnownServer, Servers
from panel_checks import Faults, PanelFault, fault_text
from panel_choice_actions import ChoiceActions
from panel_model_actions import ModelActions
from panel_result_actions import ResultActions
from panel_run_actions import RunActions
from panel_scene import add_layers, add_view, model_of_channels
from panel_scene_actions import SceneActions
from slicer_application import ROOT, application, module, qt, slicer
from user_data import data_environment

from ClassScaleSegPanel.results import result_panel  # isort: skip  needs the stand-ins
from ClassScaleSegPanel.widgets import saving  # isort: skip
from ClassScaleSegPanel.servers import dialog, watch  # isort: skip
from ClassScaleSegPanel.state import ServerView  # isort: skip

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


class PanelUser(SceneActions, ChoiceActions, ModelActions, RunActions, ResultActions):
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
        self.view, self.layers = add_view(), add_layers()
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
            for node in (self.view, self.layers):
                self.scene.RemoveNode(node)
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
