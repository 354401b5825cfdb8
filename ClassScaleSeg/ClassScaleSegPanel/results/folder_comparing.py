"""The comparison of two folders of segmentations, in a child process that the dialog "Review cases" starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.packages import ensure_comparing
from ..translation import translated
from ..widgets.process_dialog import POLL_MILLISECONDS

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Agreement, FolderComparison

_MOST_FAULTS = 2  # that are told


class FolderComparing:
    """Starts the process, follows it and stops it.

    :param on_told: called with a sentence on how far it is, or what came of it.
    :param on_found: called with how the two segmentations of each case agree, by its name.
    """

    def __init__(self, on_told: Callable[[str], None], on_found: Callable[[Mapping[str, Agreement]], None]) -> None:
        self._on_told, self._on_found = on_told, on_found
        self._process: FolderComparison | None = None
        self._faults: list[str] = []
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.poll)

    @property
    def is_running(self) -> bool:
        """Whether a comparison is under way."""
        return self._process is not None

    def start(self, reference: Path, other: Path) -> None:
        """Compare the segmentations of two folders that have the same names."""
        from ClassScaleSegLib.process import FolderComparison

        try:
            ensure_comparing()
            process = FolderComparison(reference, other)
        except ClassScaleError as error:
            self._on_told(translated(str(error)))
            return
        self._process, self._faults = process, []
        process.start()
        self.timer.start()
        self._on_told(_("Comparing..."))

    def cancel(self) -> None:
        """Stop a comparison that is under way."""
        if self.is_running:
            self.end()
            self._on_told(_("Cancelled."))

    def end(self) -> None:
        """Stop a comparison without a word, because the application closes or the module is reloaded."""
        self.timer.stop()
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def poll(self) -> None:
        """Tell how far the comparison is, and at the end what it has found."""
        process = self._process
        if process is None:
            return
        for event in process.poll():
            if event.kind == "begin":
                number, count = (event.facts.get(key) for key in ("index", "count"))
                text = _("Comparing {number} of {count}: {name}")
                self._on_told(text.format(number=number, count=count, name=event.facts.get("case")))
            elif event.kind == "error":
                self._faults.append(translated(event.text))
        if process.state == "running":
            return
        found, fault = process.agreements, process.error or ""
        self.end()
        if process.state == "finished":
            self._on_found(found)
            text = _("Cases compared: {count}.").format(count=len(found))
            self._on_told(" ".join([text, *self._faults[:_MOST_FAULTS]]))
        else:
            self._on_told(translated(fault))
