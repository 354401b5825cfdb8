"""How well models know the structures of cases that are drawn: each model segments them, and is compared with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ClassScaleSegLib.catalog.chosen import chosen_models
from ClassScaleSegLib.commands.job_models import JobModels, completed_job, find_models
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.comparison import ClassComparison, Comparison, class_keys, compare
from ClassScaleSegLib.images.comparison_summary import GatheredCases
from ClassScaleSegLib.images.paired_cases import Pair
from ClassScaleSegLib.images.paired_reading import read_pair
from ClassScaleSegLib.images.several_comparisons import facts_of_several
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.process.job import Job

from ..data.collect.cases import Case


@dataclass(frozen=True)
class Candidate:
    """A model that is compared.

    :ivar model: as the user names it.
    :ivar name: of the model, different from those of the others.
    :ivar device: as of :class:`~ClassScaleSegLib.Options`.
    """

    model: str
    name: str
    device: str = "auto"

    def found(self) -> JobModels:
        """Return the model, or the models of which it consists, without weights.

        :raises ModelError: if it does not exist, or cannot be used.
        """
        return find_models(completed_job(Job((), self.model, "", options=Options(device=self.device))))


def candidates(models: Sequence[str], names: Sequence[str] | None, device: str) -> list[Candidate]:
    """Return the models to compare, by their own names if none are given.

    :raises ClassScaleError: if there are more or fewer names than models, or two are the same.
    :raises ModelError: if a model is unknown, or cannot be used.
    """
    if names is None:
        own = [chosen_models([model])[0].name for model in models]
        names = [name if own.count(name) == 1 else f"{name} ({model})" for name, model in zip(own, models, strict=True)]
    if len(names) != len(models) or len(set(names)) < len(names):
        raise ClassScaleError(
            f"{len(models)} models have the names {', '.join(names)}. Name each model once, and give each a name of "
            "its own (--names)."
        )
    return [Candidate(model, name, device) for model, name in zip(models, names, strict=True)]


def common_channels(models: Sequence[Candidate]) -> int:
    """Return how many images of each case the models take.

    :raises ClassScaleError: if one takes more than another.
    :raises ModelError: if one cannot be used.
    """
    counts = {model.name: model.found().channels for model in models}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ClassScaleError(f"The models take different numbers of images of a case: {each}. Compare others.")
    return next(iter(counts.values()))


def without_common_classes(models: Sequence[Candidate]) -> list[tuple[str, str]]:
    """Return the names of the models that have no class in common, two by two.

    :raises ModelError: if one cannot be used.
    """
    keys = {model.name: class_keys(model.found().table.foreground).keys() for model in models}
    return [(first, second) for first, second in combinations(keys, 2) if not keys[first] & keys[second]]


class Comparisons:
    """The comparisons of all models with the same cases.

    :ivar names: of the models.
    :ivar faults: what went wrong with single cases, which count for no model.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.faults = list(names), list[ClassScaleError]()
        self._gathered = [GatheredCases() for _ in names]

    @property
    def rows(self) -> list[dict[str, list[ClassComparison]]]:
        """Of each model the rows of each case."""
        return [gathers.found().rows for gathers in self._gathered]

    def facts(self) -> dict[str, Any]:
        """Return all figures, as for JSON; lists have an item for each model."""
        rows = self.rows
        return {"names": self.names, "cases": list(rows[0]), **facts_of_several(rows)}

    def add(self, case: Case, files: Sequence[Path], table: LabelTable | None, tell: Callable[[str], None]) -> None:
        """Compare a case with what each model has found in it.

        :param files: segmentations by the models.
        :param table: names of its labels, instead of its own.
        :param tell: called with sentences on how it was read.
        """
        compared, notices = list[Comparison](), dict[str, None]()
        try:
            for file in files:  # one in memory after the other
                pair = read_pair(Pair(case.name, case.segmentation, file), (table, None), case.images[0])
                compared.append(compare(pair.reference, pair.other))
                notices |= dict.fromkeys(pair.notices)
        except ClassScaleError as error:
            self.faults.append(error)
            tell(str(error))
            return
        for notice in notices:
            tell(notice)
        for gathers, comparison in zip(self._gathered, compared, strict=True):
            gathers.add(case.name, comparison)


def compare_models(
    models: Sequence[Candidate],
    cases: Sequence[Case],
    results: Path,
    table: LabelTable | None = None,
    on_case: Callable[[int, int, str], None] = lambda done, total, what: None,
    tell: Callable[[str], None] = print,
) -> Comparisons:
    """Segment cases with each model, and compare what it finds with what is drawn.

    :param results: folder for what they find: a folder for each model, by its number and name.
    :param table: names of the labels of the segmentations, instead of their own.
    :param on_case: called before each segmentation with the number of those that are done, of all, and what it is.
    :param tell: called with sentences on single cases.
    :raises ModelError: if a model cannot be used.
    :raises OutputError: if a result cannot be written.
    """
    total, names = len(models) * len(cases), [model.name for model in models]
    compared, left = Comparisons(names), list(cases)
    folders = [results / f"{number}-{_file_name(name)}" for number, name in enumerate(names, 1)]
    for number, (model, folder) in enumerate(zip(models, folders, strict=True)):
        run = model.found().run
        for index, case in enumerate(list(left)):
            on_case(number * len(cases) + index, total, f"{model.name}: {case.name}")
            images = case.images[0] if len(case.images) == 1 else [*case.images]
            try:
                found = run(images)
            except ClassScaleError as error:
                compared.faults.append(error)
                tell(str(error))
                left.remove(case)
                continue
            found.write(folder / f"{case.name}.seg.nrrd", overwrite=True, keep_empty=True)
        del run  # before the next one is opened
    for case in left:
        compared.add(case, [folder / f"{case.name}.seg.nrrd" for folder in folders], table, tell)
    return compared


def _file_name(name: str) -> str:
    """Return the name of a model as that of a folder.

    >>> _file_name("Brain: 1/2 mm")
    'Brain-1-2-mm'
    """
    return "-".join("".join(letter if letter.isalnum() or letter in "_." else " " for letter in name).split())[:60]
