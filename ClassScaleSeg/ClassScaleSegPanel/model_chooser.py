"""Choosing a model: the catalogue as a list, downloads with consent, models of one's own by dialog or drop."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from .model_download import download, megabytes

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.catalog.entries import Entry
    from ClassScaleSegLib.labels.table import LabelTable
    from ClassScaleSegLib.models.summary import ModelSummary


class ModelChooser:
    """Drives the widgets of the row "Model" in the .ui file.

    :ivar summaries: of the model's parts, empty while it is not downloaded.
    :ivar table: its classes, if known.
    :param on_changed: called without arguments when another model is chosen, or it is downloaded or removed.
    """

    def __init__(self, ui: Any, catalog: Catalog, on_changed: Callable[[], None]) -> None:
        self._ui, self._catalog, self._on_changed = ui, catalog, on_changed
        self.summaries: tuple[ModelSummary, ...] = ()
        self.table: LabelTable | None = None
        self.fault = ""
        self.card_dialog: Any = None
        self._entries: dict[str, Entry] = {}
        self._menu = qt.QMenu()
        for text, slot in (
            (_("Model card..."), self.show_card),
            (_("Add model file..."), self._add_file),
            (_("Add model folder..."), self._add_folder),
            (_("Add by address..."), self._add_address),
            (_("Remove this model..."), self.remove),
            (_("Show folder of models"), self._show_folder),
        ):
            self._menu.addAction(text).connect("triggered(bool)", lambda on, slot=slot: slot())
        ui.modelMenuButton.setMenu(self._menu)
        ui.downloadButton.connect("clicked(bool)", lambda: self.download())
        self.refresh()
        ui.modelComboBox.connect("currentIndexChanged(int)", self._chosen)
        self._describe()

    @property
    def entry(self) -> Entry | None:
        """The chosen model."""
        return self._entries.get(self._ui.modelComboBox.itemData(self._ui.modelComboBox.currentIndex))

    def refresh(self) -> None:
        """Read the catalogue again; the choice stays, and if that is gone nothing is chosen."""
        from ClassScaleSegLib.errors import CatalogError

        box, before = self._ui.modelComboBox, self.entry
        first = box.count == 0
        try:
            entries = self._catalog.entries()
        except CatalogError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Catalogue of models"))
            entries = ()
        self._entries = {entry.id: entry for entry in entries}
        box.blockSignals(True)
        box.clear()
        for entry in entries:
            there = self._catalog.is_installed(entry)
            box.addItem(entry.name if there else _("{name} (not downloaded)").format(name=entry.name), entry.id)
        if not first:
            box.setCurrentIndex(-1 if before is None else box.findData(before.id))
        box.blockSignals(False)

    def select(self, identifier: str) -> bool:
        """Choose by id; whether there is such a model. Without it none is chosen."""
        index = self._ui.modelComboBox.findData(identifier)
        self._ui.modelComboBox.setCurrentIndex(index)
        return index >= 0

    def is_installed(self) -> bool:
        return self.entry is not None and self._catalog.is_installed(self.entry)

    def reload(self) -> None:
        """Look again what is there, after a download, a removal, or a fault."""
        self.refresh()
        self._chosen()

    def add(self, source: str) -> None:
        """Add a model of the user's and choose it; a fault is shown as a sentence."""
        from ClassScaleSegLib.errors import ClassScaleError

        try:
            entry = self._catalog.add(source)
        except ClassScaleError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("This model cannot be added"))
            return
        self.refresh()
        if not self.select(entry.id) or self._ui.modelComboBox.count == 1:
            self._chosen()

    def download(self) -> bool:
        """Download the chosen model once the user has agreed; whether it is there now."""
        entry = self.entry
        if entry is None or not download(self._catalog, entry):
            return False
        self.reload()
        return self.is_installed()

    def show_card(self) -> None:
        """Show what the model's makers say of it: data, licences, how good it is, known failures."""
        cards = [summary.card for summary in self.summaries if summary.card]
        if not cards:
            slicer.util.infoDisplay(_("This model has no card, or is not downloaded."), windowTitle=_("Model card"))
            return
        self.close()
        self.card_dialog = qt.QDialog(slicer.util.mainWindow())  # not modal: it can be read beside the panel
        self.card_dialog.windowTitle = _("Model card")
        browser = qt.QTextBrowser()
        browser.openExternalLinks = True
        browser.setMarkdown("\n\n".join(cards))
        qt.QVBoxLayout(self.card_dialog).addWidget(browser)
        self.card_dialog.resize(760, 640)
        self.card_dialog.show()

    def close(self) -> None:
        """Close the card, if it is shown."""
        if self.card_dialog is not None:
            self.card_dialog.close()
            self.card_dialog.deleteLater()
            self.card_dialog = None

    def remove(self) -> None:
        """Delete the download of the chosen model, or forget a model of the user's, after a question."""
        from ClassScaleSegLib.errors import ClassScaleError

        entry = self.entry
        if entry is None:
            return
        size = megabytes(self._catalog.size(entry))
        question = _("Remove {name} ({size})?") if not entry.own else _("Forget {name}? Its file stays where it is.")
        if slicer.util.confirmOkCancelDisplay(question.format(name=entry.name, size=size), windowTitle=_("Remove")):
            try:
                self._catalog.remove(entry)
            except ClassScaleError as error:
                slicer.util.errorDisplay(str(error), windowTitle=_("Not removed"))
            self.reload()

    def _chosen(self, *_index: int) -> None:
        self._describe()
        self._on_changed()

    def _describe(self) -> None:
        """Read the summaries of the chosen model, and tell what it is."""
        from ClassScaleSegLib.errors import ClassScaleError
        from ClassScaleSegLib.inference.several_models import common_table
        from ClassScaleSegLib.models.summary import summarize

        entry = self.entry
        self.summaries, self.table, self.fault = (), None, ""
        if self.is_installed():
            try:
                paths = zip(self._catalog.paths(entry), entry.parts, strict=True)
                self.summaries = tuple(summarize(path, part.configuration) for path, part in paths)
                tables = [summary.table for summary in self.summaries]
                self.table = tables[0] if len(tables) == 1 else common_table(tables)
            except ClassScaleError as error:
                self.fault = str(error)
        self._ui.downloadButton.visible = entry is not None and not self.is_installed()
        self._ui.modelFactsLabel.text = self.fault and escape(self.fault) or self.facts()

    def facts(self) -> str:
        """Rich text: classes, modality, licence, notice."""
        entry, summary = self.entry, self.summaries[0] if self.summaries else None
        if entry is None:
            return ""
        count = len(self.table.foreground) if self.table is not None else entry.classes
        facts = [_("{count} classes").format(count=count)] if count else []
        modality = entry.modality or (summary.modality if summary else None)
        facts += [modality] if modality else []
        if summary is not None:
            spacing = " x ".join(f"{side:.3g}" for side in reversed(summary.spacing))
            facts.append(
                _("{spacing} mm").format(
                    spacing=f"{summary.spacing[0]:.3g}" if len(set(summary.spacing)) == 1 else spacing
                )
            )
        licence = entry.licence or (summary.licence if summary else None) or _("not stated")
        licence = escape(licence)
        if entry.licence_address:
            licence = f'<a href="{escape(entry.licence_address)}">{licence}</a>'
        facts = [*(escape(fact) for fact in facts), _("licence {licence}").format(licence=licence)]
        notice = entry.notice or (summary.notice if summary else None)
        return ", ".join(facts) + "." + (f"<br><b>{escape(notice)}</b>" if notice else "")

    def _add_file(self) -> None:
        title, kinds = _("Model file"), _("Model bundles and exported models") + " (*.zip)"
        if path := qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds):
            self.add(path)

    def _add_folder(self) -> None:
        if path := qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of an nnU-Net model")):
            self.add(path)

    def _add_address(self) -> None:
        answer = qt.QInputDialog.getText(slicer.util.mainWindow(), _("Model by address"), _("Address of a zip file:"))
        address = (answer[0] if isinstance(answer, tuple) else answer).strip()
        if address:
            self.add(address)

    def _show_folder(self) -> None:
        self._catalog.folder.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._catalog.folder)))


class ModelDrop(qt.QObject):
    """Event filter: a model folder or zip dropped onto the panel is added."""

    def __init__(self, chooser: ModelChooser) -> None:
        qt.QObject.__init__(self)
        self._chooser = chooser

    def eventFilter(self, watched: Any, event: Any) -> bool:
        kind = event.type()
        if kind not in (qt.QEvent.DragEnter, qt.QEvent.Drop):
            return False
        path = dropped_model(event.mimeData())
        if path is None:
            return False  # volumes and scenes are Slicer's to load
        event.acceptProposedAction()
        if kind == qt.QEvent.Drop:
            self._chooser.add(path)
        return True


def dropped_model(mime: Any) -> str | None:
    """The one file or folder that may be a model."""
    paths = [url.toLocalFile() for url in mime.urls()] if mime.hasUrls() else []
    if len(paths) == 1 and (paths[0].lower().endswith(".zip") or Path(paths[0]).is_dir()):
        return paths[0]
    return None
