"""The list of models that can find where the wanted classes are, so that the model needs to see that box alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from ..state import silent

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.entries import LocateWith
    from ClassScaleSegLib.models.summary import ModelSummary

    from ..state import Locating, PanelState

_NAMED = 3  # classes that a sentence names


class LocateList:
    """Fills the list "Locate with" of the .ui file, and reports the user's choice.

    :param on_chosen: called with the id of the selected model; empty: as the catalogue says of the model that segments,
        which is the whole image for most; ``WHOLE_IMAGE``: the whole image in any case.
    """

    def __init__(self, ui: Any, on_chosen: Callable[[str], None]) -> None:
        self._box = ui.locateComboBox
        self._listed: dict[str, str] = {}
        self._box.connect("currentIndexChanged(int)", lambda index: on_chosen(self._box.itemData(index)))

    def render(self, identifier: str, models: Mapping[str, str], usual: str) -> None:
        """Show a model, also if it is not there, because the scene may come from another computer.

        :param models: the name of each model that is on this computer, by its id.
        :param usual: the name of the model with which the catalogue locates the one that segments; empty: with none.
        """
        from ClassScaleSegLib.options import WHOLE_IMAGE

        listed = {"": _("Automatic: {model}").format(model=usual) if usual else _("Whole image")}
        if usual or identifier == WHOLE_IMAGE:
            listed[WHOLE_IMAGE] = _("Whole image")
        listed |= models
        listed.setdefault(identifier, identifier)
        with silent(self._box):
            if listed != self._listed:
                self._listed = listed
                self._box.clear()
                for key, name in listed.items():
                    self._box.addItem(name, key)
            self._box.setCurrentIndex(self._box.findData(identifier))


def locating_fault(state: PanelState, ticked: list[str]) -> str:
    """Return why the selected model cannot locate the ticked classes; empty if it can, or none is selected.

    :param ticked: keys of the ticked classes.
    """
    faults = (_fault_of(state, locating, ticked) for locating in state.locating)
    return next(filter(None, faults), "")


def _fault_of(state: PanelState, locating: Locating, ticked: list[str]) -> str:
    identifier, coarse, models = locating
    needs = [model.entry.locate_with for model in models if model.entry and model.entry.locate_with]
    if coarse is None and needs:
        text = _(
            "{name} looks only where the model {model} finds structures, which is not on this computer. Select "
            'that one and press "Download...", or let this one see the whole image ("Locate with" under "Advanced").'
        )
        return text.format(name=models[0].name, model=identifier)
    if coarse is None and state.server is not None:
        text = _('{server} does not offer the model {model}, which is to locate classes. Select another ("Advanced").')
        return text.format(server=state.server.name, model=identifier)
    if coarse is None:
        text = _('The model {model}, which is to locate classes, is not on this computer. Select another ("Advanced").')
        return text.format(model=identifier)
    if coarse.channels != state.summaries[0].channels:
        text = _('{model} needs other images, so it cannot locate the classes. Select another model ("Advanced").')
        return text.format(model=coarse.name)
    if needs and all(_knows(need, identifier, coarse) for need in needs):
        return ""
    assert state.table is not None  # a model with a summary has a table
    names = dict.fromkeys(state.owners.get(int(key), ("", state.table[int(key)].name))[1] for key in ticked)
    unknown = [name for name in names if len(coarse.table.lookup(name)) != 1]
    if not unknown:
        return ""
    text = _('{model} cannot locate {classes}. Untick them, or select another model ("Advanced").')
    listed = ", ".join(unknown[:_NAMED])
    if len(unknown) > _NAMED:
        listed = _("{classes} and {count} more").format(classes=listed, count=len(unknown) - _NAMED)
    return text.format(model=coarse.name, classes=listed)


def _knows(need: LocateWith, identifier: str, coarse: ModelSummary) -> bool:
    """Return whether a model has the classes with which the catalogue locates another one."""
    return identifier == need.model or all(len(coarse.table.lookup(name)) == 1 for name in need.classes)
