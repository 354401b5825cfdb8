"""Draw the cases of a merged dataset: each source by its share, and patches with foreground by their labels.

nnU-Net draws every case equally often, and centres a third of all patches on a label that the case happens to have.
With hundreds of labels in datasets of unlike sizes, a small dataset is then hardly seen, and even less a label that few
cases have. Here a source is drawn first, by its share. For a patch with foreground, one of the labels that occur in the
source is drawn next, then one of the cases that have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock_trainer

from ..data.merged_labels import Merged

_SHOWN = 5  # names in a line
Item = TypeVar("Item")


class CaseSampler:
    """Draws cases, by NumPy's global random numbers, which nnU-Net seeds in each of its processes.

    :param merged: the sources and their shares. A source without cases is left out.
    :param labels: the foreground label values that occur in each case.

    >>> from classscale_training.data.merged_labels import SourceDataset
    >>> merged = Merged(("background", "a", "b"), (), None, (
    ...     SourceDataset("Dataset001_A", "d001_", 1.0, {0: (0, 2), 1: (1,)}),
    ...     SourceDataset("Dataset002_B", "d002_", 3.0, {0: (0, 1), 2: (2,)})))
    >>> sampler = CaseSampler(merged, {"d001_x": [1], "d002_y": [], "d002_z": [2]})
    >>> sampler.probabilities.tolist()
    [0.25, 0.75]
    >>> {sampler.case_with_label() for _ in range(100)} == {("d001_x", 1), ("d002_z", 2)}
    True
    """

    def __init__(self, merged: Merged, labels: Mapping[str, Sequence[int]]) -> None:
        cases: dict[int, list[str]] = {}
        self._with_label: dict[int, dict[int, list[str]]] = {}
        for case, values in labels.items():
            index = merged.dataset_of(case)
            cases.setdefault(index, []).append(case)
            for value in values:
                self._with_label.setdefault(index, {}).setdefault(value, []).append(case)
        self._merged, self._datasets, self._cases = merged, list(cases), cases
        shares = np.array([merged.datasets[index].share for index in self._datasets])
        self.probabilities = shares / shares.sum()

    def describe(self) -> Iterator[str]:
        """Yield a line for each dataset: how often it is drawn, and which labels none of its cases has."""
        for index, source in enumerate(self._merged.datasets):
            if index not in self._cases:
                yield f"{source.name} has no case here: its labels are not learned."
                continue
            share = self.probabilities[self._datasets.index(index)]
            missing = [value for value in source.labels if value and value not in self._with_label.get(index, {})]
            names = [*self._merged.names, *self._merged.sets]
            more = f"; no case has {_listed([names[value] for value in missing])}" if missing else ""
            yield f"{source.name}: {len(self._cases[index])} cases, drawn with probability {share:.3f}{more}."

    def case(self) -> str:
        """Draw a case."""
        return _one_of(self._cases[self._dataset()])

    def case_with_label(self) -> tuple[str, int | None]:
        """Draw a case and one of its labels; ``None`` if no case of the drawn source has a label."""
        index = self._dataset()
        if index not in self._with_label:
            return _one_of(self._cases[index]), None
        with_label = self._with_label[index]
        value = _one_of(list(with_label))
        return _one_of(with_label[value]), value

    def _dataset(self) -> int:
        return self._datasets[np.random.choice(len(self._datasets), p=self.probabilities)]


def _one_of(items: Sequence[Item]) -> Item:
    return items[np.random.randint(len(items))]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"


class MergedDataLoader(nnUNetDataLoader):
    """nnU-Net's loader with the cases and labels of a :class:`CaseSampler`.

    :param merged: what the label maps hold.
    :param index: of :func:`.label_index`, for all cases that may be drawn.
    :param arguments: of nnU-Net's loader.
    """

    get_do_oversample: Callable[[int], bool]  # set by nnU-Net's loader

    def __init__(
        self, merged: Merged, index: Mapping[str, Sequence[int]], data: Any, *arguments: Any, **options: Any
    ) -> None:
        super().__init__(data, *arguments, **options)
        self._sampler = CaseSampler(merged, {case: index[case] for case in data.identifiers})
        # nnU-Net looks up by this key where the voxels are that are not ignored
        self.annotated_classes_key = (-1, *range(len(merged.names) + len(merged.sets)))
        self._decide = self.get_do_oversample
        self.get_do_oversample = self._was_decided
        self._forced: list[bool] = []
        self._labels: deque[int | None] = deque()

    def get_indices(self) -> list[str]:
        """Draw the cases of a batch, and for its patches with foreground the labels."""
        self._forced = [bool(self._decide(number)) for number in range(self.batch_size)]
        drawn = [self._sampler.case_with_label() if forced else (self._sampler.case(), None) for forced in self._forced]
        self._labels = deque(label for _, label in drawn)
        return [case for case, _ in drawn]

    def _was_decided(self, number: int) -> bool:
        return self._forced[number]

    def get_bbox(
        self, data_shape: np.ndarray, force_fg: bool, class_locations: dict, *arguments: Any, **options: Any
    ) -> Any:
        """Return the lower and upper corner of a patch, as nnU-Net does, but around the label that was drawn."""
        label = self._labels.popleft()
        return super().get_bbox(data_shape, force_fg, class_locations, label, **options)


@contextmanager
def drawn_by_share(merged: Merged, index: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Let nnU-Net's trainer, which names its own loader, use a :class:`MergedDataLoader` while the context lasts."""
    stock = stock_trainer.nnUNetDataLoader
    stock_trainer.nnUNetDataLoader = partial(MergedDataLoader, merged, index)
    try:
        yield
    finally:
        stock_trainer.nnUNetDataLoader = stock
