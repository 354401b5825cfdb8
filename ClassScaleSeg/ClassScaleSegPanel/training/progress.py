"""How far a training is: a percentage, and a line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..widgets.texts import time_left

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Event

# Percentage of the time at which each step ends: nearly all of it is the training.
_ENDS = {"start": 1, "collect": 2, "plan": 3, "preprocess": 7, "train": 98, "export": 99, "compare-models": 100}
_FILLED = {"start": 1, "fill": 5, "collect": 6, "plan": 6, "preprocess": 10}  # if the model segments the cases first
_TRAINED = 90  # if both models are compared then


class TrainingProgress:
    """Turns the events of a training into a percentage that never decreases, and a line of text.

    :ivar percent: 0..100.
    :ivar text: the step, and the remaining time if it is known.
    :ivar written: whether the new model is there: it is being compared with the other one.
    :param compares: whether it will be.
    :param fills: whether the model segments the cases first.
    """

    def __init__(self, compares: bool = False, fills: bool = False) -> None:
        self.percent, self.text, self.written = 0, _("Starting"), False
        self._ends = {**(_FILLED if fills else {}), **_ENDS, **(_FILLED if fills else {})}
        if compares:
            self._ends |= {"train": _TRAINED, "export": _TRAINED + 1}

    def update(self, event: Event) -> None:
        """Take the next event into account."""
        if event.kind != "progress":
            return
        stages = list(self._ends)
        index = stages.index(event.stage) if event.stage in stages else 0
        begin, end = self._ends[stages[index - 1]] if index else 0, self._ends[stages[index]]
        self.written = event.stage == "compare-models"
        share = event.done / event.total if event.total else 0
        self.percent = max(self.percent, min(100, int(begin + share * (end - begin))))
        # until the first case is done, their number is not known
        filling = _("Segmenting the cases: {done} of {total}") if event.done else _("Segmenting the cases")
        self.text = {
            "start": _("Starting"),
            "fill": filling.format(done=event.done, total=event.total),
            "collect": _("Reading the cases"),
            "plan": _("Planning"),
            "preprocess": _("Preparing the images"),
            "train": _("Training: {done} of {total} epochs").format(done=event.done, total=event.total),
            "export": _("Writing the model"),
            "compare-models": _("Comparing both models"),
        }.get(event.stage, event.stage)
        left = time_left(event.remaining)
        if left:
            self.text += ", " + left
