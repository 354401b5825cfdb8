"""Observe nodes of the scene, and keep them alive no longer than they are observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slicer import vtkMRMLNode


class Watching:
    """The observers of some nodes. Slicer's ``VTKObservationMixin`` would keep a removed volume in memory.

    :param callback: called with the node and the name of the event.
    """

    def __init__(self, callback: Callable[[Any, str], None]) -> None:
        self._callback = callback
        self._tags: list[tuple[Any, int]] = []

    def watch(self, nodes: Iterable[vtkMRMLNode | None], *events: int | str) -> None:
        """Observe these events of these nodes, and no longer those of the last call. Each ``None`` is left out."""
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = [
            (node, node.AddObserver(event, self._callback)) for node in nodes if node is not None for event in events
        ]

    def stop(self) -> None:
        """Observe nothing."""
        self.watch(())
