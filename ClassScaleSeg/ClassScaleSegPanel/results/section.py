"""What the sections "Result" and "Compare" share: a table of structures, and a line of text below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..translation import translated
from ..widgets.search_table import SearchTable
from ..widgets.texts import Wrapping

if TYPE_CHECKING:
    from ClassScaleSegLib.labels.label import Label

_T = TypeVar("_T")


class StructureSection:
    """A table of structures, and a line of text below it.

    :ivar table: the table.
    :param section: the widget of the section, to whose layout they are added.
    :param headers: titles of the columns, that of the names first.
    :param on_chosen: called with the key of the row that the user has clicked.
    :param on_ticked: called when the user has ticked or unticked a row. ``None``: rows have no ticks.
    """

    def __init__(
        self,
        section: qt.QWidget,
        headers: Sequence[str],
        on_chosen: Callable[[str], None],
        on_ticked: Callable[[], None] | None = None,
    ) -> None:
        self.table = SearchTable(headers, _("Search structures"), on_ticked=on_ticked, on_chosen=on_chosen)
        self._line = qt.QLabel()
        self._line.textFormat = qt.Qt.PlainText  # it shows names of nodes
        self._line.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)  # it may show a command
        self._wrapping = Wrapping(self._line)
        self.table.layout.addWidget(self._line)
        section.layout().addWidget(self.table.widget)

    @property
    def text(self) -> str:
        """The line below the table."""
        return self._line.text

    def say(self, text: str) -> None:
        """Show a text in the line below the table."""
        self._line.text = text


def attempt(work: Callable[[], _T], no_memory: str) -> tuple[_T | None, str]:
    """Do something that takes a while, with the cursor that says so.

    :param no_memory: what to say if the memory is not enough.
    :returns: the result of ``work``, and why there is none: a sentence in the language of Slicer, or an empty text.
    """
    slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        return work(), ""
    except ClassScaleError as error:
        return None, translated(str(error))
    except MemoryError:
        return None, no_memory
    finally:
        slicer.app.restoreOverrideCursor()


def searched(name: str, label: Label) -> str:
    """Return what the search looks at in the row of a structure: its name, its group, and what its codes mean."""
    return " ".join((name, label.group or "", *(code.meaning for code in label.codes.values() if code)))


def amount(millilitres: float | None) -> str:
    """Return a volume as the tables show it.

    >>> amount(1.5), amount(1234.56), amount(None)
    ('1.500', '1,234.6', '–')
    """
    if millilitres is None:
        return "–"
    return f"{millilitres:,.3f}" if abs(millilitres) < 10 else f"{millilitres:,.1f}"
