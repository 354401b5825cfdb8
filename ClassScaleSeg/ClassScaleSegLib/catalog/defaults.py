"""Complete the choices of a segmentation by what the catalogue knows of the model, such as where to look.

The command, scripts in Slicer and the panel all complete them here, so that they do the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import CatalogError
from ..labels.table import LabelTable
from ..models.summary import summarize
from ..options import WHOLE_IMAGE, Options
from .catalog import Catalog, entry_named
from .entries import Entry, LocateWith, Part


def completed(models: Iterable[str | Path], options: Options, catalog: Catalog | None = None) -> Options:
    """Return the options with what the catalogue says of models that are named by its ids or names.

    A model that was trained on boxes is located with the coarse model of its entry, unless ``locate_with`` names
    another one. Of a zip that holds several models, the one of the entry is chosen. If several models differ in one of
    these, that is left to :func:`~.chosen.chosen_models`. Otherwise ``WHOLE_IMAGE`` becomes ``None``.

    :param models: of one segmentation, as a user names them.
    :param catalog: by default the catalogue in the usual folder.
    :raises CatalogError: if a model is unknown, or the coarse one is not on this machine.

    >>> completed(["toy-120"], Options(step=0.75)) == Options(step=0.75)
    True
    """
    catalog = catalog or Catalog()
    entries = [entry_named(str(model), catalog) for model in models]
    if options.configuration is None:
        options = replace(options, configuration=configuration_of(entries))
    needs = {entry.name: entry.locate_with for entry in entries if entry and entry.locate_with}
    alike = len(needs) == len(entries) and len({need.model for need in needs.values()}) == 1
    if options.locate_with == WHOLE_IMAGE:
        return options if needs and not alike else replace(options, locate_with=None)
    if not alike or not all(entry is None or catalog.is_installed(entry) for entry in entries):
        return options  # if one is missing, that is told when the models are opened
    if options.locate_with is None:
        return locating_options(needs, options, catalog)
    return options if options.locate_classes else _located_with(needs, options, catalog)


def configuration_of(entries: Iterable[Entry | None]) -> str | None:
    """Return the configuration that all parts of all entries have, if it is the same.

    :param entries: ``None`` stands for a model that is not of the catalogue, and so has none.
    """
    chosen = {part.configuration for entry in entries for part in (entry.parts if entry else (Part(),))}
    return chosen.pop() if len(chosen) == 1 else None


def _coarse(name: str, need: LocateWith, catalog: Catalog) -> Entry:
    coarse = catalog.find(need.model)
    if not catalog.is_installed(coarse):
        raise CatalogError(
            f"{name} was trained on boxes around {', '.join(need.classes)}. They are found by {coarse.name}, which is "
            f"not downloaded. Run `classscaleseg models download {coarse.id}`, or let the model see the whole image, "
            "for which it was not trained (--locate-with none)."
        )
    return coarse


def locating_options(needs: dict[str, LocateWith], options: Options, catalog: Catalog) -> Options:
    """Return the options with the coarse model that one model needs, or several alike.

    :param needs: by the names of the models.
    :raises CatalogError: if the coarse model is not on this machine, or does not have the classes that locate.
    """
    name, need = next(iter(needs.items()))
    coarse = _coarse(name, need, catalog)
    (path,) = catalog.paths(coarse)
    classes = _classes(needs.values(), summarize(path, coarse.parts[0].configuration).table, coarse.structures)
    if classes is None:
        raise CatalogError(
            f"{coarse.name} does not have the classes {', '.join(need.classes)}, which tell {name} where to look. Name "
            "others (--locate-with, --locate-classes), or let it see the whole image (--locate-with none)."
        )
    margin = max(need.margin for need in needs.values())
    return replace(options, locate_with=coarse.id, locate_classes=classes, locate_margin=margin)


def _located_with(needs: dict[str, LocateWith], options: Options, catalog: Catalog) -> Options:
    """Return the options with the classes that tell the models where to look, if the named coarse model has them."""
    text = options.locate_with or ""
    named = entry_named(text, catalog)
    if named is not None and (len(named.parts) > 1 or not catalog.is_installed(named)):
        return options  # that is told when it is opened
    path = Path(text) if named is None else catalog.paths(named)[0]
    classes = _classes(needs.values(), summarize(path).table, named.structures if named else ())
    return options if classes is None else replace(options, locate_classes=classes)


def _classes(needs: Iterable[LocateWith], table: LabelTable, stated: Sequence[str]) -> tuple[str | int, ...] | None:
    """Return the classes of a coarse model that tell where to look; ``None`` if it does not have all of them.

    A model may spell a name otherwise than its publishers. Then its value tells, which follows from their list.
    """
    classes: list[str | int] = []
    for name in dict.fromkeys(name for need in needs for name in need.classes):
        if len(table.lookup(name)) == 1:
            classes.append(name)
        elif name in stated and stated.index(name) + 1 in table:
            classes.append(stated.index(name) + 1)
        else:
            return None
    return tuple(classes)
