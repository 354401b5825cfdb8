"""The model row of the panel: the list of models, which can be searched, their download, and models that users add."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..state import Locating, PanelModel, PanelState, silent
from ..translation import translated
from ..widgets.keyboard import SearchKeys
from ..widgets.texts import ask, ask_text, tell, tell_error
from .card import ModelCard
from .download import download, megabytes
from .facts import facts_of
from .source import CatalogModels, ModelSource, ServerModels

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.catalog.entries import Entry
    from ClassScaleSegLib.models.summary import ModelSummary
    from ClassScaleSegLib.remote.offers import RemoteModel


class ModelChooser:
    """Controls the widgets of the row "Model" in the .ui file.

    :ivar card: the dialog with the model card.
    :param on_chosen: called with the ids of the models of the run, after the user has selected or added one.
    :param on_changed: called without arguments when the catalogue was read again.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        catalog: Catalog,
        on_chosen: Callable[[tuple[str, ...]], None],
        on_changed: Callable[[], None],
    ) -> None:
        self._ui, self._state, self._catalog, self._box = ui, state, catalog, ui.modelComboBox
        self._source: ModelSource = CatalogModels(catalog)
        self._followed: Mapping[str, RemoteModel] | None = None  # the models of a server, if it is the device
        self._on_chosen, self._on_changed = on_chosen, on_changed
        self.card = ModelCard()
        self._entries: dict[str, Entry] = {}
        self._structures: dict[str, tuple[str, ...]] = {}  # of models in which was searched, by their ids
        self._advice = ""  # what could be searched instead, if no model fits
        self._menu, folder = qt.QMenu(), qt.QFileDialog.getExistingDirectory
        address = _("Web address (URL) of a zip file:")
        for text, slot in (
            (_("Model card..."), self.show_card),
            (_("Add model file..."), lambda: self.add(self._ask_file())),
            (_("Add model folder..."), lambda: self.add(folder(slicer.util.mainWindow(), _("Model folder")))),
            (_("Add model from web address..."), lambda: self.add(ask_text(_("Add model"), address))),
            (_("Remove this model..."), self.remove),
            (_("Show model folder"), self._show_folder),
        ):
            self._menu.addAction(text).connect("triggered(bool)", lambda on, slot=slot: slot())
        self._of_catalog = list(self._menu.actions())[1:]  # entries that change the catalogue of this computer
        ui.modelMenuButton.setMenu(self._menu)
        ui.downloadButton.connect("clicked(bool)", lambda: self._download())
        self._box.connect("currentIndexChanged(int)", lambda index: self.choose(self._box.itemData(index)))
        ui.modelSearchBox.connect("textChanged(QString)", lambda text: self._search())
        ui.modelSearchBox.connect("returnPressed()", lambda: self._box.showPopup())
        self._keys = SearchKeys(ui.modelSearchBox, lambda: self._box.setFocus())
        self.reload()

    def reload(self) -> None:
        """Read the catalogue and the selected model again, after a download, a removal or an error."""
        self._read()
        self._on_changed()

    def follow(self) -> None:
        """List the models of the device of the state: of a server, none while they are not known."""
        server = self._state.server
        models = None if server is None else server.models or {}
        if models != self._followed:
            self._followed = models
            self._source = CatalogModels(self._catalog) if models is None else ServerModels(models)
            self._read()

    def _read(self) -> None:
        from ClassScaleSegLib.errors import CatalogError

        try:
            entries = self._source.entries()
        except CatalogError as error:
            tell_error(str(error), _("Model catalogue"))
            entries = ()
        self._entries = {entry.id: entry for entry in entries}
        self._structures = {}
        self._list()
        self._state.models, self._state.locating = (), ()

    def choose(self, identifier: str) -> None:
        """Put a model into the place of the shown one; one that the run has already is shown instead."""
        state, chosen = self._state, [model.id for model in self._state.models]
        if identifier in chosen:
            state.current = chosen.index(identifier)
            self._on_changed()
        else:
            chosen[state.current : state.current + 1] = [identifier]
            self._on_chosen(tuple(chosen))

    def _search(self) -> None:
        self._list()
        self.render()

    def _list(self) -> None:
        """List the models that the search box asks for, and the selected one."""
        from ClassScaleSegLib.catalog.search import Search

        search, entries = Search(self._ui.modelSearchBox.text), tuple(self._entries.values())
        found, selected = search.find(entries, self._names), self._state.entry
        self._advice = search.advice(entries, self._names) if entries and not found else ""
        with silent(self._box):
            self._box.clear()
            for entry in entries:
                if entry in found or (selected is not None and entry.id == selected.id):
                    there = self._source.is_there(entry)
                    shown = entry.name if there else _("{name} (not downloaded)").format(name=entry.name)
                    self._box.addItem(shown, entry.id)

    def _names(self, entry: Entry) -> tuple[str, ...]:
        """Return what a model segments; of an embedded one it is read from its file, once."""
        if entry.id not in self._structures:
            self._structures[entry.id] = self._source.structures(entry)
        return self._structures[entry.id]

    def add(self, source: str) -> None:
        """Add a model to the catalogue and select it. Errors are shown in a message box.

        :param source: path of a model folder or zip file, or web address of a zip file; empty if the user cancelled.
        """
        if source:
            self._take(source, self._catalog.add)

    def use(self, file: str) -> None:
        """Select a model that was made just now, also if an earlier one of the same path is in the catalogue."""
        self._take(file, self._catalog.renew)

    def _take(self, source: str, how: Callable[[str], Entry]) -> None:
        if self._state.server is not None:
            text = _("The device is a server, which has its own models. To add one here, select another device first.")
            tell(text, _("Add model"))
            return
        try:
            entry = how(source)
        except ClassScaleError as error:
            tell_error(str(error), _("This model cannot be added"))
            return
        self.reload()
        self.choose(entry.id)

    def _download(self) -> None:
        if self._state.entry is not None and download(self._catalog, self._state.entry):
            self.reload()

    def show_card(self) -> None:
        """Show the model card: training data, licences, accuracy, and known failures."""
        self.card.show(self._state.shown)

    def close(self) -> None:
        """Close the model card if it is open."""
        self.card.close()

    def remove(self) -> None:
        """After asking, delete the files of the selected model, or remove the user's own model from the list."""
        entry = self._state.entry
        if entry is None:
            return
        size = megabytes(self._catalog.size(entry))
        if not entry.own:
            question = _("Delete the files of {name} ({size})?")
        elif any(part.addresses for part in entry.parts):
            question = _("Remove {name} from the list and delete its download ({size})?")
        else:
            question = _("Remove {name} from the list? Its files are not deleted.")
        title = _("Remove model")
        if ask(question.format(name=entry.name, size=size), title):
            try:
                self._catalog.remove(entry)
            except ClassScaleError as error:
                tell_error(str(error), _("This model cannot be removed"))
            self.reload()

    def open(self, identifiers: Sequence[str]) -> None:
        """Put what is known of the models of a run into the state.

        :param identifiers: their ids in the catalogue, in their order.
        """
        from ClassScaleSegLib.catalog.chosen import classes_of, parts_of

        state = self._state
        added = len(identifiers) > len(state.models) > 0
        state.models = tuple(map(self._opened, identifiers))
        state.current = len(identifiers) - 1 if added else min(state.current, len(identifiers) - 1)
        state.table, state.owners, state.fault = None, {}, ""
        if all(model.summaries for model in state.models):
            parts = parts_of(state.models)  # with the names by which the child process calls their models
            try:
                common = classes_of(parts)
            except ClassScaleError as error:
                state.fault = str(error)
                return
            state.table = common.table
            if len(state.models) > 1:
                for (name, summary), values in zip(parts, common.values, strict=True):
                    owned = {value: (name, summary.table[own].name) for own, value in values.items()}
                    state.owners |= owned

    def _opened(self, identifier: str) -> PanelModel:
        entry = self._entries.get(identifier)
        if entry is None or not self._source.is_there(entry):
            return PanelModel(identifier, entry)
        try:
            return PanelModel(identifier, entry, self._source.summaries(entry))
        except ClassScaleError as error:
            return PanelModel(identifier, entry, fault=str(error))

    def open_locating(self, identifier: str) -> None:
        """Put what is known of the models that locate classes into the state.

        :param identifier: as the parameter ``locateWith``: of a model; empty: as the catalogue says of each model that
            segments; ``WHOLE_IMAGE``: there is none.
        """
        from ClassScaleSegLib.options import WHOLE_IMAGE

        needs: dict[str, list[PanelModel]] = {}
        for model in self._state.models:
            if model.entry is not None and model.entry.locate_with is not None:
                needs.setdefault(model.entry.locate_with.model, []).append(model)
        if identifier:
            needs = {} if identifier == WHOLE_IMAGE else {identifier: needs.get(identifier, [])}
        known = {each.id: each for each in self._state.locating}
        found = []
        for one, models in needs.items():
            summary = known[one].summary if one in known else self._summary_of_single(one)
            found.append(Locating(one, summary, tuple(models)))
        self._state.locating = tuple(found)

    def _summary_of_single(self, identifier: str) -> ModelSummary | None:
        if identifier in self.single_models():
            with contextlib.suppress(ClassScaleError):  # its own fault is told when it is selected as the model
                (summary,) = self._source.summaries(self._entries[identifier])
                return summary
        return None

    def usual_locating(self) -> str:
        """Return the names of the models with which the catalogue locates those that segment; empty: with none."""
        if self._state.server is not None:
            return _("as the server does")
        entries = [model.entry for model in self._state.models if model.entry is not None]
        needs = dict.fromkeys(entry.locate_with.model for entry in entries if entry.locate_with is not None)
        return ", ".join(self._entries[need].name if need in self._entries else need for need in needs)

    def installed(self) -> dict[str, str]:
        """Return the names of the models that can be used, by their ids: those on this computer, or on the server."""
        return {entry.id: entry.name for entry in self._entries.values() if self._source.is_there(entry)}

    def single_models(self) -> dict[str, str]:
        """Return the names of those that are no group of several, by their ids."""
        return {key: name for key, name in self.installed().items() if len(self._entries[key].parts) == 1}

    def render(self) -> None:
        """Show the model of the state."""
        for action in self._of_catalog:
            action.enabled = self._state.server is None
        shown = self._state.shown
        if shown is None:
            return
        if shown.entry is not None and self._box.findData(shown.id) < 0:
            self._list()  # selected otherwise than in the list, in which it was not found
        with silent(self._box):
            self._box.setCurrentIndex(self._box.findData(shown.id))
        missing = shown.entry is not None and not (shown.summaries or shown.fault)
        # A narrow panel has room for one of the two; a further model is of no use before this one is there.
        hidden, button = self._ui.addModelButton, self._ui.downloadButton
        if not missing:
            hidden, button = button, hidden
        hidden.visible = False  # first, or the panel would be as wide as both for a moment
        button.visible = True
        self._ui.modelFactsLabel.text = escape(translated(shown.fault or self._advice)) or facts_of(shown)

    def _ask_file(self) -> str:
        kinds = _("Model bundles and exported models") + " (*.zip)"
        return qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Model file"), "", kinds)

    def _show_folder(self) -> None:
        self._catalog.folder.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._catalog.folder)))
