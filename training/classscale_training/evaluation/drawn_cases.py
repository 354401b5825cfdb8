"""How well models know the structures of cases that are drawn: each model segments them, and is compared with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError, OutputError
from ClassScaleSegLib.images.comparison import ClassComparison, Comparison, class_keys, compare
from ClassScaleSegLib.images.comparison_summary import GatheredCases
from ClassScaleSegLib.images.paired_cases import Pair
from ClassScaleSegLib.images.paired_reading import read_pair
from ClassScaleSegLib.images.several_comparisons import facts_of_several
from ClassScaleSegLib.labels.table import LabelTable

from ..data.collect.cases import Case
from .model_results import Candidate, ModelResults


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
        self.names, self.faults = list(names), list[str]()
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
            self.faults.append(str(error))
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
    overwrite: bool = False,
    on_case: Callable[[int, int, str], None] = lambda done, total, what: None,
    tell: Callable[[str], None] = print,
) -> Comparisons:
    """Segment cases with each model, and compare what it finds with what is drawn.

    :param results: folder for what they find: a folder for each model, by its number and name. What is there already of
        the same model and image is used.
    :param table: names of the labels of the segmentations, instead of their own.
    :param overwrite: replace what is there and was not made by a model, or was changed since.
    :param on_case: called before each segmentation with the number of those that are done, of all, and what it is.
    :param tell: called with sentences on single cases.
    :raises ModelError: if a model cannot be used.
    :raises OutputError: if a result cannot be written.
    """
    compared, left = Comparisons([model.name for model in models]), list(cases)
    kept = [
        ModelResults(model, results / f"{number}-{_file_name(model.name)}", overwrite)
        for number, model in enumerate(models, 1)
    ]
    for own in kept:
        own.tidy()
    todo = [[case for case in cases if not own.has(case)] for own in kept]
    total = len(models) * len(cases)
    if there := total - sum(map(len, todo)):
        tell(f"Of {total} segmentations, {there} {'is' if there == 1 else 'are'} there already.")
    for own in [own for own, wanted in zip(kept, todo, strict=True) if wanted][1:]:
        own.check_weights()  # not only after the first model has segmented for hours
    for own, wanted in zip(kept, todo, strict=True):
        if not wanted:
            continue
        with own.segmenting() as segment:
            while wanted:
                case = wanted[0]
                on_case(total - sum(map(len, todo)), total, f"{own.candidate.name}: {case.name}")
                try:
                    segment(case)
                except OutputError:
                    raise  # the next result could not be written either
                except ClassScaleError as error:
                    compared.faults.append(str(error))
                    tell(str(error))
                    left.remove(case)
                    for each in todo:  # it counts for no model
                        each[:] = [other for other in each if other != case]
                else:
                    wanted.remove(case)
        del segment  # which has the network, before the next one is opened
    for case in left:
        compared.add(case, [own.file(case) for own in kept], table, tell)
    return compared


def _file_name(name: str) -> str:
    """Return the name of a model as that of a folder.

    >>> _file_name("Brain: 1/2 mm")
    'Brain-1-2-mm'
    """
    return "-".join("".join(letter if letter.isalnum() or letter in "_." else " " for letter in name).split())[:60]
