"""Patches for pretraining, each of them determined by its number.

Patch number n is the same in every process, with any number of workers, and after a restart. A pretraining that was
stopped therefore goes on as if it had not been, and several processes together learn from the same patches as one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import DataLoader, Dataset

from .masking import random_visible


@dataclass(frozen=True)
class Cases:
    """Preprocessed cases of several folders as one of nnU-Net's datasets; only images and their borders are used.

    :ivar by_name: for each case nnU-Net's dataset, and the name of the case in it.
    """

    by_name: Mapping[str, tuple[Any, str]]

    @property
    def identifiers(self) -> list[str]:
        """The names of the cases."""
        return sorted(self.by_name)

    def load_case(self, name: str) -> tuple:
        """Return image, label map, None and properties, as nnU-Net's datasets do."""
        dataset, known_as = self.by_name[name]
        image, labels, _, properties = dataset.load_case(known_as)
        return image, labels, None, {"class_locations": None, **properties}


class MaskedPatches(Dataset):
    """Patches ``(C + 1, X, Y, Z)`` of cases: C channels of the image, and what is visible.

    :param cases: to draw from, all with the same probability.
    :param drawn: size of the patch that is cut out, in voxels; larger than ``patch``, so that it can be rotated.
    :param patch: size of the patch.
    :param transforms: nnU-Net's transforms.
    :param block: size of the blocks that are hidden, in voxels.
    :param ratio: share of the blocks that are hidden.
    :param seed: patches with another seed are others.
    """

    def __init__(
        self,
        cases: Cases,
        drawn: Sequence[int],
        patch: Sequence[int],
        transforms: Any,
        block: Sequence[int],
        ratio: float,
        seed: int,
    ) -> None:
        no_labels = SimpleNamespace(all_labels=[], has_ignore_label=False)
        self._loader = nnUNetDataLoader(cases, 1, drawn, patch, no_labels, transforms=transforms)
        self._patch, self._block, self._ratio, self._seed = patch, block, ratio, seed

    def __getitem__(self, number: int) -> torch.Tensor:
        state = np.random.SeedSequence([self._seed, number]).generate_state(2)
        with _random_state(int(state[0])):
            image = self._loader.generate_train_batch()["data"][0]
        generator = torch.Generator().manual_seed(int(state[1]))
        return torch.cat([image, random_visible(self._patch, self._block, self._ratio, generator)])


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seed every generator that nnU-Net draws from, and restore their states afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@dataclass(frozen=True)
class Share:
    """The numbers of the patches that one process learns from, batch by batch.

    :ivar first: number of the first batch.
    :ivar last: number of the last batch, plus 1.
    :ivar sizes: patches of a batch for each process.
    :ivar rank: number of this process.
    """

    first: int
    last: int
    sizes: Sequence[int]
    rank: int

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[int]]:
        before, own, whole = sum(self.sizes[: self.rank]), self.sizes[self.rank], sum(self.sizes)
        for batch in range(self.first, self.last):
            yield [batch * whole + before + index for index in range(own)]


def batches(patches: Dataset, share: Share, workers: int, pinned: bool) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches as nnU-Net's trainer takes them; the target is the same as the input.

    :param workers: number of processes that read and augment; with 0 this one does.
    :param pinned: whether batches go to a GPU.
    """
    more: dict[str, Any] = {"prefetch_factor": 3} if workers else {}
    for batch in DataLoader(patches, batch_sampler=share, num_workers=workers, pin_memory=pinned, **more):
        yield {"data": batch, "target": batch}
