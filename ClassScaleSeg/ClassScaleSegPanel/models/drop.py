"""A model file or folder is dropped onto the panel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt


class ModelDrop(qt.QObject):
    """Event filter that adds a model folder or zip file dropped onto the panel.

    :param add: called with its path.
    """

    def __init__(self, add: Callable[[str], None]) -> None:
        qt.QObject.__init__(self)
        self._add = add

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Accept a dropped model, and return whether the event was handled."""
        kind = event.type()
        path = dropped_model(event.mimeData()) if kind in (qt.QEvent.DragEnter, qt.QEvent.Drop) else None
        if path is None:
            return False  # Slicer loads volumes and scenes itself
        event.acceptProposedAction()
        if kind == qt.QEvent.Drop:
            self._add(path)
        return True


def dropped_model(mime: qt.QMimeData) -> str | None:
    """Return the path of the dropped model, or ``None`` unless exactly one zip file or folder is dropped."""
    paths = [url.toLocalFile() for url in mime.urls()] if mime.hasUrls() else []
    fits = len(paths) == 1 and (paths[0].lower().endswith(".zip") or Path(paths[0]).is_dir())
    return paths[0] if fits else None
