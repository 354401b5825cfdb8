"""A single toy case by one call, and toy cases computed on access as a torch dataset."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ClassScaleSegLib.errors import ClassScaleError
from torch.utils.data import Dataset

from .atlas import atlas_case
from .objects import SHAPES, TEXTURES, object_recipe, objects_case

MAX_CLASSES = 4000
_GENERATORS = {"atlas": atlas_case, "objects": objects_case}
MODES = tuple(_GENERATORS)


@dataclass(frozen=True)
class ToyOptions:
    """Which toy data to make. A case depends on these options and its index alone.

    >>> options = ToyOptions(classes=2, size=64)
    >>> options.spacing, options.names
    (2.0, {0: 'background', 1: 'cell 1', 2: 'cell 2'})

    :ivar classes: number of foreground classes, 1..4000.
    :ivar mode: one of :data:`MODES`.
    :ivar size: voxels along each side of the cube, 8..512.
    :ivar seed: another seed gives other volumes of the same classes.
    :raises ClassScaleError: for values out of range.
    """

    classes: int
    mode: str = "atlas"
    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= MAX_CLASSES:
            raise ClassScaleError(f"A toy dataset has 1 to {MAX_CLASSES} classes, not {self.classes}.")
        if self.mode not in _GENERATORS:
            raise ClassScaleError(f"Toy mode {self.mode!r} is unknown: choose {' or '.join(_GENERATORS)}.")
        if not 8 <= self.size <= 512:
            raise ClassScaleError(f"A toy volume has 8 to 512 voxels along each side, not {self.size}.")

    @property
    def dataset_name(self) -> str:
        """Name of the dataset in nnU-Net."""
        return f"Toy{self.mode.capitalize()}{self.classes}"

    @property
    def spacing(self) -> float:
        """Voxel spacing in mm. An atlas measures 128 mm at any resolution; objects have voxels of 1 mm."""
        return 128 / self.size if self.mode == "atlas" else 1.0

    @property
    def names(self) -> dict[int, str]:
        """Name of each label value, including the background."""
        return {0: "background", **{value: self._name(value) for value in range(1, self.classes + 1)}}

    def _name(self, value: int) -> str:
        if self.mode == "atlas":
            return f"cell {value}"
        recipe = object_recipe(value)
        look = f"{SHAPES[recipe.shape]} core {recipe.core} rim {recipe.rim} {TEXTURES[recipe.texture]}"
        return f"object {value} ({look})"


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
