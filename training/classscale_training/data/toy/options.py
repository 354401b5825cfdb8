"""Which toy data to make. This file needs no torch, so that commands can offer its options at once."""

from __future__ import annotations

from dataclasses import dataclass

from ClassScaleSegLib.errors import ClassScaleError

MODES = ("atlas", "objects")
MAX_CLASSES = 4000


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
        if self.mode not in MODES:
            raise ClassScaleError(f"Toy mode {self.mode!r} is unknown: choose {' or '.join(MODES)}.")
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
        from .objects import SHAPES, TEXTURES, object_recipe  # imports torch

        recipe = object_recipe(value)
        look = f"{SHAPES[recipe.shape]} core {recipe.core} rim {recipe.rim} {TEXTURES[recipe.texture]}"
        return f"object {value} ({look})"
