"""What dialogs with a child process share: it is polled, a bar and a line say how far it is, and a button stops it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from .forms import dialog_button
from .texts import Wrapping
from .whole_texts import WholeTexts

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Event

POLL_MILLISECONDS = 200


class ProcessDialog:
    """Not modal. What is under way may go on while the dialog is closed.

    A subclass makes the window between :meth:`_make_window` and :meth:`_show_window`, passes each process that it has
    started to :meth:`_begun`, and overrides :meth:`_follow`, :meth:`_conclude`, and :meth:`_words`.

    :ivar dialog: the window, or ``None`` while it is closed.
    :ivar process: that is under way, or ``None``.
    """

    def __init__(self) -> None:
        self.dialog: qt.QDialog | None = None
        self.process: Any = None
        self._notices: list[str] = []  # what the process has told
        self._percent, self._status = 0, ""
        self._whole_texts = WholeTexts()
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.poll)

    def _make_window(self, title: str, intro: str, cancel: str) -> qt.QVBoxLayout:
        """Make the window, the bar, the line and the button that stops, and return the layout; it begins with a text.

        :param intro: the text.
        :param cancel: the text of the button.
        """
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = title
        layout, text = qt.QVBoxLayout(self.dialog), qt.QLabel(intro)
        self.cancel_button = dialog_button(cancel, self.cancel)
        self.bar, self.status = qt.QProgressBar(), qt.QLabel()
        self.bar.accessibleName = _("Progress")
        self._wrapping = [Wrapping(label) for label in (text, self.status)]
        text.textFormat = self.status.textFormat = qt.Qt.PlainText
        self.status.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        layout.addWidget(text)
        return layout

    def _show_window(
        self, layout: qt.QVBoxLayout, buttons: Sequence[qt.QPushButton], size: tuple[int, int], *below: qt.QWidget
    ) -> None:
        """Add a row of buttons, which ends with Close, the bar and the line, and show the window.

        :param size: width and height, pixels.
        :param below: what comes at the end.
        """
        assert self.dialog is not None
        row = qt.QHBoxLayout()
        for button in buttons:
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(dialog_button(_("Close"), self.close))
        layout.addLayout(row)
        for widget in (self.bar, self.status, *below):
            layout.addWidget(widget)
        self._whole_texts.watch(self.dialog)
        self.render()
        self.dialog.connect("finished(int)", lambda result: self._closed())
        self.dialog.resize(*size)
        self.dialog.show()

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
                self._notices.append(self._words(event.text))
            self._follow(event)
        if process.state == "running":
            self.render()
        else:
            self._conclude("" if process.state == "finished" else self._words(process.error or ""))

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        if self.dialog is not None:
            self.bar.visible = self.process is not None
            self.bar.maximum = 100 if self._percent else 0  # 0: busy
            self.bar.value = self._percent
            self.status.text = self._status

    def _enable_buttons(self, *ready: tuple[qt.QPushButton, bool]) -> None:
        """Enable the button that stops, or those that begin something; the focus stays with one that can be pressed.

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

    def _begun(self, process: Any) -> None:
        """Follow a process from now on, which was started."""
        self.process, self._notices, self._percent = process, [], 0
        self.timer.start()

    def _words(self, text: str) -> str:
        """Return sentences of the command in the words of the dialog."""
        raise NotImplementedError

    def _follow(self, event: Event) -> None:
        """Take an event of the process into account."""
        raise NotImplementedError

    def _conclude(self, fault: str) -> None:
        """Take over what came of a process that has ended.

        :param fault: why it has not done all; empty if it has ended by itself.
        """
        raise NotImplementedError

    def _say(self, text: str) -> None:
        self._status = text
        self.render()

    def _stop(self) -> None:
        self.timer.stop()
        if self.process is not None:
            self.process.close()
        self.process, self._percent = None, 0

    def _closed(self) -> None:
        """Forget a window that is closed, also by Escape or by its frame."""
        if self.dialog is not None:
            self.dialog.deleteLater()
            self.dialog = None
