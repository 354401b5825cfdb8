"""What the bare loop trains on: the toy volumes or synthesised heads, behind one small face."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from .anatomy import HeadCases
from .label_sets import LabelSets
from .loop_options import HEAD, LoopOptions
from .toy import ToyCases


class LoopData(Protocol):
    """Cases by index, each a pure function of it, and the facts that a model folder states about them."""

    dataset_name: str
    channel: str
    names: dict[int, str]  # of each class, background included
    patch: tuple[int, int, int]
    spacing: float  # mm
    label_sets: LabelSets | None  # of the datasets that cases belong to; dataset 0 has every class for itself
    shares: torch.Tensor | None  # (C,) of the voxels of a patch, where classes differ much in size

    def case(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Image ``(1, *patch)`` float32, labels ``patch`` (-1: ignored) and dataset of a case to train on."""

    def unseen(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image ``(1, Z, Y, X)`` and labels ``(Z, Y, X)`` of dataset 0, of a case never trained on."""


class ToyData:
    """:class:`LoopData` of :class:`~classscale_training.toy.ToyCases`."""

    label_sets = shares = None
    channel = "toy"

    def __init__(self, options: LoopOptions, device: torch.device) -> None:
        toy = options.toy
        self.dataset_name = f"Toy{toy.mode.capitalize()}{toy.classes}"
        self.names, self.patch, self.spacing = toy.names, (toy.size,) * 3, toy.spacing
        self._cases = ToyCases(toy, options.steps * options.batch, device)
        self._unseen = ToyCases(replace(toy, seed=toy.seed + 1), options.evaluation_cases, device)

    def case(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        return *self._cases[index], 0

    def unseen(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._unseen[index]


class HeadData:
    """:class:`LoopData` of :class:`~classscale_training.anatomy.HeadCases`."""

    channel = "MR"

    def __init__(self, options: LoopOptions, device: torch.device) -> None:
        path = Path(options.data.removeprefix(HEAD))
        self._cases = HeadCases.read(path, options.head, options.steps * options.batch, device)
        tables = self._cases.tables
        self.dataset_name = f"HeadMR{len(tables.names)}"
        self.names, self.label_sets = tables.names, tables.label_sets.to(device)
        self.patch, self.spacing = options.head.patch, options.head.spacing
        self.shares = self._cases.shares()

    def case(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        return self._cases[index]

    def unseen(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._cases.unseen_patch(index)


def open_data(options: LoopOptions, device: torch.device | str) -> LoopData:
    """:raises ClassScaleError: if ``options.data`` names a file that cannot be read."""
    kind = HeadData if options.data.startswith(HEAD) else ToyData
    return kind(options, torch.device(device))
