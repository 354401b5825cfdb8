"""Segment several volumes one after the other: one that fails does not stop the rest.

queue = SceneQueue([QueueItem("1", "CT 1", lambda: one), QueueItem("2", "CT 2", lambda: two)])
queue.start()
queue.wait()              # or, in an application, call queue.poll() from a timer
[item.state for item in queue.items]
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..errors import Cancelled, ClassScaleError
from ..process.job import Event
from .request import Request
from .run import SceneRun


@dataclass
class QueueItem:
    """One of the volumes.

    :ivar key: identifies it in a list.
    :ivar name: for people.
    :ivar request: makes the request when it is this one's turn, as volumes may have to be loaded first.
    :ivar state: "waiting", "running", "finished", "failed" or "cancelled".
    :ivar error: why it failed, in a sentence.
    :ivar run: its run, once it has begun.
    :ivar discard: removes what ``request`` has made, if the run does not finish.
    """

    key: str
    name: str
    request: Callable[[], Request]
    state: str = "waiting"
    error: str = ""
    run: SceneRun | None = None
    discard: Callable[[], object] = lambda: None

    def end(self, state: str, error: str = "") -> None:
        """Note how it has ended."""
        self.state, self.error = state, error
        if state != "finished":
            self.discard()

    @property
    def found(self) -> int:
        """The number of structures that were found."""
        return sum(row.voxels > 0 for row in self.run.statistics[0]) if self.run and self.run.statistics else 0


class SceneQueue:
    """The runs of several requests, of which one is under way.

    :ivar items: the volumes, in their order.
    :ivar state: "new", "running", "finished" (though some may have failed) or "cancelled".
    :param running: the runs that are under way, as of :class:`~.run.SceneRun`.
    """

    def __init__(self, items: Sequence[QueueItem], running: list[SceneRun] | None = None) -> None:
        self.items, self.state = tuple(items), "new"
        self._running = [] if running is None else running
        self._logs: list[str] = []

    @property
    def latest(self) -> QueueItem | None:
        """The last of the items that have finished."""
        return next((item for item in reversed(self.items) if item.state == "finished"), None)

    @property
    def failed(self) -> tuple[QueueItem, ...]:
        """The items that have failed."""
        return tuple(item for item in self.items if item.state == "failed")

    @property
    def page(self) -> Path | None:
        """The page of the report, if it was written."""
        return next((page for item in reversed(self.items) if item.run and (page := item.run.page)), None)

    @property
    def notice(self) -> str:
        """The first thing that the user should know about a run that finished; empty if there is none."""
        return next((item.run.notice for item in self.items if item.run and item.run.notice), "")

    @property
    def log(self) -> str:
        """What the child processes have printed so far, for people to read or copy."""
        current = self._current
        return "\n".join((*self._logs, *([current.run.log] if current is not None and current.run is not None else [])))

    def start(self) -> None:
        """Start with the first volume.

        :raises ClassScaleError: if another run is under way, or there is no volume.
        """
        if self._running:
            raise ClassScaleError("A segmentation is already running. Wait until it ends, or cancel it.")
        if not self.items:
            raise ClassScaleError("There is no volume to segment. Choose at least one.")
        self.state = "running"
        self._start_next()

    def poll(self) -> list[Event]:
        """Return the events since the last call; an event "begin" says which volume of how many has its turn."""
        item = self._current
        if item is None or item.run is None:
            return []
        events = [self._placed(event, item) for event in item.run.poll()]
        self._follow(item)
        return events

    def wait(self, on_event: Callable[[Event], None] | None = None) -> None:
        """Block until all volumes have had their turn.

        :param on_event: called with each event. If it raises, or Ctrl-C is pressed, the queue is cancelled.
        :raises Cancelled: if the queue was cancelled.
        """
        try:
            while (item := self._current) is not None and item.run is not None:
                try:
                    item.run.wait(partial(self._pass_on, item, on_event))
                except (ClassScaleError, Cancelled):
                    if item.run.state not in ("failed", "cancelled"):
                        raise
                self._follow(item)
        except BaseException:
            self.cancel()
            raise
        if self.state == "cancelled":
            raise Cancelled("The segmentation was cancelled. Volumes that were finished before keep their results.")

    def cancel(self) -> None:
        """Stop the run that is under way, and begin no other. Results that are there stay."""
        if self.state in ("new", "running"):
            self.state = "cancelled"
        for item in self.items:
            if item.run is not None:
                item.run.cancel()
            if item.state in ("waiting", "running"):
                item.end("cancelled")

    @property
    def _current(self) -> QueueItem | None:
        return next((item for item in self.items if item.state == "running"), None)

    def _placed(self, event: Event, item: QueueItem) -> Event:
        """Return an event with the place of its volume among all."""
        if event.kind != "begin":
            return event
        place = {"index": self.items.index(item) + 1, "count": len(self.items), "of": "volumes"}
        return replace(event, facts={**event.facts, **place})

    def _pass_on(self, item: QueueItem, on_event: Callable[[Event], None] | None, event: Event) -> None:
        if on_event is not None:
            on_event(self._placed(event, item))

    def _follow(self, item: QueueItem) -> None:
        """Note how the run of an item has ended, if it has, and start the next one."""
        assert item.run is not None
        if item.run.state == "running" or self.state != "running":
            return
        item.end(item.run.state, item.run.error or "")
        self._logs.append(item.run.log)
        self._start_next()

    def _start_next(self) -> None:
        for item in self.items:
            if item.state != "waiting":
                continue
            try:
                request = item.request()
                if item.state != "waiting":  # loading lets the application go on, and Cancel was pressed meanwhile
                    item.discard()
                    return
                item.run = SceneRun(request, self._running)
                item.run.start()
                item.state = "running"
                return
            except ClassScaleError as error:
                sentence = str(error)
            except Exception as error:  # a bug here or in what loads volumes; the others must go on
                logging.exception("A volume of the queue could not be segmented")
                fault = f"{type(error).__name__}: {error}"
                sentence = f"{item.name} could not be segmented ({fault}). See Slicer's error log."
            if item.state != "waiting":
                item.discard()
                return
            item.end("failed", sentence)
            self._logs.append(f"{item.name}: {item.error}")
        self.state = "finished"
