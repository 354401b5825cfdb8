"""Apply, Cancel, progress and log. A timer polls the run, so that the application stays responsive."""

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
from .request import queue_item, request_of

if TYPE_CHECKING:
    from ClassScaleSegLib.process.child import Event
    from ClassScaleSegLib.remote.chosen_server import ChosenServer
    from ClassScaleSegLib.scene.queue import SceneQueue

    from ClassScaleSeg import ClassScaleSegLogic

    from ..parameters import ClassScaleSegParameterNode

POLL_MILLISECONDS = 100
# Percentage of a case's time at which each stage begins and ends. For an image of a single window, the progress that
# users see is mostly that of decoding, so it may start early.
_SPANS = {
    "start": (0, 4),
    "send": (4, 12),  # to a server, where a job may wait
    "queue": (12, 12),
    "read": (4, 6),
    "preprocess": (6, 12),
    "segment": (12, 92),
    "decode": (60, 96),
    "clean": (96, 98),
    "fetch": (96, 99),
    "write": (98, 100),
}
_SPAN_OF_PARTS = (4, 96)  # with several models, whose reports are those of the whole job


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


class RunProgress:
    """Turns the events of a run into a percentage that never decreases, and a line of text.

    :ivar percent: 0..100.
    :ivar text: the stage, and the remaining time if it is known.
    """

    def __init__(self) -> None:
        self.percent, self.text = 0, _("Starting")
        self._index, self._count, self._of_volumes = 1, 1, False

    def update(self, event: Event) -> None:
        """Take the next event of the run into account."""
        if event.kind == "begin":
            self._index = int(event.facts.get("index", 1))
            self._count = max(1, int(event.facts.get("count", 1)))
            self._of_volumes = event.facts.get("of") == "volumes"
        if event.kind not in ("progress", "message") or not event.stage:
            return
        share = event.done / event.total if event.total else 0
        begin, end = _SPANS.get(event.stage, (0, 0)) if event.parts == 1 else _SPAN_OF_PARTS
        percent = (100 * (self._index - 1) + begin + share * (end - begin)) / self._count
        self.percent = max(self.percent, min(100, int(percent)))
        self.text = {
            "start": _("Starting"),
            "load": _("Loading the model"),
            "read": _("Reading the image"),
            "preprocess": _("Preparing the image"),
            "segment": _("Segmenting"),
            "decode": _("Assigning the classes"),
            "locate": _("Locating"),
            "clean": _("Cleaning up"),
            "write": _("Writing the result"),
            "send": _("Sending the image"),
            "queue": _waiting(event.total - event.done),
            "fetch": _("Fetching the result"),
        }.get(event.stage, event.stage)
        if event.parts > 1:
            self.text += " " + _("(part {part} of {parts})").format(part=event.part, parts=event.parts)
        if self._count > 1:
            text = _("(volume {index} of {count})") if self._of_volumes else _("(frame {index} of {count})")
            self.text += " " + text.format(index=self._index, count=self._count)
        left = event.remaining
        if left is not None and left >= 90:
            self.text += ", " + _("about {minutes} min left").format(minutes=round(left / 60))
        elif left is not None and left >= 1:
            self.text += ", " + _("about {seconds} s left").format(seconds=round(left))


def _waiting(before: int) -> str:
    """Return the text of a job that waits on a server.

    :param before: jobs before it.
    """
    if before < 1:
        return _("Waiting for the server")
    return (
        _("Waiting: one job is before this one")
        if before == 1
        else _("Waiting: {count} jobs are before this one").format(count=before)
    )
