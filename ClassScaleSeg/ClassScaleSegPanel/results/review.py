"""The buttons "Checked" and "Next": from one structure to the next that is worth a look, the least sure first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from ..state import PanelState
from ..widgets.search_table import SearchTable
from ..widgets.texts import tell

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode, vtkSegment

    from ClassScaleSeg import ClassScaleSegLogic

MARK = "\u2713"  # in the column of the table, and its title


class Review:
    """Leads through the structures of the segmentation that is listed, and marks what somebody has checked.

    Only the rows that the search shows are visited.

    :param table: its keys are segment ids; its last column has the marks.
    :param say: shows a sentence below the table.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        logic: ClassScaleSegLogic,
        table: SearchTable,
        say: Callable[[str], None],
    ) -> None:
        self._ui, self._state, self._logic, self._table, self._say = ui, state, logic, table, say
        self._visited = ("", math.inf)  # the structure, and how sure the model was: a correction forgets that
        ui.checkedButton.connect("clicked(bool)", lambda: self._check())
        ui.nextButton.connect("clicked(bool)", lambda: self.go_on())

    def render(self) -> None:
        """Show what has been checked, here or in Slicer's own table of segments."""
        from ClassScaleSegLib.scene.checked import checked_structures

        node, keys = self._state.node, self._table.keys()
        self._ui.checkedButton.enabled = self._ui.nextButton.enabled = bool(keys)
        checked = set() if node is None else set(checked_structures(node))
        marks = {key: MARK if key in checked else "" for key in keys}
        column = self._table.columns - 1
        self._table.set_cells(column, marks)
        self._table.set_width(column, max(marks.values(), default=""), arrow=False)

    def _check(self) -> None:
        """Mark the current structure and go on, or remove its mark."""
        from ClassScaleSegLib.scene.checked import is_checked, mark_checked

        node, key = self._state.node, self._table.current()
        segment = None if node is None or not key else node.GetSegmentation().GetSegment(key)
        if segment is None:
            tell(_("To mark a structure as checked, click it in the table below."), _("Checked"))
            return
        again = is_checked(segment)
        mark_checked(node, key, not again)
        if again:
            self.render()
            self._say(_("{name} is no longer marked as checked.").format(name=segment.GetName()))
        else:
            self.go_on()

    def go_on(self) -> str:
        """Go to the next structure that nobody has checked, at the place where the model was least sure of it.

        :returns: the id of its segment; empty if there is none.
        """
        from ClassScaleSegLib.scene.checked import is_checked, least_sure_first

        node, here = self._state.node, self._table.current()
        if node is None:
            return ""
        self.render()
        segments = {key: node.GetSegmentation().GetSegment(key) for key in least_sure_first(node, self._table.shown())}
        places = {key: (self._sure(key, segment), n) for n, (key, segment) in enumerate(segments.items())}
        left = [key for key, segment in segments.items() if not is_checked(segment)]
        following = [key for key in left if key != here and places[key] > places.get(here, (-1.0, -1))]
        key = next(iter(following or [key for key in left if key != here] or left), None)
        if key is None:
            searched = bool(self._table.search.text)
            text = _("All structures that the search shows are checked.")
            self._say(text if searched else _("All structures are checked."))
            return ""
        self._visited = (key, places[key][0])
        self._table.go_to(key)
        self._logic.centerViews(node, key, leastSure=True)
        self._say(self._told(node, segments[key], len(left)))
        return key

    def _sure(self, key: str, segment: vtkSegment) -> float:
        """Return how sure the model was of a structure; infinity if that is not known."""
        from ClassScaleSegLib.scene.confidence import confidence_of

        sure = confidence_of(segment)
        if sure is None:
            return self._visited[1] if key == self._visited[0] else math.inf
        return sure

    def _told(self, node: vtkMRMLSegmentationNode, segment: vtkSegment, left: int) -> str:
        from ClassScaleSegLib.scene.confidence import confidence_of

        sure = confidence_of(segment)
        text = _("{name}: confidence {sure}. Not yet checked: {count}.")
        if sure is None:
            text = _("{name}. Not yet checked: {count}.")
        return text.format(name=segment.GetName(), sure="" if sure is None else f"{sure:.2f}", count=left)
