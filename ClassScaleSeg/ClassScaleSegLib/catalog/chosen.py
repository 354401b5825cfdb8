"""The models that a user has chosen for one segmentation: their files, names to tell them apart, where they look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from ..errors import ModelError
from ..labels.common_classes import CommonClasses, common_classes
from ..labels.table import LabelTable
from ..models.summary import ModelSummary, summarize
from ..options import WHOLE_IMAGE, Options
from .catalog import Catalog, entry_named, resolve_model
from .defaults import completed, locating_options
from .entries import Entry, Part


class ChosenModel(NamedTuple):
    """A model as a user has chosen it; that of the catalogue may consist of several.

    :ivar name: no other one of the segmentation has it.
    :ivar paths: of its parts.
    :ivar configurations: of its parts; ``None``: the only one.
    :ivar summaries: of its parts.
    :ivar looks: options with the coarse model that locates its classes; ``None``: that of all models, or none.
    """

    name: str
    paths: tuple[Path, ...]
    configurations: tuple[str | None, ...]
    summaries: tuple[ModelSummary, ...]
    looks: Options | None = None


def chosen_models(
    models: Sequence[str | Path],
    options: Options = Options(),
    catalog: Catalog | None = None,
    names: Sequence[str] = (),
) -> tuple[ChosenModel, ...]:
    """Find the models of one segmentation, and read what they are, without their weights.

    :param models: as a user names them: paths, or ids or names of the catalogue.
    :param options: of the segmentation, as :func:`~.defaults.completed` returns them. If they name no model that
        locates classes, each of several models is located as the catalogue says.
    :param catalog: by default the catalogue in the usual folder.
    :param names: of the models, if they are known; those of one name are parts of one model. By default those of the
        catalogue, or the models' own.
    :raises CatalogError: if a model is unknown, or it or the one that it is located with is not on this machine.
    :raises ModelError: if a model cannot be used, or is given twice.

    >>> [(model.name, len(model.paths)) for model in chosen_models(["toy-120", "toy-1000"])]
    [('Toy atlas, 120 classes', 1), ('Toy atlas, 1000 classes', 1)]
    """
    catalog = catalog or Catalog()
    found: list[ChosenModel] = []
    taken: set[tuple[Path, str | None]] = set()
    for number, text in enumerate(models):
        entry = entry_named(str(text), catalog)
        paths = (Path(text),) if entry is None else catalog.paths(entry)
        parts = (Part(),) if entry is None else entry.parts
        chosen = tuple(options.configuration or part.configuration for part in parts)
        summaries = tuple(map(summarize, paths, chosen))
        own = names[number] if number < len(names) else summaries[0].name if entry is None else entry.name
        looks = _looks(entry, options, catalog) if len(models) > 1 else None
        places = {(path.resolve(), part) for path, part in zip(paths, chosen, strict=True)}
        if places & taken:
            raise ModelError(f"The model {own} ({text}) is given twice. Leave it out once.")
        taken |= places
        found.append(ChosenModel(own, tuple(paths), chosen, summaries, looks))
    if not names:
        apart = different_names([model.name for model in found])
        found = [model._replace(name=name) for model, name in zip(found, apart, strict=True)]
    united = _together([model.looks for model in found if model.looks is not None])
    return tuple(model._replace(looks=model.looks and united[model.looks.locate_with]) for model in found)


@dataclass(frozen=True)
class Choice:
    """The models of one segmentation, with what the catalogue says of them.

    :ivar models: with their parts.
    :ivar coarse: what the models are that locate the classes of these.
    :ivar options: completed.
    :ivar given: models and options as they were given.
    :ivar elsewhere: the models are those of a server, which finds their files itself.
    """

    models: tuple[ChosenModel, ...]
    coarse: tuple[ModelSummary, ...]
    options: Options
    given: tuple[tuple[str | Path, ...], Options]
    elsewhere: bool = False

    @property
    def summaries(self) -> tuple[ModelSummary, ...]:
        """What all models are, the ones that locate last."""
        return (*(summary for model in self.models for summary in model.summaries), *self.coarse)

    @property
    def table(self) -> LabelTable:
        """All classes of the models, wanted or not."""
        return classes_of(parts_of(self.models)).table

    @property
    def as_files(self) -> tuple[tuple[str | Path, ...], tuple[str, ...], Options]:
        """Paths, the name of the model of each, and the options, so that another process need not look them up.

        If the catalogue says different things of several models, or a server has them, they are as they were given,
        without names.
        """
        if self.elsewhere or any(
            model.looks or set(model.configurations) != {self.options.configuration} for model in self.models
        ):
            models, options = self.given
            return models, (), options
        parts = [(path, model.name) for model in self.models for path in model.paths]
        return tuple(path for path, _name in parts), tuple(name for _path, name in parts), self.options


def choose(models: Sequence[str | Path], options: Options) -> Choice:
    """Find the models of one segmentation, and complete its options.

    :raises ClassScaleError: as :func:`chosen_models` and :func:`~.defaults.completed`.
    """
    whole = completed(models, options)
    chosen = chosen_models(models, whole)
    coarse = {model.looks.locate_with: None for model in chosen if model.looks is not None}
    if whole.locate_with not in (None, WHOLE_IMAGE):
        coarse = dict.fromkeys(map(str, resolve_model(str(whole.locate_with))))
    return Choice(chosen, tuple(summarize(str(path)) for path in coarse), whole, (tuple(models), options))


class Parts(Protocol):
    """A model of a segmentation, wherever it comes from: its name, and what its parts are."""

    @property
    def name(self) -> str: ...

    @property
    def summaries(self) -> tuple[ModelSummary, ...]: ...


def parts_of(models: Sequence[Parts]) -> list[tuple[str, ModelSummary]]:
    """Return each part of the models of one segmentation, behind the name that tells its model apart."""
    names = different_names(model.name for model in models)
    return [(name, summary) for name, model in zip(names, models, strict=True) for summary in model.summaries]


def classes_of(parts: Sequence[tuple[str, ModelSummary]]) -> CommonClasses:
    """Return the classes of all parts, as of :func:`parts_of`, in one table.

    :raises LabelTableError: if there are more than 65535 classes.
    """
    return common_classes([summary.table for _name, summary in parts], [name for name, _summary in parts])


def different_names(names: Iterable[str]) -> list[str]:
    """Return names that differ: one that an earlier model has gets a number.

    >>> different_names(["Liver", "Liver", "Liver 2"])
    ['Liver', 'Liver 2', 'Liver 2 2']
    """
    taken: list[str] = []
    for name in names:
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name} {number}"
        taken.append(free)
    return taken


def _together(several: Iterable[Options]) -> dict[str | None, Options]:
    """Unite options with the same coarse model, so that it has to run only once; return them by that model."""
    united: dict[str | None, Options] = {}
    for one in several:
        other = united.setdefault(one.locate_with, one)
        classes = tuple(dict.fromkeys((*(other.locate_classes or ()), *(one.locate_classes or ()))))
        margin = max(one.locate_margin, other.locate_margin)
        united[one.locate_with] = replace(one, locate_classes=classes, locate_margin=margin)
    return united


def _looks(entry: Entry | None, options: Options, catalog: Catalog) -> Options | None:
    if options.locate_with is not None or entry is None or entry.locate_with is None:
        return None
    located = locating_options({entry.name: entry.locate_with}, options, catalog)
    (path,) = catalog.paths(catalog.find(located.locate_with or ""))
    return replace(located, locate_with=str(path))
