"""Events of a run as what the user reads: a percentage that never falls, the stage, the time that is left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Event

# Share of a case's time at which each stage begins and ends. Where an image is one window, decoding is what one sees.
_SPANS = {
    "start": (0, 4),
    "read": (4, 6),
    "preprocess": (6, 12),
    "segment": (12, 92),
    "decode": (60, 96),
    "write": (96, 100),
}
_PART = re.compile(r"part (\d+) of (\d+): (.+)")


class RunProgress:
    """:ivar percent: 0..100. :ivar text: the stage, and the time that is left if it is known."""

    def __init__(self) -> None:
        self.percent, self.text = 0, _("Starting")
        self._index, self._count = 1, 1

    def update(self, event: Event) -> None:
        if event.kind == "begin":
            self._index = int(event.facts.get("index", 1))
            self._count = max(1, int(event.facts.get("count", 1)))
        elif event.kind in ("progress", "message") and event.stage:
            self._advance(event)

    def _advance(self, event: Event) -> None:
        share = event.done / event.total if event.total else 0
        part = _PART.fullmatch(event.stage)
        begin, end = (4, 96) if part else _SPANS.get(event.stage, (0, 0))
        percent = (100 * (self._index - 1) + begin + share * (end - begin)) / self._count
        self.percent = max(self.percent, min(100, int(percent)))
        self.text = stage_text(part.group(3) if part else event.stage)
        if part:
            self.text += " " + _("(part {part} of {parts})").format(part=part.group(1), parts=part.group(2))
        if self._count > 1:
            self.text += " " + _("(frame {frame} of {frames})").format(frame=self._index, frames=self._count)
        if event.remaining is not None and event.remaining >= 1:
            self.text += ", " + remaining_text(event.remaining)


def stage_text(stage: str) -> str:
    """A stage of the engine in the user's language."""
    return {
        "start": _("Starting"),
        "load": _("Loading the model"),
        "read": _("Reading the image"),
        "preprocess": _("Preparing the image"),
        "segment": _("Segmenting"),
        "decode": _("Finding the classes"),
        "write": _("Writing the result"),
    }.get(stage, stage)


def remaining_text(seconds: float) -> str:
    if seconds < 90:
        return _("about {seconds} s left").format(seconds=round(seconds))
    return _("about {minutes} min left").format(minutes=round(seconds / 60))
