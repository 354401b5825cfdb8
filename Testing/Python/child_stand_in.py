"""A stand-in for the child processes of the panel's dialogs: the test says what happens to it."""

from __future__ import annotations

from typing import Any, ClassVar

from ClassScaleSegLib.process.job import Event


class StandInChild:
    """Has what a dialog uses of a child process; the test sets state, events, log, error and result.

    :cvar made: all that were made, in this order.
    """

    made: ClassVar[list[Any]] = []

    def __init__(self, arguments) -> None:
        self.arguments, self.state, self.log, self.error, self.result = list(arguments), "new", "", None, {}
        self.events: list[Event] = []
        self.made.append(self)

    def start(self) -> None:
        self.state = "running"

    def poll(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def cancel(self) -> None:
        if self.state == "running":
            self.state = "cancelled"

    def close(self) -> None:
        self.cancel()
