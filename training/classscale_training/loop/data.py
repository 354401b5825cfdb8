"""The training data of the bare loop: toy volumes or synthesised heads, behind one interface, and in batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import torch
from ClassScaleSegLib.errors import ClassScaleError, reason
from torch.utils.data import DataLoader, Dataset

from ..data.brain import BrainCases
from ..data.toy.cases import ToyCases
from ..loss.label_sets import LabelSets
from .options import BRAIN, TOY, LoopOptions


@dataclass(frozen=True)
class LoopData:
    """Cases by index, and the facts about them that a model folder states. A case depends on its index alone.
    In dataset 0 each class has its own label.
    """

    dataset_name: str  # in nnU-Net's plans
    channel: str
    names: dict[int, str]  # of each class, including the background
    patch: tuple[int, int, int]
    spacing: float  # mm
    cases: Dataset  # the cases to train on, as `case` returns them, or without the dataset if there is only one
    unseen: Callable[[int], tuple[torch.Tensor, torch.Tensor]]  # cases of dataset 0 that training never sees
    label_sets: LabelSets | None = None  # of the datasets that cases belong to
    shares: torch.Tensor | None = None  # (C,), of each class in the voxels of a patch, where classes differ in size
    made_from: Mapping[str, str] = field(default_factory=dict)  # digests of what cases are made from, by what it is

    def case(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return image ``(1, *patch)`` float32, labels ``patch`` (-1: ignored) and dataset of a training case."""
        image, labels, *dataset = self.cases[index]
        return image, labels, dataset[0] if dataset else 0


def open_data(options: LoopOptions, device: torch.device | str) -> LoopData:
    """Return the data that ``options.data`` names.

    :param device: where cases are computed.
    :raises ClassScaleError: if ``options.data`` names a file that cannot be read.
    """
    count = options.steps * options.batch
    if options.data == TOY:
        toy = options.toy
        unseen = ToyCases(replace(toy, seed=toy.seed + 1), options.evaluation_cases, device)
        facts = toy.dataset_name, "toy", toy.names, (toy.size,) * 3, toy.spacing
        return LoopData(*facts, ToyCases(toy, count, device), unseen.__getitem__)
    heads = BrainCases.read(Path(options.data.removeprefix(BRAIN)), options.brain, count, device)
    tables, brain = heads.tables, options.brain
    facts = f"HeadMR{len(tables.names)}", "MR", tables.names, brain.patch, brain.spacing
    return LoopData(*facts, heads, heads.unseen_patch, tables.label_sets, heads.shares(), heads.made_from())


Batch = tuple[torch.Tensor, torch.Tensor, list[int]]


@dataclass(frozen=True)
class _Steps(Dataset):
    """The batches of the steps ``start`` to ``end - 1``; batch 0 is that of step ``start``."""

    data: LoopData
    batch: int
    start: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.start)

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        first = (self.start + number) * self.batch
        cases = sorted((self.data.case(first + n) for n in range(self.batch)), key=lambda case: case[2])
        images, labels, datasets = zip(*cases, strict=True)
        return torch.stack(images), torch.stack(labels), list(datasets)


def batches(options: LoopOptions, start: int, data: LoopData, device: torch.device) -> Generator[Batch, None, None]:
    """Yield images ``(B, 1, X, Y, Z)``, labels ``(B, X, Y, Z)`` and datasets, ascending, of each remaining step.

    A thread, or several processes, make batches ahead of time. The processes need ``data`` on the CPU.

    :param start: the first step.
    :param device: where the batches are moved to.
    :raises ClassScaleError: if one of the processes dies.
    """
    steps = _Steps(data, options.batch, start, options.steps)
    if not len(steps):
        return
    ahead = _by_processes(steps, options, device) if options.workers else _by_thread(steps, options.prefetch)
    pinned = device.type == "cuda"  # elsewhere the copy must be complete before the next batch overwrites it
    for images, labels, datasets in ahead:
        yield images.to(device, non_blocking=pinned), labels.to(device, non_blocking=pinned), datasets


def _by_processes(steps: _Steps, options: LoopOptions, device: torch.device) -> Iterator[Batch]:
    workers, ahead = min(options.workers, os.cpu_count() or 1), max(1, options.prefetch)
    loader = DataLoader(steps, None, num_workers=workers, prefetch_factor=ahead, pin_memory=device.type == "cuda")
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ClassScaleError(
            f"A process that makes volumes ended ({reason(error)}): there may be too little memory, or "
            "too little shared memory (/dev/shm, which containers limit). Run the command again with fewer --workers "
            "or a smaller --prefetch."
        ) from error


def _by_thread(steps: _Steps, prefetch: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(1) as thread:
        coming = (thread.submit(steps.__getitem__, number) for number in range(len(steps)))
        waiting = deque(islice(coming, prefetch + 1))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(islice(coming, 1))
