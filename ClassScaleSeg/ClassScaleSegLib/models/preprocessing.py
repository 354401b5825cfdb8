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


Preprocessing = Auto3DSeg


def read_preprocessing(entries: dict, channels: int) -> Preprocessing | None:
    """Return the preprocessing that a configuration describes, or ``None`` if it is that of nnU-Net.

    :param entries: of one configuration.
    :param channels: of the input.
    :raises ModelError: if an entry is missing or not valid; the message names it.
    """
    given = entries.get(ENTRY)
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("kind") != "auto3dseg":
        raise ModelError(f"{ENTRY} {short(given)} is of a kind that is not known. Update ClassScaleSeg.")
    return _auto3dseg(given, channels)


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
    for key, value in fine.items():
        if not value:
            raise ModelError(f"{ENTRY} has a {key} that is not valid: {short(given.get(key))}.")
    assert isinstance(bounds, list)
    return Auto3DSeg(
        orientation,
        tuple(schemes),
        (float(bounds[0]), float(bounds[1])),
        given["crop_foreground"],
        given["normalize_last"],
    )


def is_orientation(value: Any) -> bool:
    """Tell whether a value is an anatomical orientation such as ``RAS``."""
    return isinstance(value, str) and re.fullmatch(ORIENTATION, value) is not None
