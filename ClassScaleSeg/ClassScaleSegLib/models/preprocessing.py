"""The preprocessing of models that nnU-Net did not train, as plans describe it in an entry of their own.

A configuration in ``plans.json`` may have the object ``classscale_preprocessing``, which nnU-Net does not know. With
it, the image is prepared as another program does, and the other entries on preprocessing are not needed:

| entry | content |
|---|---|
| ``kind`` | ``auto3dseg`` |
| ``orientation`` | such as ``RAS``, to which images are turned first; ``null``: as stored |
| ``normalization`` | of each channel: ``range``, ``meanstd``, ``meanstdtanh``, ``pet`` or ``none`` |
| ``bounds`` | of the intensities, for ``range`` |
| ``crop_foreground`` | crop to what is above zero, with a margin |
| ``normalize_last`` | crop and resample before the intensities are normalised, as for overlapping regions |

A model of Brainchop sees the head as FreeSurfer conforms it, all at once:

| entry | content |
|---|---|
| ``kind`` | ``conform`` |
| ``orientation`` | as above, not ``null`` |
| ``normalization`` | ``range``: from the least to the greatest value; ``quantiles``: from that of 5 % to that of 95 % |
| ``threshold`` | a fraction of the greatest value: the image is cropped to the box of what is above it |
| ``margin`` | voxels around this box |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from .json_checks import numbers, short

ENTRY = "classscale_preprocessing"
ORIENTATION = r"(?=.*[LR])(?=.*[AP])(?=.*[IS])[LRAPIS]{3}"
NORMALIZATIONS = ("range", "meanstd", "meanstdtanh", "pet", "none")
CONFORMED = ("range", "quantiles")
MAX_MARGIN = 256  # voxels
TOLERANCE = 0.25  # Auto3DSeg keeps voxels whose size differs by at most this fraction from the wanted one


@dataclass(frozen=True)
class Auto3DSeg:
    """How Auto3DSeg's SegResNet sees an image; the fields are the entries above.

    :ivar step: usual distance between windows, as a fraction of the patch.
    """

    orientation: str | None
    normalization: tuple[str, ...]
    bounds: tuple[float, float]
    crop_foreground: bool
    normalize_last: bool
    step: float = 0.375


@dataclass(frozen=True)
class Conform:
    """How Brainchop's MeshNets see an image; the fields are the entries above.

    :ivar step: usual distance between windows, of which there is only one.
    """

    orientation: str
    normalization: str
    threshold: float
    margin: int
    step: float = 0.5


Preprocessing = Auto3DSeg | Conform


def read_preprocessing(entries: dict, channels: int) -> Preprocessing | None:
    """Return the preprocessing that a configuration describes, or ``None`` if it is that of nnU-Net.

    :param entries: of one configuration.
    :param channels: of the input.
    :raises ModelError: if an entry is missing or not valid; the message names it.
    """
    given = entries.get(ENTRY)
    if given is None:
        return None
    kind = given.get("kind") if isinstance(given, dict) else None
    if kind == "auto3dseg":
        return _auto3dseg(given, channels)
    if kind == "conform":
        return _conform(given, channels, entries)
    raise ModelError(f"{ENTRY} {short(given)} is of a kind that is not known. Update ClassScaleSeg.")


def _conform(given: dict, channels: int, entries: dict) -> Conform:
    threshold: Any = given.get("threshold")
    margin: Any = given.get("margin")
    fine = {
        "orientation": is_orientation(given.get("orientation")),
        "normalization": given.get("normalization") in CONFORMED,
        "threshold": numbers([threshold], 1) and 0 <= threshold < 1,
        "margin": type(margin) is int and 0 <= margin <= MAX_MARGIN,
    }
    _require(given, fine)
    if channels != 1 or len(entries["patch_size"]) != 3:
        raise ModelError(f"{ENTRY} {short(given)} is for models of one channel and three dimensions.")
    return Conform(given["orientation"], given["normalization"], float(threshold), margin)


def _auto3dseg(given: dict, channels: int) -> Auto3DSeg:
    orientation, bounds = given.get("orientation"), given.get("bounds")
    schemes: Any = given.get("normalization")
    listed = isinstance(schemes, list) and len(schemes) == channels
    fine = {
        "orientation": orientation is None or is_orientation(orientation),
        "normalization": listed and all(type(scheme) is str and scheme in NORMALIZATIONS for scheme in schemes),
        "bounds": numbers(bounds, 2) and bounds[0] < bounds[1],
        **{key: isinstance(given.get(key), bool) for key in ("crop_foreground", "normalize_last")},
    }
    _require(given, fine)
    assert isinstance(bounds, list)
    return Auto3DSeg(
        orientation,
        tuple(schemes),
        (float(bounds[0]), float(bounds[1])),
        given["crop_foreground"],
        given["normalize_last"],
    )


def _require(given: dict, fine: dict[str, bool]) -> None:
    for key, value in fine.items():
        if not value:
            raise ModelError(f"{ENTRY} has a {key} that is not valid: {short(given.get(key))}.")


def is_orientation(value: Any) -> bool:
    """Tell whether a value is an anatomical orientation such as ``RAS``."""
    return isinstance(value, str) and re.fullmatch(ORIENTATION, value) is not None
