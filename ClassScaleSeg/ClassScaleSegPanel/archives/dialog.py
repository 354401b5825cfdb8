"""What both dialogs with archives share: a child process that asks, how far it is, Cancel, and a line that tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.failures import asking_archives
from ..install.packages import ensure_all
from ..widgets.forms import dialog_button
from ..widgets.texts import Wrapping
from ..widgets.whole_texts import WholeTexts
from .access import AccessFields
from .words import panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.process import ArchiveProcess, Event

POLL_MILLISECONDS = 200
_PACKAGES = ("psutil", "tqdm")  # that Slicer may lack


class ArchiveDialog:
    """Not modal. What is under way may go on while the dialog is closed.

    A subclass fills the window between :meth:`_begin` and :meth:`_finish`, and overrides :meth:`_follow` and
    :meth:`_conclude`.

    :cvar packages: requirements beyond those of every question.
    :ivar dialog: the window, or ``None`` while it is closed.
    :ivar process: that is under way, or ``None``.
    """

    packages: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.dialog: qt.QDialog | None = None
        self.process: ArchiveProcess | None = None
        self._notices: list[str] = []
        self._percent, self._status = 0, ""
        self._whole_texts = WholeTexts()
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.poll)

    def _begin(self, title: str, intro: str, form: qt.QFormLayout) -> qt.QVBoxLayout:
        """Make the window and the parts that both dialogs have, and return its layout, which begins with a text.

        :param form: gets the rows of the archive.
        """
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = title
        layout, text = qt.QVBoxLayout(self.dialog), qt.QLabel(intro)
        text.wordWrap, text.textFormat = True, qt.Qt.PlainText
        layout.addWidget(text)
        self.access = AccessFields(form)
        self.cancel_button = dialog_button(_("Cancel"), self.cancel)
        self.bar, self.status = qt.QProgressBar(), qt.QLabel()
        self.bar.accessibleName = _("Progress")
        self._wrapping = Wrapping(self.status)
        self.status.textFormat = qt.Qt.PlainText
        self.status.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        return layout

    def _finish(self, layout: qt.QVBoxLayout, button: qt.QPushButton, width: int, height: int) -> None:
        """Add the buttons, the bar and the line to the window, and show it.

        :param button: stands before Cancel.
        """
        assert self.dialog is not None
        buttons = qt.QHBoxLayout()
        for each in (button, self.cancel_button):
            buttons.addWidget(each)
        buttons.addStretch(1)
        buttons.addWidget(dialog_button(_("Close"), self.close))
        layout.addLayout(buttons)
        for widget in (self.bar, self.status):
            layout.addWidget(widget)
        self._whole_texts.watch(self.dialog)
        self.render()
        self.dialog.connect("finished(int)", lambda result: self._closed())
        self.dialog.resize(width, height)
        self.dialog.show()
        self.access.address.setFocus()

    def close(self) -> None:
        """Close the window if it is open."""
        if self.dialog is not None:
            self.dialog.close()
            self._closed()

    def end(self) -> None:
        """Stop what is under way and close the window, because the application closes or the module is reloaded."""
        self._stop()
        self.close()

    def cancel(self) -> None:
        """Stop what is under way."""
        if self.process is not None:
            self.process.cancel()
            self._conclude(_("Cancelled."))

    def poll(self) -> None:
        """Show how far it is, and at the end what came of it."""
        process = self.process
        if process is None:
            return
        for event in process.poll():
            if event.kind == "message":
                self._notices.append(panel_words(event.text))
            self._follow(event)
        if process.state == "running":
            self.render()
        else:
            self._conclude("" if process.state == "finished" else panel_words(process.error or ""))

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        running = self.process is not None
        if self.dialog is not None:
            self.access.enable(not running)
            self.bar.visible = running
            self.bar.maximum = 100 if self._percent else 0  # 0: busy
            self.bar.value = self._percent
            self.status.text = self._status

    def _enable_buttons(self, *ready: tuple[qt.QPushButton, bool]) -> None:
        """Enable Cancel, or the buttons that begin something; the focus stays with one that can be pressed.

        :param ready: the buttons, and whether each could begin if nothing is under way.
        """
        running = self.process is not None
        states = [(self.cancel_button, running), *((button, on and not running) for button, on in ready)]
        first = next((button for button, on in states if on), None)
        if first is not None and any(button.focus and not on for button, on in states):
            first.enabled = True
            first.setFocus()  # Qt would hand it to whatever comes next
        for button, on in states:
            button.enabled = on

    def _start(
        self,
        action: str,
        words: Sequence[str] = (),
        wanted: Mapping[str, str] | None = None,
        prepare: Callable[[ArchiveProcess], bool] = lambda process: True,
    ) -> bool:
        """Start a child process, and return whether that was done. If not, a line says why, or the user knows.

        :param prepare: called before the start; returns whether the user wants it.
        """
        from ClassScaleSegLib.process import ArchiveProcess

        try:
            ensure_all([*_PACKAGES, *self.packages], asking_archives())
            access = self.access.access()
            if access is None:
                return False
            process = ArchiveProcess(action, access, words, wanted)
            try:
                if prepare(process):
                    process.start()
            finally:
                if process.state == "new":
                    process.close()
            if process.state == "cancelled":
                return False
        except ClassScaleError as error:
            self._say(panel_words(str(error)))
            return False
        self.process, self._notices, self._percent = process, [], 0
        self.timer.start()
        return True

    def _follow(self, event: Event) -> None:
        """Take an event of the child process into account."""
        raise NotImplementedError

    def _conclude(self, fault: str) -> None:
        """Take over what came of a process that has ended.

        :param fault: why it has not done all; empty if it has ended by itself.
        """
        raise NotImplementedError

    def _remember(self) -> list[str]:
        """Remember an archive that has answered, and return why its secret cannot be kept, if so."""
        kept = self.access.remember() if self.dialog is not None else ""
        return [panel_words(kept)] * bool(kept)

    def _say(self, text: str) -> None:
        self._status = text
        self.render()

    def _stop(self) -> None:
        self.timer.stop()
        if self.process is not None:
            self.process.close()
        self.process, self._percent = None, 0

    def _closed(self) -> None:
        if self.dialog is not None:
            self.dialog.deleteLater()
            self.dialog = None
