"""Synthetic volumes with 1 to 4000 classes, on CPU or GPU. A volume depends on seed and index alone."""

from .atlas import atlas_case, cell_centres
from .cases import MODES, ToyCases, ToyOptions, toy_case
from .objects import ObjectRecipe, object_recipe, objects_case

__all__ = [
    "MODES",
    "ObjectRecipe",
    "ToyCases",
    "ToyOptions",
    "atlas_case",
    "cell_centres",
    "object_recipe",
    "objects_case",
    "toy_case",
]
