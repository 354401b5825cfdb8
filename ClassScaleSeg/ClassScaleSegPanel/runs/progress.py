"""How far a run is: a percentage, and a line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..widgets.texts import time_left

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Event

# Percentage of a case's time at which each stage begins and ends. For an image of a single window, the progress that
# users see is mostly that of decoding, so it may start early.
_SPANS = {
    "start": (0, 4),
    "send": (4, 12),  # to a server, where a job may wait
    "queue": (12, 12),
    "read": (4, 6),
    "preprocess": (6, 12),
    "segment": (12, 92),
    "decode": (60, 96),
    "clean": (96, 98),
    "fetch": (96, 99),
    "write": (98, 100),
}
_SPAN_OF_PARTS = (4, 96)  # with several models, whose reports are those of the whole job


class RunProgress:
    """Turns the events of a run into a percentage that never decreases, and a line of text.

    :ivar percent: 0..100.
    :ivar text: the stage, and the remaining time if it is known.
    """

    def __init__(self) -> None:
        self.percent, self.text = 0, _("Starting")
        self._index, self._count, self._of_volumes = 1, 1, False

    def update(self, event: Event) -> None:
        """Take the next event of the run into account."""
        if event.kind == "begin":
            self._index = int(event.facts.get("index", 1))
            self._count = max(1, int(event.facts.get("count", 1)))
            self._of_volumes = event.facts.get("of") == "volumes"
        if event.kind not in ("progress", "message") or not event.stage:
            return
        share = event.done / event.total if event.total else 0
        begin, end = _SPANS.get(event.stage, (0, 0)) if event.parts == 1 else _SPAN_OF_PARTS
        percent = (100 * (self._index - 1) + begin + share * (end - begin)) / self._count
        self.percent = max(self.percent, min(100, int(percent)))
        self.text = {
            "start": _("Starting"),
            "load": _("Loading the model"),
            "read": _("Reading the image"),
            "preprocess": _("Preparing the image"),
            "segment": _("Segmenting"),
            "decode": _("Assigning the classes"),
            "locate": _("Locating"),
            "clean": _("Cleaning up"),
            "write": _("Writing the result"),
            "send": _("Sending the image"),
            "queue": _waiting(event.total - event.done),
            "fetch": _("Fetching the result"),
        }.get(event.stage, event.stage)
        if event.parts > 1:
            self.text += " " + _("(part {part} of {parts})").format(part=event.part, parts=event.parts)
        if self._count > 1:
            text = _("(volume {index} of {count})") if self._of_volumes else _("(frame {index} of {count})")
            self.text += " " + text.format(index=self._index, count=self._count)
        left = time_left(event.remaining)
        if left:
            self.text += ", " + left


def _waiting(before: int) -> str:
    """Return the text of a job that waits on a server.

    :param before: jobs before it.
    """
    if before < 1:
        return _("Waiting for the server")
    return (
        _("Waiting: one job is before this one")
        if before == 1
        else _("Waiting: {count} jobs are before this one").format(count=before)
    )
