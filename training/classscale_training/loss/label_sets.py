"""Train one network on several datasets with different label lists: each label stands for a set of classes.

The classes are those of all datasets together. The label "thalamus" of one dataset is the set of thalamic nuclei that
another dataset annotates, and "background" is the set of all classes that a dataset does not annotate. Within one
dataset, every class belongs to exactly one label. The cross entropy of a label is marginal over its set
(:mod:`.class_statistics`), and the Dice of a label is computed from the summed probability of its set.

Batch Dice pools over samples, so it has to know which labels of different datasets mean the same. These are the labels
with the same set of classes. :meth:`LabelSets.pool` adds the sums of each sample to these distinct sets.
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
    """Tables of D datasets over C classes, with at most L labels in a dataset and S distinct sets in all.

    :ivar label_of_class: ``(D, C)`` int64, the label under which dataset d annotates class c. Classes that do not occur
        in a dataset have the number after its last label, which no voxel has.
    :ivar set_of_label: ``(D, L)`` int64, the index of the label's distinct set; S where dataset d has no such label,
        and for classes that do not occur.
    :ivar is_background: ``(D, S)`` bool, whether set s is label 0 of dataset d.

    Dataset 0 annotates the classes 1 to 3 separately. Dataset 1 annotates classes 2 and 3 as one label:

    >>> sets = LabelSets.from_classes(4, [{1: [1], 2: [2], 3: [3]}, {1: [1], 2: [2, 3]}])
    >>> sets.label_of_class.tolist()
    [[0, 1, 2, 3], [0, 1, 2, 2]]

    Label 1 is the same set in both datasets, label 2 is not; dataset 1 has no label 3. There are five distinct sets:

    >>> sets.set_of_label.tolist()
    [[0, 1, 2, 3], [0, 1, 4, 5]]
    """

    label_of_class: torch.Tensor
    set_of_label: torch.Tensor
    is_background: torch.Tensor

    @classmethod
    def from_classes(
        cls,
        classes: int,
        datasets: Sequence[Mapping[int, Iterable[int]]],
        absent: Sequence[Iterable[int]] | None = None,
    ) -> LabelSets:
        """Build the tables from the classes of each label.

        :param classes: number of classes C, class 0 included.
        :param datasets: ``{label: classes}`` of each dataset. If label 0 is left out, it stands for all classes that
            the dataset does not name.
        :param absent: the classes of each dataset that do not occur in its images. They are under no label: predicting
            them costs cross entropy, and they take no part in the Dice.
        :raises ValueError: naming the dataset and label, if labels are not 0..L-1, or a class is missing, unknown or
            under two labels.

        Dataset 1 has no class 2:

        >>> sets = LabelSets.from_classes(3, [{1: [1], 2: [2]}, {0: [0], 1: [1]}], absent=[[], [2]])
        >>> sets.label_of_class.tolist(), sets.set_of_label.tolist()
        ([[0, 1, 2], [0, 1, 2]], [[0, 1, 2], [0, 1, 3]])
        """
        left_out = [sorted(set(numbers)) for numbers in absent or [()] * len(datasets)]
        rows = [
            _labels_of_classes(index, classes, {**table, max([0, *table]) + 1: out} if out else table)
            for index, (table, out) in enumerate(zip(datasets, left_out, strict=True))
        ]
        label_of_class = torch.tensor(rows)
        labels = int(label_of_class.max()) + 1
        distinct: dict[tuple[int, ...], int] = {}
        set_of_label = torch.full((len(rows), labels), -1)
        for d, row in enumerate(rows):
            for label in range(max(row) + (0 if left_out[d] else 1)):
                members = tuple(c for c in range(classes) if row[c] == label)
                set_of_label[d, label] = distinct.setdefault(members, len(distinct))
        is_background = torch.nn.functional.one_hot(set_of_label[:, 0], len(distinct)).bool()
        return cls(label_of_class, torch.where(set_of_label < 0, len(distinct), set_of_label), is_background)

    @classmethod
    def read(cls, path: str | Path) -> LabelSets:
        """Read the tables from a JSON file.

        :param path: file with ``{"classes": [names], "datasets": [{"1": [names], ...}, ...]}``; label 0 is optional.
        :raises ValueError: naming the file and the fault.
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
                f"{path} has no {missing}: expected the entries 'classes' and 'datasets', and in 'datasets' only names "
                "from 'classes'."
            ) from None
        except (ValueError, AttributeError, TypeError, RecursionError) as fault:
            raise ValueError(f"{path} is not a table of label sets: {fault}.") from None
        try:
            return cls.from_classes(len(number), tables)
        except ValueError as fault:
            raise ValueError(f"{path}: {fault}") from None

    def to(self, device: torch.device) -> LabelSets:
        """Return the same tables on ``device``."""
        return LabelSets(self.label_of_class.to(device), self.set_of_label.to(device), self.is_background.to(device))

    def pool(
        self, stats: ClassStatistics, datasets: torch.Tensor, do_bg: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Move the sums of each sample from the labels of its dataset to the distinct sets.

        :param stats: sums of B samples, computed with the label sets of ``datasets``.
        :param datasets: ``(B,)`` index of the dataset that each sample comes from.
        :param do_bg: whether a set takes part in the Dice of a sample in whose dataset it is label 0.
        :returns: I, P, G and takes_part (0 or 1), each ``(B, S)``. A set takes part in the Dice of a sample if it is a
            label of the sample's dataset, and ``do_bg`` does not exclude it.
        """
        takes_part = self.by_set(torch.ones_like(stats.reference), datasets)
        if not do_bg:
            takes_part = takes_part * ~self.is_background[datasets]
        # If a set does not take part for one sample, that sample must not add to the sums of the others.
        sums = (stats.intersection, stats.predicted, stats.reference)
        i, p, g = (self.by_set(s, datasets) * takes_part for s in sums)
        return i, p, g, takes_part

    def by_set(self, sums: torch.Tensor, datasets: torch.Tensor) -> torch.Tensor:
        """Move sums of each sample from the labels of its dataset ``(B, L)`` to the distinct sets ``(B, S)``.

        :param datasets: ``(B,)`` index of the dataset that each sample comes from.
        """
        columns, sets = self.set_of_label[datasets, : sums.shape[1]], self.is_background.shape[1]
        return sums.new_zeros(len(sums), sets + 1).scatter_add(1, columns, sums)[:, :-1]


def voxel_weights(shares: torch.Tensor, label_of_class: torch.Tensor, power: float) -> torch.Tensor:
    """Return weights of labels that give rare classes more weight, for ``label_weights`` of the loss.

    The weight of a class is ``share ^ -power``. The weight of a label is the mean over the voxels of its classes, so
    that on average a voxel has the same weight whether its dataset annotates its class or a set that includes it.

    :param shares: ``(C,)``, the share of all voxels that each class has.
    :param label_of_class: ``(D, C)``, as in :class:`LabelSets`.
    :param power: 0 gives every label the weight 1; 1 gives every class the same total weight.
    :returns: ``(D, L)``; labels that a dataset does not have get the weight 0.

    >>> import torch
    >>> voxel_weights(torch.tensor([0.64, 0.32, 0.04]), torch.tensor([[0, 1, 2], [0, 1, 1]]), 0.5)
    tensor([[1.2500, 1.7678, 5.0000],
            [1.2500, 2.1269, 0.0000]])
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
                    f"label {label} of dataset {dataset} names class {c}; the classes are 0..{classes - 1}."
                )
            if row.setdefault(c, label) != label:
                raise ValueError(
                    f"dataset {dataset} has class {c} under the labels {row[c]} and {label}; only one is allowed."
                )
    if 0 not in table:
        row = {c: row.get(c, 0) for c in range(classes)}
    unnamed = [c for c in range(classes) if c not in row]
    if unnamed:
        raise ValueError(
            f"dataset {dataset} has class {unnamed[0]} under no label; put the classes that it does not annotate under "
            "label 0, or leave label 0 out."
        )
    labels = sorted(set(row.values()) | set(table))
    if labels != sorted(set(row.values())) or labels != list(range(len(labels))):
        raise ValueError(f"dataset {dataset} has labels {labels}; expected 0..{len(labels) - 1}, each with a class.")
    return [row[c] for c in range(classes)]
