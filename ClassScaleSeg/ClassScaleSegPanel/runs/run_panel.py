"""Apply, Cancel and log. A timer polls the run, so that the application stays responsive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
from ClassScaleSegLib.scene.run import SceneRun
from slicer.i18n import tr as _

from ..install.missing import wanted_by
from ..install.packages import ensure_dependencies
from ..servers.consent import agreed
from ..servers.texts import panel_words
from ..state import PanelState
from ..translation import translated
from ..widgets.texts import ask, tell_error
from .last_choice import remember
from .progress import RunProgress
from .request import queue_item, request_of

if TYPE_CHECKING:
    from ClassScaleSegLib.remote.chosen_server import ChosenServer
    from ClassScaleSegLib.scene.queue import SceneQueue

    from ClassScaleSeg import ClassScaleSegLogic

    from ..parameters import ClassScaleSegParameterNode

POLL_MILLISECONDS = 100


class RunPanel:
    """Controls the widgets of a run in the .ui file: progress, status and log.

    :ivar timer: polls the run.
    :param on_changed: called without arguments when a run begins or ends.
    :param on_progress: called without arguments when a run may have advanced.
    :param on_finished: called with the run once its result is in the scene, or with the queue once it has ended.
    :param on_refused: called without arguments when a run could not begin.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        logic: ClassScaleSegLogic,
        on_changed: Callable[[], None],
        on_progress: Callable[[], None],
        on_finished: Callable[[SceneRun | SceneQueue], None],
        on_refused: Callable[[], None],
    ) -> None:
        self._ui, self._state, self._logic, self._progress = ui, state, logic, RunProgress()
        self._on_progress = on_progress
        self._on_changed, self._on_finished, self._on_refused = on_changed, on_finished, on_refused
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.poll)
        ui.copyLogButton.connect("clicked(bool)", lambda: qt.QApplication.clipboard().setText(ui.logTextEdit.plainText))

    def apply(self) -> None:
        """Start the run that the parameter node describes. Errors are shown in a message box."""
        from ClassScaleSegLib.scene.results import has_contents

        state, parameters = self._state, self._state.parameters
        # while questions are open, timers and scripts may change the device, or lose the server
        view, device = state.server, parameters.device if parameters is not None else ""
        if parameters is None or not agreed(view) or parameters.device != device:
            return
        server = view.chosen if view is not None else None
        if state.queued:
            self._start(lambda: self._queue(parameters, server))
            return
        outputs = (parameters.segmentation, parameters.confidence, parameters.statistics)
        names = [node.GetName() for node in outputs if has_contents(node)]
        question = _("The run will replace the contents of {names}. Continue?").format(names=", ".join(names))
        if names and not ask(question, _("Replace results")) or parameters.device != device:
            return
        self._start(lambda: self._run(parameters, has_contents(parameters.segmentation), server))

    def _run(self, parameters: ClassScaleSegParameterNode, replace: bool, server: ChosenServer | None) -> SceneRun:
        request = request_of(parameters, replace, server)
        ensure_dependencies(wanted_by(request.models, request.options))
        return self._logic.start(request)

    def _queue(self, parameters: ClassScaleSegParameterNode, server: ChosenServer | None) -> SceneQueue:
        request = request_of(parameters, False, server)
        items = [queue_item(parameters, key, name, server) for key, name in self._state.queued]
        ensure_dependencies(wanted_by(request.models, request.options))  # which may ask, and take minutes
        return self._logic.startQueue(items)

    def _start(self, start: Callable[[], SceneRun | SceneQueue]) -> None:
        from ClassScaleSegLib.errors import ClassScaleError

        state = self._state
        state.log, state.page = "", None
        try:
            state.run = start()
        except ClassScaleError as error:
            self._show_fault(str(error))
            self._on_refused()
            return
        if state.parameters is not None:
            remember(state.parameters)
        self._progress = RunProgress()
        state.status = self._progress.text
        self.timer.start()
        self._on_progress()
        self._on_changed()

    def poll(self) -> None:
        """Show the progress of the run, and at its end the result or the error."""
        state, run = self._state, self._state.run
        if run is None:
            return
        for event in run.poll():
            self._progress.update(event)
        self._on_progress()
        if run.state == "running":
            state.status, state.log = self._progress.text, run.log
            self.render()
            return
        if run.state == "finished":
            state.status = _done(run)
        self._end(run)
        if isinstance(run, SceneRun) and run.state == "failed":
            self._show_fault(run.error or "")
        elif run.state == "finished":
            self._on_finished(run)

    def stop(self, reason: str = "") -> None:
        """Cancel the run that is under way, if any.

        :param reason: shown as the status.
        """
        run = self._state.run
        if run is not None:
            run.cancel()
            self._state.status = reason
            self._end(run)

    def cancel(self) -> None:
        """Cancel the run that is under way, because the user wants it."""
        if isinstance(self._state.run, SceneRun):
            self.stop(_("Cancelled. The scene was not changed."))
        else:
            self.stop(_("Cancelled. Volumes that were finished before keep their results."))

    def render(self) -> None:
        """Show the progress, the status and the log."""
        ui, state = self._ui, self._state
        ui.progressBar.visible = state.run is not None
        ui.progressBar.value = self._progress.percent
        ui.statusLabel.text = translated(state.status)
        ui.reportButton.visible = state.page is not None
        if ui.logTextEdit.plainText != state.log:
            ui.logTextEdit.plainText = state.log
            bar = ui.logTextEdit.verticalScrollBar()
            bar.value = bar.maximum

    def _end(self, run: SceneRun | SceneQueue) -> None:
        self.timer.stop()
        self._on_progress()
        self._state.run, self._state.log, self._state.page = None, run.log, run.page
        self._on_changed()

    def _show_fault(self, sentence: str) -> None:
        sentence = panel_words(sentence)
        self._state.status = sentence
        self.render()
        tell_error(sentence, _("ClassScaleSeg"))


def _done(run: SceneRun | SceneQueue) -> str:
    """Return the status after a run that has finished."""
    written = _("The report is written.") if run.page is not None else ""
    if isinstance(run, SceneRun):
        found = sum(row.voxels > 0 for row in run.statistics[0])
        return " ".join(filter(None, (_("Done: {count} structures found.").format(count=found), run.notice, written)))
    failed = run.failed
    text = _("Done: {count} of {all} volumes segmented.").format(count=len(run.items) - len(failed), all=len(run.items))
    if failed:
        name, reason = failed[0].name, failed[0].error
        named = reason if reason.startswith(name) else _("{volume}: {reason}").format(volume=name, reason=reason)
        text = f"{text} {named}"
    if len(failed) > 1:
        text += " " + _("The reasons of {count} others are in the list of volumes.").format(count=len(failed) - 1)
    return " ".join(filter(None, (text, run.notice, written)))
