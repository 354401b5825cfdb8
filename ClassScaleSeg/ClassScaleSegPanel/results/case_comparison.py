"""The dialog "Compare cases": results of many volumes beside their references, in one table and one file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..install.packages import ensure_comparing
from ..translation import translated
from ..widgets.search_table import Row, SearchTable
from ..widgets.texts import shortened, tell_error, tip
from ..widgets.watching import Watching
from ..widgets.whole_texts import WholeTexts
from .case_list import CaseList
from .contents import changes, contents
from .section import amount
from .table_file import ask_table_file

if TYPE_CHECKING:
    from ClassScaleSegLib.images.comparison import ClassComparison
    from ClassScaleSegLib.scene.case_pairs import ComparedCase
    from slicer import vtkMRMLNode

    from ClassScaleSeg import ClassScaleSegLogic

MOST_ROWS = 20_000  # that a table lists quickly; beyond them, the means alone are listed
_GREY, _BLUE = (128, 128, 128), (60, 110, 200)  # of single cases, and of the means over them
_MOST_FAULTS = 3  # that are told


class CaseComparison:
    """Opens the dialog at the press of a button. It stays beside the panel, which goes on working.

    :ivar dialog: ``None`` while it is closed.
    :ivar cases: the comparisons that are listed, by the name of the case.
    """

    def __init__(self, button: qt.QPushButton, logic: ClassScaleSegLogic) -> None:
        self._logic = logic
        self.dialog: qt.QDialog | None = None
        self.cases: dict[str, list[ClassComparison]] = {}
        self._chosen: dict[str, str] = {}  # ids of the references that the user has chosen, by that of the result
        self._segments: dict[str, tuple[Any, str]] = {}  # node and segment of each row of the comparison
        self._held: dict[Any, object] = {}  # what the compared nodes held
        self._watching, self._whole_texts = Watching(lambda node, event: self._follow(node)), WholeTexts()
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.connect("timeout()", lambda: self._fill())
        button.connect("clicked(bool)", lambda: self.open())

    def open(self) -> None:
        """Show the dialog, with the results that the scene has now."""
        self.close()
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Compare cases")
        layout = qt.QVBoxLayout(self.dialog)
        rule = qt.QLabel(
            _(
                "Compares each result with its reference: the only other segmentation of the same volume, or else the "
                "only one that is called like the volume. To choose another reference, click a row."
            )
        )
        rule.wordWrap = True
        layout.addWidget(rule)
        self.list = CaseList(layout, self._logic, self._chosen, lambda: self._show_buttons())
        titles = [_("Structure"), _("Case"), _("Dice"), _("SD"), _("mL"), _("Other mL"), _("Difference")]
        self.found = SearchTable(titles, _("Search structures and cases"), None, self._go_to)
        self.compare_button, self.table_button = qt.QPushButton(_("Compare")), qt.QPushButton(_("To table"))
        self.table_button.toolTip = _("Put the rows of all cases into a table of the scene.")
        self.save_button = qt.QPushButton(_("Save..."))
        self.save_button.toolTip = _("Save the rows of all cases as a .csv file or as an Excel workbook.")
        close_button = qt.QPushButton(_("Close"))
        buttons = qt.QHBoxLayout()
        for button, slot in (
            (self.compare_button, self.compare),
            (self.table_button, self.to_table),
            (self.save_button, self.save),
            (close_button, self.close),
        ):
            button.autoDefault = False  # Enter belongs to the tables
            button.connect("clicked(bool)", lambda on, slot=slot: slot())
            buttons.addWidget(button)
        self.line = qt.QLabel()
        self.line.wordWrap, self.line.textFormat = True, qt.Qt.PlainText
        layout.addWidget(self.found.widget)
        layout.addWidget(self.line)
        layout.addLayout(buttons)
        self._whole_texts.watch(self.dialog)
        self._fill()
        self.dialog.resize(760, 640)
        self.dialog.show()

    def close(self) -> None:
        """Close the dialog if it is open. Which references were chosen is kept."""
        self._soon.stop()
        self._clear()
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None

    def reset(self) -> None:
        """Forget everything, because the scene is closed."""
        self.close()
        self._chosen.clear()

    def forget(self, node: vtkMRMLNode) -> None:
        """Drop a node that is removed from the scene, and a comparison with it."""
        if self.dialog is not None and node.IsA("vtkMRMLSegmentationNode"):
            if node in self._held:
                self._clear(_("A segmentation was removed, so the comparison is gone."))
            self._fill(without=node)

    def look_again(self) -> None:
        """List the results again if the dialog is open, once the application is idle: a segmentation may be new."""
        if self.dialog is not None:
            self._soon.start()

    def _fill(self, without: vtkMRMLNode | None = None) -> None:
        if self.dialog is None:
            return
        self.list.fill(without)
        nothing = _("There is no result of a run whose volume is in the scene.")
        if not self.list.pairs:
            self.line.text = nothing
        elif self.line.text == nothing:
            self.line.text = ""
        self._show_buttons()

    def _show_buttons(self) -> None:
        self.compare_button.enabled = bool(self.list.wanted())
        self.save_button.enabled = self.table_button.enabled = bool(self.cases)

    # --- the comparison

    def compare(self) -> None:
        """Compare the ticked cases that have a reference. One that cannot be compared does not stop the rest."""
        from ClassScaleSegLib.images.comparison_summary import GatheredCases
        from ClassScaleSegLib.scene.case_pairs import compare_case

        try:
            ensure_comparing()
        except ClassScaleError as error:
            self._clear(str(error))
            return
        self._clear()
        found: dict[str, ComparedCase] = {}
        held: dict[Any, object] = {}
        wanted, faults = self.list.wanted(), list[str]()
        progress = qt.QProgressDialog("", _("Cancel"), 0, len(wanted), self.dialog)
        progress.windowModality = qt.Qt.ApplicationModal
        try:
            for number, pair in enumerate(wanted):
                progress.labelText = tip(_("Comparing {name}").format(name=shortened(pair.name, 60)))
                progress.value = number
                slicer.app.processEvents()
                if progress.wasCanceled or self.dialog is None:
                    return
                both = [pair.result, pair.reference]
                if not all(map(slicer.mrmlScene.IsNodePresent, both)):
                    continue  # the application went on meanwhile
                held |= {node: contents(node) for node in both if node not in held}
                try:
                    found[pair.name] = compare_case(pair)
                except ClassScaleError as error:
                    faults.append(_("{name}: {reason}").format(name=pair.name, reason=translated(str(error))))
                except MemoryError:
                    reason = _("There is not enough memory to compare these segmentations.")
                    faults.append(_("{name}: {reason}").format(name=pair.name, reason=reason))
        finally:
            progress.close()
            progress.deleteLater()
        gathered = GatheredCases()
        for name, case in found.items():
            gathered.add(name, case.comparison)
        self.cases, missed, _undrawn = gathered.found()
        nodes = [node for pair in wanted if pair.name in found for node in (pair.result, pair.reference)]
        self._held = {node: held[node] for node in nodes}
        self._watching.watch(self._held, *changes(), slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
        self._show_found(found)
        self.line.text = " ".join([*self._sentences(len(missed)), *faults[:_MOST_FAULTS]])
        self._show_buttons()
        for node in list(self._held):  # one may have been changed or removed since it was compared
            if slicer.mrmlScene.IsNodePresent(node):
                self._follow(node)
            elif self._held:
                self._clear(_("A segmentation was removed, so the comparison is gone."))

    def _show_found(self, found: dict[str, ComparedCase]) -> None:
        """List each structure: its mean over all cases, then the cases."""
        from ClassScaleSegLib.images.comparison_summary import dice_deviations, summarize_comparisons

        deviations, rows = dice_deviations(self.cases), list[Row]()
        single: dict[str, list[tuple[str, int, ClassComparison]]] = {}
        for case, listed in self.cases.items():
            for number, row in enumerate(listed):
                single.setdefault(row.name, []).append((case, number, row))
        whole = sum(map(len, single.values())) <= MOST_ROWS
        for summary in summarize_comparisons(self.cases):
            mean = _("mean of {count}").format(count=summary.cases)
            means = (summary.dice, deviations.get(summary.name), None, None, summary.difference_ml)
            rows.append(_row(f"mean {len(rows)}", _BLUE, summary.name, mean, means))
            for case, number, row in single[summary.name] if whole else ():
                key = f"case {len(rows)}"
                self._segments[key] = found[case].segments[number]
                numbers = (row.dice, None, row.volume_ml, row.other_volume_ml, row.difference_ml)
                rows.append(_row(key, _GREY, row.name, case, numbers))
        self.found.set_rows(rows)
        self.found.set_width(1, max((row.cells[1] for row in rows), key=len, default="MMMM")[:24])
        for column, longest in enumerate(("0.000", "0.000", "0,000.0", "0,000.0", "-0,000.0"), start=2):
            self.found.set_width(column, longest)

    def _sentences(self, missed: int) -> list[str]:
        from ClassScaleSegLib.images.comparison_summary import mean_dice, summarize_comparisons

        summary = summarize_comparisons(self.cases)
        mean = mean_dice(summary)
        if mean is None:
            return [_("No structure is in both.")]
        count = sum(row.dice is not None for row in summary)
        text = _("Mean Dice {dice} over {structures} structures of {cases} cases.")
        said = [text.format(dice=f"{mean:.3f}", structures=count, cases=len(self.cases))]
        if missed:
            text = _("Cases that lack structures of other results, whose Dice is therefore 0: {count}.")
            said.append(text.format(count=missed))
        if sum(map(len, self.cases.values())) > MOST_ROWS:
            said.append(_("There are too many rows to list: save them to see those of single cases."))
        return said

    def save(self) -> None:
        """Save the rows of all cases, in the format of the command's comparison of folders."""
        from ClassScaleSegLib.images.comparison_summary import write_comparisons

        cases = self.cases  # while the dialogue is open, a run may change what is compared
        if not cases:
            return
        try:
            if path := ask_table_file(_("Save comparison"), _("comparison of cases")):
                write_comparisons(path, cases, overwrite=True)
                self.line.text = _("The comparison is in the file {name}.").format(name=Path(path).name)
        except ClassScaleError as error:
            tell_error(str(error), _("The comparison was not saved"))

    def to_table(self) -> None:
        """Put the rows of all cases into a table of the scene, the same one each time."""
        from ClassScaleSegLib.scene.table_nodes import fill_case_comparison

        if self.cases:
            table = fill_case_comparison(slicer.mrmlScene, self.cases, _("Comparison of cases"))
            self.line.text = _("The comparison is in the table {name}.").format(name=table.GetName())

    def _go_to(self, key: str) -> None:
        if key in self._segments:
            self._logic.centerViews(*self._segments[key])

    def _follow(self, node: Any) -> None:
        """Drop a comparison that is not true any more, because a segmentation was changed."""
        if node in self._held and self._held[node] != contents(node):
            self._clear(_("The segmentations have changed. Press Compare again."))

    def _clear(self, text: str = "") -> None:
        self.cases, self._segments, self._held = {}, {}, {}
        self._watching.stop()
        if self.dialog is not None:
            self.found.set_rows([])
            self.line.text = text
            self._show_buttons()


def _row(key: str, color: tuple[int, int, int], name: str, case: str, numbers: tuple[float | None, ...]) -> Row:
    dice, deviation, *volumes = numbers
    texts = ["–" if number is None else f"{number:.3f}" for number in (dice, deviation)]
    order = [-math.inf if number is None else float(number) for number in numbers]
    cells = (name, case, *texts, *map(amount, volumes))
    return Row(key, color, cells, (name.casefold(), case.casefold(), *order), f"{name} {case}")
