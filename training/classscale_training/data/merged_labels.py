"""What the ``dataset.json`` of a merged dataset says: which labels of which dataset stand for which classes.

``classscaleseg-train merge`` makes such datasets. Their ``labels`` are, in this order, the background and the C - 1
other classes, the labels that stand for several classes, and "ignore" if there is one. nnU-Net takes all of them for
classes. The entry ``classscale_merged``, which nnU-Net does not read, adds what it cannot know::

    {"classes": C,
     "datasets": [{"name": "Dataset291_Mouse", "prefix": "d291_", "share": 2.2, "labels": {"0": [0, 3], "9": [1, 2]}}]}

A case belongs to the dataset whose prefix its name begins with. ``labels`` are those of the dataset's label maps, each
with the classes that it stands for. A class under no label does not occur in the images of the dataset.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ClassScaleSegLib.errors import LabelTableError

from .dataset_json import HIGHEST

if TYPE_CHECKING:
    from ..loss.label_sets import LabelSets

ENTRY = "classscale_merged"
MERGED_FROM = "classscale_merged_from"  # in the dataset.json of a network: names of the datasets by their prefixes
IGNORED = -1  # in Merged.label_of_value


@dataclass(frozen=True)
class SourceDataset:
    """One of the datasets that were merged.

    :ivar name: of its raw dataset, such as ``Dataset291_Mouse``.
    :ivar prefix: with which the names of its cases begin.
    :ivar share: how often its cases are drawn in training, in proportion to the shares of the others.
    :ivar labels: the classes of each label value that its label maps may hold, in ascending order of the values.
    """

    name: str
    prefix: str
    share: float
    labels: Mapping[int, tuple[int, ...]]

    def absent(self, classes: int) -> tuple[int, ...]:
        """Return the classes that do not occur in its images."""
        named = {number for members in self.labels.values() for number in members}
        return tuple(number for number in range(classes) if number not in named)


@dataclass(frozen=True)
class Merged:
    """The datasets of a merged dataset, over C classes.

    :ivar names: of the C classes, the background first.
    :ivar sets: names of the label values from C on, which stand for several classes.
    :ivar ignore: the label of voxels that do not count; ``None`` if there is none.
    :ivar datasets: in the order of the command that merged them.

    >>> merged = Merged.of({
    ...     "labels": {"background": 0, "left": 1, "right": 2, "kidney": 3},
    ...     "classscale_merged": {"classes": 3, "datasets": [
    ...         {"name": "Dataset001_A", "prefix": "d001_", "share": 1, "labels": {"0": [0], "1": [1], "2": [2]}},
    ...         {"name": "Dataset002_B", "prefix": "d002_", "share": 1, "labels": {"0": [0], "3": [1, 2]}}]}})
    >>> merged.names, merged.sets, merged.dataset_of("d002_case_7")
    (('background', 'left', 'right'), ('kidney',), 1)
    >>> merged.label_of_value.tolist()  # value 3, the kidney, is label 1 of the second dataset, and none of the first
    [[0, 1, 2, 4], [0, 3, 3, 1]]
    """

    names: tuple[str, ...]
    sets: tuple[str, ...]
    ignore: int | None
    datasets: tuple[SourceDataset, ...]

    @classmethod
    def of(cls, dataset_json: Mapping[str, Any]) -> Merged | None:
        """Read the entry of a ``dataset.json``.

        :param dataset_json: its content, with label values as whole numbers.
        :returns: ``None`` if it is not of a merged dataset.
        :raises LabelTableError: if the entry cannot be used.
        """
        if ENTRY not in dataset_json:
            return None
        try:
            return cls._of(dataset_json["labels"], dataset_json[ENTRY])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LabelTableError(
                f"The entry {ENTRY} of dataset.json cannot be used ({type(error).__name__}: {error}). Merge the "
                "datasets again."
            ) from error

    @classmethod
    def _of(cls, labels: Mapping[str, int], entry: Mapping[str, Any]) -> Merged:
        number, ignore = int(entry["classes"]), labels.get("ignore")
        ordered = sorted((value, name) for name, value in labels.items() if name != "ignore")
        if [value for value, _ in ordered] != list(range(len(ordered))) or not 2 <= number <= len(ordered):
            raise ValueError(f"{number} classes, and labels that are not 0, 1, 2 ...")
        if ignore is not None and ignore != len(ordered):
            raise ValueError(f"ignore is {ignore}, not {len(ordered)}")
        if len(ordered) + (ignore is not None) - 1 > HIGHEST:
            raise ValueError(f"a label above {HIGHEST}, which nnU-Net cannot hold")
        names = tuple(name for _, name in ordered)
        datasets = []
        for source in entry["datasets"]:
            of_label = {int(value): tuple(map(int, members)) for value, members in source["labels"].items()}
            every = [member for members in of_label.values() for member in members]
            if 0 not in of_label or not all(of_label.values()) or len(set(every)) < len(every):
                raise ValueError(f"in {source['name']} labels without a class, or with the same class")
            if 0 not in of_label[0]:
                raise ValueError(f"in {source['name']} class 0 under another label than 0")
            if min(every) < 0 or max(every) >= number or max(of_label) >= len(names):
                raise ValueError(f"in {source['name']} labels or classes that do not exist")
            if not 0 < float(source["share"]) < math.inf or not source["prefix"]:
                raise ValueError(f"in {source['name']} no prefix, or a share that is not positive")
            ascending = dict(sorted(of_label.items()))
            datasets.append(
                SourceDataset(str(source["name"]), str(source["prefix"]), float(source["share"]), ascending)
            )
        pairs = itertools.permutations(datasets, 2)
        if not datasets or any(one.prefix.startswith(other.prefix) for one, other in pairs):
            raise ValueError("no datasets, or a prefix that begins with another")
        return cls(names[:number], names[number:], ignore, tuple(datasets))

    def entry(self) -> dict[str, Any]:
        """Return what ``dataset.json`` has under :data:`ENTRY`."""
        datasets = [
            {
                "name": source.name,
                "prefix": source.prefix,
                "share": source.share,
                "labels": {str(value): list(members) for value, members in source.labels.items()},
            }
            for source in self.datasets
        ]
        return {"classes": len(self.names), "datasets": datasets}

    def meanings(self) -> list[Any]:
        """Return what the values in label maps depend on: names, and the classes of each label. JSON can hold it."""
        of_dataset = [
            [source.prefix, [[value, list(members)] for value, members in source.labels.items()]]
            for source in self.datasets
        ]
        return [list(self.names), list(self.sets), self.ignore, of_dataset]

    def labels(self) -> dict[str, int]:
        """Return the ``labels`` of ``dataset.json``."""
        labels = {name: value for value, name in enumerate((*self.names, *self.sets))}
        return labels if self.ignore is None else {**labels, "ignore": self.ignore}

    def dataset_of(self, case: str) -> int:
        """Return the index of the dataset that a case belongs to.

        :raises LabelTableError: if its name begins with no prefix.
        """
        for index, source in enumerate(self.datasets):
            if case.startswith(source.prefix):
                return index
        prefixes = ", ".join(source.prefix for source in self.datasets)
        raise LabelTableError(
            f"The case {case} belongs to none of the merged datasets: its name begins with none of {prefixes}. Merge "
            "the datasets again."
        )

    @property
    def label_of_value(self) -> np.ndarray:
        """``(D, V)`` int64: the label of dataset d, counted from 0, for each value in its label maps.

        Values that do not belong to the dataset have a number above all of its labels, and those to be ignored -1. The
        label after the last one is left free, for the classes that are absent.
        """
        values = len(self.names) + len(self.sets) + (self.ignore is not None)
        table = np.empty((len(self.datasets), values), np.int64)
        for row, source in zip(table, self.datasets, strict=True):
            row[:] = len(source.labels) + 1
            row[list(source.labels)] = range(len(source.labels))
        if self.ignore is not None:
            table[:, self.ignore] = IGNORED
        return table

    @property
    def value_of_class(self) -> np.ndarray:
        """``(D, C)`` int64: the value that a class has in the label maps of dataset d.

        Classes that do not occur there have the number of all label values, ignored ones included.
        """
        values = len(self.names) + len(self.sets) + (self.ignore is not None)
        table = np.full((len(self.datasets), len(self.names)), values)
        for row, source in zip(table, self.datasets, strict=True):
            for value, members in source.labels.items():
                row[list(members)] = value
        return table

    @property
    def label_sets(self) -> LabelSets:
        """The tables for the loss, with labels counted from 0 in each dataset, as in :attr:`label_of_value`."""
        from ..loss.label_sets import LabelSets  # imports torch

        numbered = [dict(enumerate(source.labels.values())) for source in self.datasets]
        count = len(self.names)
        return LabelSets.from_classes(count, numbered, [source.absent(count) for source in self.datasets])
