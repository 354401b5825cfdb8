"""A single toy case by one call, and toy cases computed on access as a torch dataset."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from .atlas import atlas_case
from .objects import objects_case
from .options import ToyOptions

_GENERATORS = {"atlas": atlas_case, "objects": objects_case}


def toy_case(index: int, options: ToyOptions, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return case ``index``: image ``(size,)*3`` float32 (positive), labels ``(size,)*3`` int64 in ``0..classes``.

    >>> image, labels = toy_case(0, ToyOptions(classes=5, size=16))
    >>> image.dtype, tuple(image.shape), int(labels.max())
    (torch.float32, (16, 16, 16), 5)

    :param device: where the case is computed and returned.
    """
    return _GENERATORS[options.mode](index, options.classes, options.size, options.seed, device)


class ToyCases(Dataset):
    """The cases ``0..cases-1``, computed on access, in the form that nnU-Net's preprocessing produces.

    An item is an image ``(1, X, Y, Z)`` float32 with mean 0 and standard deviation 1, and labels ``(X, Y, Z)`` int16.

    >>> cases = ToyCases(ToyOptions(classes=5, size=16), cases=3)
    >>> image, labels = cases[2]
    >>> len(cases), tuple(image.shape), labels.dtype, round(float(image.std()), 3)
    (3, (1, 16, 16, 16), torch.int16, 1.0)

    :param options: which toy data.
    :param cases: number of cases.
    :param device: where they are computed and returned.
    """

    def __init__(self, options: ToyOptions, cases: int, device: torch.device | str = "cpu") -> None:
        self.options, self.cases, self.device = options, cases, device

    def __len__(self) -> int:
        return self.cases

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= index < self.cases:
            raise IndexError(f"toy case {index} of {self.cases}")
        image, labels = toy_case(index, self.options, self.device)
        return ((image - image.mean()) / image.std())[None], labels.short()
