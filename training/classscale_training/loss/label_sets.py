"""Several datasets with different label lists trained as one: each dataset's label is a set of classes of the union.

"thalamus" in one dataset is the set of its nuclei in another; "background" is everything that a dataset does not
annotate. Within one dataset the sets split the classes: every class belongs to exactly one label. The loss is marginal
over the set (:mod:`.class_statistics`), and the Dice of a label is that of the summed probability of its set.

Batch Dice pools over samples, so it needs to know which labels of different datasets mean the same: those with the same
set of classes. :meth:`LabelSets.pool` moves the sums of each sample from its dataset's labels to these distinct sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .class_statistics import ClassStatistics


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Tables of D datasets over C classes, with at most L labels each and S distinct sets in all; int64 and bool."""

    label_of_class: torch.Tensor  # (D, C): the label under which dataset d annotates class c
    set_of_label: torch.Tensor  # (D, L): index of the label's distinct set; S where dataset d has no such label
    is_background: torch.Tensor  # (D, S): whether set s is label 0 of dataset d

    @classmethod
    def from_classes(cls, classes: int, datasets: Sequence[Mapping[int, Iterable[int]]]) -> LabelSets:
        """Tables from ``{label: classes}`` of each dataset; a label 0 that is left out is every class not named.

        :raises ValueError: naming the dataset and label, if labels are not 0..L-1, or a class is missing, unknown or
            named twice.
        """
        rows = [_labels_of_classes(index, classes, table) for index, table in enumerate(datasets)]
        label_of_class = torch.tensor(rows)
        labels = int(label_of_class.max()) + 1
        distinct: dict[tuple[int, ...], int] = {}
        set_of_label = torch.full((len(rows), labels), -1)
        for d, row in enumerate(rows):
            for label in range(max(row) + 1):
                members = tuple(c for c in range(classes) if row[c] == label)
                set_of_label[d, label] = distinct.setdefault(members, len(distinct))
        is_background = torch.nn.functional.one_hot(set_of_label[:, 0], len(distinct)).bool()
        return cls(label_of_class, torch.where(set_of_label < 0, len(distinct), set_of_label), is_background)

    @classmethod
    def read(cls, path: str | Path) -> LabelSets:
        """Tables from JSON: ``{"classes": [names], "datasets": [{"1": [names], ...}, ...]}``, label 0 optional.

        :raises ValueError: naming the file and what does not fit.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            number = {name: index for index, name in enumerate(content["classes"])}
            tables = [
                {int(label): [number[name] for name in names] for label, names in table.items()}
                for table in content["datasets"]
            ]
        except KeyError as missing:
            raise ValueError(
                f"{path} has no {missing}: expected lists 'classes' and 'datasets', and only its classes."
            ) from None
        except (ValueError, AttributeError, TypeError) as fault:
            raise ValueError(f"{path} is not a table of label sets: {fault}.") from None
        try:
            return cls.from_classes(len(number), tables)
        except ValueError as fault:
            raise ValueError(f"{path}: {fault}") from None

    def to(self, device: torch.device) -> LabelSets:
        """The same tables on ``device``."""
        return LabelSets(self.label_of_class.to(device), self.set_of_label.to(device), self.is_background.to(device))

    def pool(self, stats: ClassStatistics, datasets: torch.Tensor, do_bg: bool) -> tuple[torch.Tensor, ...]:
        """I, P, G and takes_part (0 or 1), each ``(B, S)``, of samples from ``datasets`` (B,).

        A set takes part in the Dice of a sample if the sample's dataset has it, and not as label 0 unless ``do_bg``.
        """
        sets = self.is_background.shape[1]
        columns = self.set_of_label[datasets, : stats.reference.shape[1]]

        def moved(sums: torch.Tensor) -> torch.Tensor:
            return sums.new_zeros(len(sums), sets + 1).scatter_add(1, columns, sums)[:, :-1]

        takes_part = moved(torch.ones_like(stats.reference))
        if not do_bg:
            takes_part = takes_part * ~self.is_background[datasets]
        # A sample that leaves a set out must not add to what others pool under it.
        return *(moved(s) * takes_part for s in (stats.intersection, stats.predicted, stats.reference)), takes_part


def voxel_weights(shares: torch.Tensor, label_of_class: torch.Tensor, power: float) -> torch.Tensor:
    """Weights ``(D, L)`` of the labels of D datasets from the shares ``(C,)`` that the classes have of the voxels.

    A class has the weight ``share ^ -power``, a label the mean over the voxels of its classes, so that a voxel weighs
    the same on average whether its dataset names its class or only the set that the class belongs to.

    :param label_of_class: ``(D, C)``. Labels that a dataset does not have get the weight 0.
    """
    weight, labels = shares**-power, int(label_of_class.max()) + 1
    shape = len(label_of_class), labels
    mass = shares.new_zeros(shape).scatter_add(1, label_of_class, (shares * weight).expand(len(label_of_class), -1))
    total = shares.new_zeros(shape).scatter_add(1, label_of_class, shares.expand(len(label_of_class), -1))
    return mass / total.clamp_min(torch.finfo(total.dtype).tiny)


def _labels_of_classes(dataset: int, classes: int, table: Mapping[int, Iterable[int]]) -> list[int]:
    row: dict[int, int] = {}
    for label, members in table.items():
        for c in members:
            if not 0 <= c < classes:
                raise ValueError(
                    f"label {label} of dataset {dataset} names class {c}; there are classes 0..{classes - 1}."
                )
            if row.setdefault(c, label) != label:
                raise ValueError(
                    f"dataset {dataset} has class {c} under the labels {row[c]} and {label}; one is allowed."
                )
    if 0 not in table:
        row = {c: row.get(c, 0) for c in range(classes)}
    unnamed = [c for c in range(classes) if c not in row]
    if unnamed:
        raise ValueError(
            f"dataset {dataset} puts class {unnamed[0]} under no label; put what it does not annotate under 0."
        )
    labels = sorted(set(row.values()) | set(table))
    if labels != sorted(set(row.values())) or labels != list(range(len(labels))):
        raise ValueError(f"dataset {dataset} has labels {labels}; expected 0..{len(labels) - 1}, each with a class.")
    return [row[c] for c in range(classes)]
