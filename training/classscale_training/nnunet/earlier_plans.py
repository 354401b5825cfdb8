"""What an earlier planning of a dataset has left: whether its fingerprint still holds, and what new plans replace."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ModelError

from ..data.raw_cases import RawCase
from ..files import read_json

FINGERPRINT = "dataset_fingerprint.json"
_SHOWN = 6  # entries that are told


def fingerprint_is_old(folder: Path, cases: Sequence[RawCase]) -> bool:
    """Tell whether the fingerprint must be extracted again. nnU-Net keeps any that exists.

    :param folder: ``nnUNet_preprocessed/DatasetXXX_Name``.
    :param cases: the training cases.
    :returns: whether there is one that cannot be read, is of another number of cases, or is older than a case.
    """
    file = folder / FINGERPRINT
    if not file.is_file():
        return False
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        count, written = len(content["spacings"]), file.stat().st_mtime_ns
        files = [path for case in cases for path in (*case.images, case.label) if path is not None]
        changed = count != len(cases) or any(path.stat().st_mtime_ns > written for path in files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        changed = True
    if changed:
        print(f"{file} is not of the cases as they are now: it is made again.", file=sys.stderr)
    return changed


def read_earlier(file: Path) -> dict[str, Any] | None:
    """Return the plans that are about to be replaced; ``None`` if there are none.

    :raises ModelError: if they cannot be read, so that nnU-Net could not take over the user's own configurations.
    """
    if not file.is_file():
        return None
    advice = "Delete it, or bring it back if it holds configurations of your own, and plan again."
    return read_json(file, {"configurations": dict}, advice, ModelError)


def differences(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """Return a line for each entry of the configurations that was another one, such as one changed by hand.

    >>> plans = {"configurations": {"3d_fullres": {"batch_size": 4, "spacing": [1, 1, 1]}}}
    >>> differences(plans, {"configurations": {"3d_fullres": {"batch_size": 2, "spacing": [1, 1, 1]}}})
    ['3d_fullres: batch_size was 4, is 2']
    """
    found = []
    for name, entries in (before or {}).get("configurations", {}).items():
        new = now["configurations"].get(name)
        if new is None or not isinstance(entries, Mapping):
            continue
        for key in dict.fromkeys((*entries, *new)):
            old, value = entries.get(key), new.get(key)
            if old != value:
                long = isinstance(old, Mapping) or isinstance(value, Mapping)
                found.append(f"{name}: {key} is another one" if long else f"{name}: {key} was {old}, is {value}")
    more = len(found) - _SHOWN
    return found if more <= 0 else [*found[:_SHOWN], f"and {more} more"]
