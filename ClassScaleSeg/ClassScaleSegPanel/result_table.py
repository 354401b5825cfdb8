"""The structures that a run found, with their volumes: search them, go to one, show a few in 3D."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from .search_table import Row, SearchTable

if TYPE_CHECKING:
    from ClassScaleSegLib.segmentation import Segmentation


class ResultTable:
    """:ivar widget: to be put into the panel. Keys are segment ids.

    :param on_chosen: called with the segment id of a row that is clicked. :param on_ticked: called without arguments.
    """

    def __init__(self, on_chosen: Callable[[str], None], on_ticked: Callable[[], None]) -> None:
        self.table = SearchTable(
            [_("Structure"), _("Volume (mL)")], _("Search structures"), on_ticked=on_ticked, on_chosen=on_chosen
        )
        self.widget = self.table.widget
        self.summary = qt.QLabel(_("Nothing segmented yet."))
        self.summary.wordWrap = True
        self.table.layout.addWidget(self.summary)

    def show(self, result: Segmentation | None) -> None:
        """List what was found; ``None`` empties the table."""
        found = [row for row in result.statistics() if row.voxels] if result is not None else []
        rows = []
        for row in found:
            label = result.table[row.value]
            searched = " ".join((row.name, label.group or "", *(c.meaning for c in label.codes.values() if c)))
            amount = f"{row.volume_ml:,.3f}" if row.volume_ml < 10 else f"{row.volume_ml:,.1f}"
            rows.append(Row(label.id, label.color, (row.name, amount), (row.name.casefold(), row.volume_ml), searched))
        self.table.set_rows(rows, ticked=False)
        self.table.set_width(1, "00,000.000")
        if result is None:
            self.summary.text = _("Nothing segmented yet.")
        else:
            text = _("{count} structures found. Click one to go there, tick some to show them in 3D.")
            self.summary.text = text.format(count=len(found))

    def ticked(self) -> list[str]:
        """Segment ids to be shown in 3D."""
        return self.table.ticked()
