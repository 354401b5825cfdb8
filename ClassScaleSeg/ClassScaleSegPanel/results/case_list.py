"""The upper table of the dialog "Compare cases": the results of the scene, and the reference of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from ..state import silent
from ..widgets.search_table import Row, SearchTable
from .structure_set import ask_structure_set

if TYPE_CHECKING:
    from ClassScaleSegLib.scene.case_pairs import CasePair
    from slicer import vtkMRMLNode, vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic

_GREY, _BLUE = (128, 128, 128), (60, 110, 200)  # without and with a reference


class CaseList:
    """A table of the results, and below it the row that chooses the reference of the result that was clicked.

    :ivar pairs: the results and their references, by the id of the result.
    :param layout: of the dialog, to which they are added.
    :param chosen: ids of the references that the user has chosen, by that of the result; empty: none of them. It is
        kept up to date.
    :param on_changed: called without arguments when other cases are ticked or have other references.
    """

    def __init__(
        self, layout: qt.QVBoxLayout, logic: ClassScaleSegLogic, chosen: dict[str, str], on_changed: Callable[[], None]
    ) -> None:
        self._logic, self._chosen, self._on_changed = logic, chosen, on_changed
        self.pairs: dict[str, CasePair] = {}
        self._offered: list[vtkMRMLSegmentationNode] = []  # as references
        self._seen: object = None  # what there was when they were listed
        self._selected = ""  # the id of the result whose row was clicked
        headers = [_("Volume"), _("Result"), _("Reference")]
        self.table = SearchTable(headers, _("Search cases"), on_changed, self._select)
        self.table.view.minimumHeight = 5 * self.table.view.verticalHeader().defaultSectionSize
        label, self.reference_box = qt.QLabel(_("Reference of the row:")), qt.QComboBox()
        label.setBuddy(self.reference_box)
        self.reference_box.accessibleName = _("Reference of the row")
        self.reference_box.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.reference_box.connect("currentIndexChanged(int)", self._choose)
        self.structure_set_button = qt.QPushButton(_("Structure set..."))
        self.structure_set_button.toolTip = _("Load an RT structure set as the reference of the row.")
        self.structure_set_button.autoDefault = False  # Enter belongs to the table
        self.structure_set_button.connect("clicked(bool)", lambda: self._load_structure_set())
        row = qt.QHBoxLayout()
        row.addWidget(label)
        row.addWidget(self.reference_box, 1)
        row.addWidget(self.structure_set_button)
        layout.addWidget(self.table.widget)
        layout.addLayout(row)

    def fill(self, without: vtkMRMLNode | None = None) -> None:
        """List the results that the scene has now; new ones that are the latest of their volume are ticked.

        What was ticked, selected and scrolled to stays. If nothing has changed, nothing is touched.

        :param without: a node that is about to be removed.
        """
        from ClassScaleSegLib.scene.case_pairs import find_case_pairs, segmentations

        pairs = {}
        for pair in find_case_pairs(slicer.mrmlScene):
            if pair.result is not without:
                reference = self._chosen.get(pair.result.GetID())
                if reference is not None:
                    pair = pair._replace(reference=slicer.mrmlScene.GetNodeByID(reference) if reference else None)
                if pair.reference is without:
                    pair = pair._replace(reference=None)
                pairs[pair.result.GetID()] = pair
        offered = [node for node in segmentations(slicer.mrmlScene) if node is not without]
        seen = (pairs, [(node.GetID(), node.GetName()) for node in offered])
        if seen == self._seen:
            return
        before, self.pairs, self._offered, self._seen = self.pairs, pairs, offered, seen
        latest = {key for key, pair in pairs.items() if pair.latest}
        replaced = {key for key, pair in before.items() if pair.latest} - latest
        self._show(set(self.table.ticked()) - replaced | latest - before.keys())
        self._select(self._selected if self._selected in pairs else "")

    def wanted(self) -> list[CasePair]:
        """Return the ticked cases that have a reference."""
        return [self.pairs[key] for key in self.table.ticked() if self.pairs[key].reference is not None]

    def _show(self, ticked: set[str]) -> None:
        rows = []
        for key, pair in self.pairs.items():
            reference = _("choose one") if pair.reference is None else pair.reference.GetName()
            cells = (pair.name, pair.result.GetName(), reference)
            rows.append(Row(key, _GREY if pair.reference is None else _BLUE, cells, cells, " ".join(cells)))
        with self.table.place_kept():
            self.table.set_rows(rows, ticked=False)
        self.table.tick(ticked)
        for column in (1, 2):
            self.table.set_width(column, max((row.cells[column] for row in rows), key=len, default="MMMM")[:30])
        self._on_changed()

    def _select(self, key: str) -> None:
        """Offer all segmentations as the reference of a row."""
        self._selected = key
        pair = self.pairs.get(key)
        with silent(self.reference_box):
            self.reference_box.clear()
            self.reference_box.addItem(_("None"), "")
            for node in self._offered if pair is not None else ():
                if pair is not None and node is not pair.result:
                    self.reference_box.addItem(node.GetName(), node.GetID())
            chosen = pair.reference.GetID() if pair is not None and pair.reference is not None else ""
            self.reference_box.setCurrentIndex(max(0, self.reference_box.findData(chosen)))
        self.reference_box.enabled = self.structure_set_button.enabled = pair is not None

    def _load_structure_set(self) -> None:
        key = self._selected
        pair = self.pairs.get(key)
        if pair is not None and (drawn := ask_structure_set(self._logic, pair.result)) is not None:
            self.fill()
            self._select(key)  # with the new one
            self.reference_box.setCurrentIndex(self.reference_box.findData(drawn.GetID()))

    def _choose(self, index: int) -> None:
        key, chosen = self._selected, self.reference_box.itemData(index) or ""
        if key in self.pairs:
            self._chosen[key] = chosen
            node = slicer.mrmlScene.GetNodeByID(chosen) if chosen else None
            self.pairs[key] = self.pairs[key]._replace(reference=node)
            self._show({*self.table.ticked(), key})
