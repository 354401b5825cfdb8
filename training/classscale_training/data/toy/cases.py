"""Any toy case by one call, and toy cases on the fly as a torch dataset."""

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
    """Which toy data. A case is a function of these and of its index.

    :ivar classes: foreground classes, 1..4000.
    :ivar size: voxels along each side of the cube.
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
            raise ClassScaleError(f"Toy mode {self.mode!r} is unknown; there are {' and '.join(_GENERATORS)}.")
        if not 8 <= self.size <= 512:
            raise ClassScaleError(f"A toy volume has 8 to 512 voxels along each side, not {self.size}.")

    @property
    def spacing(self) -> float:
        """Millimetres. An atlas measures 128 mm whatever its resolution; objects are made of voxels of 1 mm."""
        return 128 / self.size if self.mode == "atlas" else 1.0

    @property
    def names(self) -> dict[int, str]:
        """Name of each label value, background included."""
        return {0: "background", **{value: self._name(value) for value in range(1, self.classes + 1)}}

    def _name(self, value: int) -> str:
        if self.mode == "atlas":
            return f"cell {value}"
        recipe = object_recipe(value)
        look = f"{SHAPES[recipe.shape]} core {recipe.core} rim {recipe.rim} {TEXTURES[recipe.texture]}"
        return f"object {value} ({look})"


def toy_case(index: int, options: ToyOptions, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Case ``index``: image ``(size,)*3`` float32 (positive), labels ``(size,)*3`` int64 in ``0..classes``."""
    return _GENERATORS[options.mode](index, options.classes, options.size, options.seed, device)


class ToyCases(Dataset):
    """Cases ``0..cases-1`` made when asked for, as nnU-Net's preprocessing would hand them on.

    An item is an image ``(1, X, Y, Z)`` float32 with mean 0 and standard deviation 1, and labels ``(X, Y, Z)`` int16.
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
