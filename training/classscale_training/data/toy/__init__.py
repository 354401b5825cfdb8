"""Synthetic volumes with as many classes as wanted, a pure function of seed and index, on CPU or GPU."""

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
