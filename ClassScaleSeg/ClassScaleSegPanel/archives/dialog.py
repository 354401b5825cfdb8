"""What the dialogs with archives share: which archive, who asks it, and the child process that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import qt
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.failures import asking_archives
from ..install.packages import ensure_all
from ..widgets.process_dialog import ProcessDialog
from .access import AccessFields
from .words import panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.process import ArchiveProcess

_PACKAGES = ("psutil", "tqdm")  # that Slicer may lack


class ArchiveDialog(ProcessDialog):
    """A subclass makes the window between :meth:`_begin` and :meth:`_finish`.

    :cvar packages: requirements beyond those of every question.
    """

    packages: tuple[str, ...] = ()

    def _begin(self, title: str, intro: str, form: qt.QFormLayout) -> qt.QVBoxLayout:
        """Make the window and the rows of the archive, and return its layout, which begins with a text.

        :param form: gets the rows of the archive.
        """
        layout = self._make_window(title, intro, _("Cancel"))
        self._make_access(form)
        return layout

    def _make_access(self, form: qt.QFormLayout) -> None:
        self.access = AccessFields(form)

    def _finish(self, layout: qt.QVBoxLayout, button: qt.QPushButton, width: int, height: int) -> None:
        """Add the buttons, the bar and the line to the window, and show it.

        :param button: stands before Cancel.
        """
        self._show_window(layout, (button, self.cancel_button), (width, height))
        self.access.address.setFocus()

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        ProcessDialog.render(self)
        if self.dialog is not None:
            self.access.enable(self.process is None)

    def _start(
        self,
        action: str,
        words: Sequence[str] = (),
        wanted: Mapping[str, str | Sequence[str]] | None = None,
        prepare: Callable[[ArchiveProcess], bool] = lambda process: True,
    ) -> bool:
        """Start a child process, and return whether that was done. If not, a line says why, or the user knows.

        :param prepare: called before the start; returns whether the user wants it.
        """
        from ClassScaleSegLib.process import ArchiveProcess, WatchProcess

        try:
            ensure_all([*_PACKAGES, *self.packages], asking_archives())
            access = self.access.access()
            if access is None:
                return False
            watches = action == "watch"
            process = WatchProcess(access, words) if watches else ArchiveProcess(action, access, words, wanted)
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
        self._begun(process)
        return True

    def _words(self, text: str) -> str:
        return panel_words(text)

    def _remember(self) -> list[str]:
        """Remember an archive that has answered, and return why its secret cannot be kept, if so."""
        kept = self.access.remember() if self.dialog is not None else ""
        return [panel_words(kept)] * bool(kept)
