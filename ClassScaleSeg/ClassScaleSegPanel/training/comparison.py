"""Which structures one model knows better, and which worse, than another, such as the one that it began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

from ..widgets.search_table import Row, SearchTable

_BETTER, _WORSE, _SAME = (60, 160, 75), (215, 75, 60), (150, 150, 150)
_DIGITS = 3


class ComparisonTable(SearchTable):
    """A row for each structure, the worst change first; those of which only one model knows anything are last.

    :param first: title of the column with the Dice of the first model.
    :param second: the same of the second model.
    """

    def __init__(self, first: str, second: str) -> None:
        titles = [_("Structure"), _("Cases"), first, second, _("Change")]
        SearchTable.__init__(self, titles, _("Search structures"), None)

    def fill(self, structures: Sequence[Mapping[str, Any]]) -> None:
        """Show the structures of a comparison.

        :param structures: ``name``, ``cases``, and ``dice`` of the one model and of the other, as ``finetune`` reports.
        """
        ordered = sorted(structures, key=lambda one: _order(change_of(one)))
        self.set_rows(_row(str(key), structure) for key, structure in enumerate(ordered))
        for column, longest in enumerate(("0000", "0.000", "0.000", "+0.000"), 1):
            self.set_width(column, longest)


def summary_text(result: Mapping[str, Any]) -> str:
    """Return what the comparison says of all structures together; empty if there was none.

    :param result: of a training.
    """
    structures, cases = result.get("structures"), len(result.get("cases") or ())
    if not structures:
        return ""
    of_all = result.get("mean_dice_of_all")
    if not of_all:  # all structures are new
        dice = result["mean_dice"][-1]
        if dice is None:
            return ""
        text = _("Its mean Dice on {count} cases that the training has not seen is {dice}.")
        if cases == 1:
            text = _("Its mean Dice on the one case that the training has not seen is {dice}.")
        return text.format(count=cases, dice=f"{dice:.3f}")
    text = _("On {count} cases that the training has not seen, the mean Dice has gone from {before} to {now}.")
    if cases == 1:  # of two to four cases, it is one
        text = _("On the one case that the training has not seen, the mean Dice has gone from {before} to {now}.")
    counts = counts_text(structures, _("Structures that both models know: {better} better, {worse} worse."))
    before, now = (f"{dice:.3f}" for dice in of_all)
    return f"{text.format(count=cases, before=before, now=now)} {counts}"


def counts_text(structures: Sequence[Mapping[str, Any]], text: str) -> str:
    """Return a text that says how many structures the second model knows ``{better}`` and ``{worse}``."""
    changes = [change for structure in structures if (change := change_of(structure)) is not None]
    return text.format(better=sum(change > 0 for change in changes), worse=sum(change < 0 for change in changes))


def change_of(structure: Mapping[str, Any]) -> float | None:
    """Return by how much the Dice of a structure has changed, as shown and never -0; ``None`` if not both know it."""
    before, now = structure["dice"]
    return None if before is None or now is None else round(now - before, _DIGITS) + 0.0


def _order(change: float | None) -> float:
    return 2.0 if change is None else change


def _row(key: str, structure: Mapping[str, Any]) -> Row:
    change, name, cases = change_of(structure), str(structure["name"]), int(structure["cases"])
    color = _BETTER if change is not None and change > 0 else _WORSE if change is not None and change < 0 else _SAME
    dices = ["" if dice is None else f"{dice:.{_DIGITS}f}" for dice in structure["dice"]]
    cells = [name, str(cases), *dices, "" if change is None else f"{change:+.{_DIGITS}f}"]
    order = [
        name.lower(),
        float(cases),
        *(-1.0 if dice is None else dice for dice in structure["dice"]),
        _order(change),
    ]
    return Row(key, color, cells, order, name)
