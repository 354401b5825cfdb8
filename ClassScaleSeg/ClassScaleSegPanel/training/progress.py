"""How far a training is: a percentage, and a line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..widgets.texts import time_left

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Event

# Percentage of the time at which each step begins and ends: nearly all of it is the training.
_SPANS = {
    "start": (0, 1),
    "collect": (1, 2),
    "plan": (2, 3),
    "preprocess": (3, 7),
    "train": (7, 99),
    "export": (99, 100),
}


class TrainingProgress:
    """Turns the events of a training into a percentage that never decreases, and a line of text.

    :ivar percent: 0..100.
    :ivar text: the step, and the remaining time if it is known.
    """

    def __init__(self) -> None:
        self.percent, self.text = 0, _("Starting")

    def update(self, event: Event) -> None:
        """Take the next event into account."""
        if event.kind != "progress":
            return
        begin, end = _SPANS.get(event.stage, (0, 0))
        share = event.done / event.total if event.total else 0
        self.percent = max(self.percent, min(100, int(begin + share * (end - begin))))
        self.text = {
            "start": _("Starting"),
            "collect": _("Reading the cases"),
            "plan": _("Planning"),
            "preprocess": _("Preparing the images"),
            "train": _("Training: {done} of {total} epochs").format(done=event.done, total=event.total),
            "export": _("Writing the model"),
        }.get(event.stage, event.stage)
        if event.stage == "train" and event.done == event.total:
            self.text = _("Validating")
        left = time_left(event.remaining)
        if left:
            self.text += ", " + left
