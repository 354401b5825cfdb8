"""What training on a merged dataset adds to nnU-Net's trainer: the loss, and the counts of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ClassScaleSegLib.models.projection import Projection

from ..data.merged_labels import ENTRY, IGNORED, MERGED_FROM, Merged
from ..evaluation.class_counts import label_counts
from ..loss.label_sets import LabelSets
from ..loss.losses import CrossEntropyDiceLoss, DeepSupervisionLoss
from ..loss.soft_dice import SoftDice

Output = tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]  # bases, projection, bias


class MergedLoss:
    """The loss of nnU-Net for labels that stand for sets of classes, each sample by the labels of its dataset.

    :ivar names: of the distinct sets that :meth:`counts` counts.
    :param merged: the datasets.
    :param dice: the soft Dice.
    :param ddp: whether the network is trained under DDP.
    """

    def __init__(self, merged: Merged, dice: SoftDice, ddp: bool) -> None:
        table = torch.from_numpy(merged.label_of_value)
        beyond = torch.full((len(table), 1), int(table.max()) + 1)  # of values above all: fits no dataset
        self._sets, self._table = merged.label_sets, torch.cat([table, beyond], 1)
        self.ignore = None if merged.ignore is None else IGNORED
        self.names = _names_of_sets(merged, self._sets)
        loss = CrossEntropyDiceLoss(dice, self.ignore, label_sets=self._sets)
        self._loss = DeepSupervisionLoss(loss, ddp=ddp)

    def __call__(self, output: Output, target: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss ``()``.

        :param output: of the network in training: bases, finest first, projection and bias.
        :param target: as :func:`with_datasets` makes it.
        """
        *scales, datasets = target
        labels = [self.labels(scale, datasets) for scale in scales]
        return self._loss(*output, labels, datasets=datasets)

    def labels(self, values: torch.Tensor, datasets: torch.Tensor) -> torch.Tensor:
        """Return the labels of each sample's dataset, counted from 0.

        :param values: label values of the merged dataset ``(B, ...)``; negative ones, beyond the image, are background.
        :param datasets: ``(B,)``.
        """
        table = self._table.to(values.device)
        chosen = zip(datasets.tolist(), values.long().clamp(0, table.shape[1] - 1), strict=True)
        return torch.stack([table[index][sample] for index, sample in chosen])

    def counts(self, output: Output, target: list[torch.Tensor]) -> np.ndarray:
        """Return hits, predicted and reference voxels ``(3, S)`` of the distinct sets at the finest scale.

        Sets that are the background of a dataset are left out. The others are those of ``names``, in that order.
        """
        bases, projection, bias = output
        datasets, sets = target[-1], self._sets.to(bases[0].device)
        head, rows = Projection(projection.float(), bias.float()), sets.label_of_class[datasets]
        found = label_counts(bases[0], head, self.labels(target[0], datasets), rows, self.ignore)
        by_set = torch.stack([sets.by_set(each, datasets).sum(0) for each in found])
        return by_set[:, ~sets.is_background.any(0)].cpu().numpy()


def _names_of_sets(merged: Merged, sets: LabelSets) -> tuple[str, ...]:
    """Return the names of the distinct sets, without those that are the background of a dataset."""
    names: dict[int, str] = {}
    for source, row in zip(merged.datasets, sets.set_of_label.tolist(), strict=True):
        for value, number in zip(source.labels, row, strict=False):
            names.setdefault(number, (*merged.names, *merged.sets)[value])
    kept = torch.nonzero(~sets.is_background.any(0)).flatten().tolist()
    return tuple(names[number] for number in kept)


def with_datasets(merged: Merged, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch of nnU-Net with the dataset of each case ``(B,)`` as the last entry of its target."""
    target = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    datasets = torch.tensor([merged.dataset_of(str(case)) for case in batch["keys"]])
    return {**batch, "target": [*target, datasets]}


def of_network(dataset_json: Mapping[str, Any], merged: Merged) -> dict[str, Any]:
    """Return the ``dataset.json`` of a network that is trained on a merged dataset: its labels are the classes.

    :data:`.MERGED_FROM` says what it was merged from.
    """
    labels = {name: value for value, name in enumerate(merged.names)}
    if merged.ignore is not None:
        labels["ignore"] = len(labels)
    kept = {key: value for key, value in dataset_json.items() if key != ENTRY}
    return {**kept, "labels": labels, MERGED_FROM: {source.prefix: source.name for source in merged.datasets}}
