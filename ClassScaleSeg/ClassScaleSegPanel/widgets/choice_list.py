"""A list of a few choices, one of which is selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..state import silent

if TYPE_CHECKING:
    import qt


class ChoiceList:
    """Fills a combo box, and reports the user's choice.

    :param box: the widget.
    :param choices: the text of each choice, by what the parameter node keeps of it.
    :param on_chosen: called with that of the selected choice.
    """

    def __init__(self, box: qt.QComboBox, choices: Mapping[str, str], on_chosen: Callable[[str], None]) -> None:
        self._box, self._choices = box, choices
        for choice, text in choices.items():
            box.addItem(text, choice)
        box.connect("currentIndexChanged(int)", lambda index: on_chosen(box.itemData(index)))

    def offer(self, choice: str, there: bool) -> None:
        """Offer one of the choices, the last, or do not."""
        place = self._box.findData(choice)
        with silent(self._box):
            if there and place < 0:
                self._box.addItem(self._choices[choice], choice)
            elif not there and place >= 0:
                self._box.removeItem(place)

    def render(self, choice: str) -> None:
        """Show a choice; an unknown one, as from a script, is shown as none, and refused when a run begins."""
        with silent(self._box):
            self._box.setCurrentIndex(self._box.findData(choice))
