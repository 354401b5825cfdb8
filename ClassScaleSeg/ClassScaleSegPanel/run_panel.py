"""Apply, Cancel, progress and log. A timer polls the run, so that the application stays responsive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from .inputs import request_of
from .install import ensure_dependencies

if TYPE_CHECKING:
    from ClassScaleSegLib.process.child import Event
    from ClassScaleSegLib.scene.run import SceneRun

    from ClassScaleSeg import ClassScaleSegLogic, ClassScaleSegParameterNode

POLL_MILLISECONDS = 100
# Percentage of a case's time at which each stage begins and ends. For an image of a single window, the progress that
# users see is mostly that of decoding, so it may start early.
_SPANS = {
    "start": (0, 4),
    "read": (4, 6),
    "preprocess": (6, 12),
    "segment": (12, 92),
    "decode": (60, 96),
    "write": (96, 100),
}
_SPAN_OF_PARTS = (4, 96)  # with several models, whose reports are those of the whole job


class RunPanel:
    """Controls the widgets of a run in the .ui file: Apply, Cancel, progress, status and log.

    :ivar run: the run that is under way, or ``None``.
    :ivar timer: polls the run.
    :param ui: the widgets of the panel, by name.
    :param on_changed: called without arguments when a run begins or ends.
    :param on_finished: called with the run once its result is in the scene.
    :param on_refused: called without arguments when a run could not begin.
    """

    def __init__(
        self,
        ui: Any,
        logic: ClassScaleSegLogic,
        on_changed: Callable[[], None],
        on_finished: Callable[[SceneRun], None],
        on_refused: Callable[[], None],
    ) -> None:
        self._ui, self._logic, self._progress = ui, logic, RunProgress()
        self.run: SceneRun | None = None
        self._on_changed, self._on_finished, self._on_refused = on_changed, on_finished, on_refused
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.poll)
        ui.progressBar.visible = False
        ui.copyLogButton.connect("clicked(bool)", self.copy_log)

    def apply(self, parameters: ClassScaleSegParameterNode) -> None:
        """Start the run that the parameter node describes. Errors are shown in a message box."""
        from ClassScaleSegLib.errors import ClassScaleError

        node = parameters.segmentation
        count = node.GetSegmentation().GetNumberOfSegments() if node else 0
        if count:
            question = _("{name} has {count} segments. Replace them?").format(name=node.GetName(), count=count)
            if not slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Replace segments")):
                return
        self._ui.logTextEdit.plainText = ""
        try:
            ensure_dependencies()
            self.run = self._logic.start(request_of(parameters, replace=bool(count)))
        except ClassScaleError as error:
            self._show_fault(str(error))
            self._on_refused()
            return
        self._progress = RunProgress()
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = True
        self.show_status(self._progress.text)
        self.timer.start()
        self._on_changed()

    def poll(self) -> None:
        """Show the progress of the run, and at its end the result or the error."""
        run = self.run
        if run is None:
            self.timer.stop()
            return
        for event in run.poll():
            self._progress.update(event)
        self._ui.progressBar.value = self._progress.percent
        self._show_log(run)
        if run.state == "running":
            self.show_status(self._progress.text)
            return
        self._end()
        if run.state == "finished":
            found = sum(row.voxels > 0 for row in run.statistics[0])
            done = _("Done: {count} structures found.").format(count=found)
            self.show_status(f"{done} {run.notice}".strip())
            self._on_finished(run)
        elif run.state == "failed":
            self._show_fault(run.error or "")

    def stop(self, reason: str = "") -> None:
        """Cancel the run that is under way, if any.

        :param reason: shown as the status.
        """
        if self.run is not None:
            self.run.cancel()
            self._show_log(self.run)
            self._end()
            self.show_status(reason)

    def show_status(self, text: str) -> None:
        """Show a line of text below Apply."""
        self._ui.statusLabel.text = text

    def copy_log(self) -> None:
        """Copy the log to the clipboard."""
        qt.QApplication.clipboard().setText(self._ui.logTextEdit.plainText)

    def _end(self) -> None:
        self.timer.stop()
        self.run = None
        self._ui.progressBar.visible = False
        self._on_changed()

    def _show_fault(self, sentence: str) -> None:
        self.show_status(sentence)
        slicer.util.errorDisplay(sentence, windowTitle=_("ClassScaleSeg"))

    def _show_log(self, run: SceneRun) -> None:
        if self._ui.logTextEdit.plainText != run.log:
            self._ui.logTextEdit.plainText = run.log
            bar = self._ui.logTextEdit.verticalScrollBar()
            bar.value = bar.maximum


class RunProgress:
    """Turns the events of a run into a percentage that never decreases, and a line of text.

    :ivar percent: 0..100.
    :ivar text: the stage, and the remaining time if it is known.
    """

    def __init__(self) -> None:
        self.percent, self.text = 0, _("Starting")
        self._index, self._count = 1, 1

    def update(self, event: Event) -> None:
        """Take the next event of the run into account."""
        if event.kind == "begin":
            self._index = int(event.facts.get("index", 1))
            self._count = max(1, int(event.facts.get("count", 1)))
        elif event.kind in ("progress", "message") and event.stage:
            self._advance(event)

    def _advance(self, event: Event) -> None:
        share = event.done / event.total if event.total else 0
        begin, end = _SPANS.get(event.stage, (0, 0)) if event.parts == 1 else _SPAN_OF_PARTS
        percent = (100 * (self._index - 1) + begin + share * (end - begin)) / self._count
        self.percent = max(self.percent, min(100, int(percent)))
        self.text = stage_text(event.stage)
        if event.parts > 1:
            self.text += " " + _("(part {part} of {parts})").format(part=event.part, parts=event.parts)
        if self._count > 1:
            self.text += " " + _("(frame {frame} of {frames})").format(frame=self._index, frames=self._count)
        if event.remaining is not None and event.remaining >= 1:
            self.text += ", " + remaining_text(event.remaining)


def stage_text(stage: str) -> str:
    """Return the name of a stage of the engine in the user's language."""
    return {
        "start": _("Starting"),
        "load": _("Loading the model"),
        "read": _("Reading the image"),
        "preprocess": _("Preparing the image"),
        "segment": _("Segmenting"),
        "decode": _("Assigning the classes"),
        "write": _("Writing the result"),
    }.get(stage, stage)


def remaining_text(seconds: float) -> str:
    """Return the remaining time as text, in seconds or minutes."""
    if seconds < 90:
        return _("about {seconds} s left").format(seconds=round(seconds))
    return _("about {minutes} min left").format(minutes=round(seconds / 60))
