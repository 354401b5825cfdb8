"""Read channels, labels and modality from ``dataset.json`` without nnU-Net."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ModelError
from ..labels.label import MAX_VALUE
from .json_checks import flat, short

MAX_CHANNELS = 1024


def channel_names(dataset: dict) -> tuple[str, ...]:
    """Return the names of the input channels. Older files have the entry ``modality`` instead of ``channel_names``.

    :raises ModelError: if the entry is not an object with 1 to ``MAX_CHANNELS`` entries.

    >>> channel_names({"channel_names": {"0": "CT"}})
    ('CT',)
    """
    names = dataset["modality"] if "modality" in dataset else dataset.get("channel_names")
    if not isinstance(names, dict) or not 1 <= len(names) <= MAX_CHANNELS:
        written = {str(i): name for i, name in enumerate(names)} if isinstance(names, list) else {"0": "CT"}
        raise ModelError(f"It names no input channels: 'channel_names' must be an object such as {short(written)}.")
    return tuple(str(name) for name in names.values())


def label_rows(dataset: dict) -> tuple[tuple[int, ...], dict[int, str], bool]:
    """Return the labels that the rows of the last layer stand for.

    Matches nnU-Net's ``LabelManager``. A softmax row stands for the label equal to its index. For regions,
    ``regions_class_order`` gives the value of each row; a voxel gets the value of the last region above 0.5.

    :returns: the label value of each row; the name of each label value; whether the rows are regions.
    :raises ModelError: if these cannot be the labels of a network.

    >>> label_rows({"labels": {"background": 0, "liver": 1}})
    ((0, 1), {0: 'background', 1: 'liver'}, False)
    """
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or "background" not in labels:
        raise ModelError(_no_labels(labels))
    if isinstance(labels["background"], list) or _value(labels["background"]) != 0:
        raise ModelError(f"'background' is {short(labels['background'])}, but must be 0 in nnU-Net's networks.")
    named = {name: entry for name, entry in labels.items() if name != "ignore"}
    regions = any(isinstance(entry, list) and len(entry) > 1 for entry in named.values())
    if regions and "regions_class_order" not in dataset:
        raise ModelError("It has overlapping regions, but no 'regions_class_order' with the value of each.")
    try:
        listed = sorted({_value(value) for entry in named.values() for value in flat(entry)})
        order = [_value(value) for value in dataset["regions_class_order"]] if regions else listed
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"the labels cannot be used ({type(error).__name__}: {short(error)}).") from error
    if not order or not all(0 <= value <= MAX_VALUE for value in (*listed, *order)):
        raise ModelError(f"label values must lie between 0 and {MAX_VALUE}.")
    if regions:
        named = {k: v for k, v in named.items() if v != 0 and not (v and set(flat(v)) == {0})}
        if len(named) != len(order):
            raise ModelError(f"{len(named)} regions are named, but {len(order)} are predicted.")
        return tuple(order), {0: "background", **dict(zip(order, named, strict=True))}, True
    if listed != list(range(len(listed))):
        raise ModelError(f"labels must be 0 to {len(listed) - 1} without gaps, as nnU-Net's network predicts them.")
    return tuple(listed), {_value(value): name for name, entry in named.items() for value in flat(entry)}, False


def _value(entry: Any) -> int:
    """Return a label value, which may be written as text or as a whole float.

    :raises ModelError: if it is no whole number.
    """
    try:
        if not isinstance(entry, bool) and int(entry) == float(entry):
            return int(entry)
    except OverflowError:
        return MAX_VALUE + 1
    except (TypeError, ValueError):
        pass
    raise ModelError(f"the label value {short(entry)} is not a whole number.")


def _no_labels(labels: Any) -> str:
    """Say how ``labels`` must be written, with the names that were found."""
    example: dict[Any, Any] = {"background": 0, "liver": 1}
    if isinstance(labels, list) and labels and all(isinstance(name, str) for name in labels):
        example = {name: value for value, name in enumerate(labels)}
        return f"'labels' is a list of names. Write each name with its value instead: {short(example)}."
    if not isinstance(labels, dict):
        return f"It has no object 'labels' such as {example}."
    if labels and all(key.strip().isdecimal() and _is_name(entry) for key, entry in labels.items()):
        example = {entry: int(key) for key, entry in labels.items()}
        return f"in 'labels', names and values are exchanged. Write {short(example)}."
    found = next((key for key, entry in labels.items() if type(entry) in (int, float, str) and str(entry) == "0"), None)
    way = f"Rename {found!r}, whose value is 0, to 'background'." if found else "Add 'background': 0."
    return f"'labels' has no 'background'; nnU-Net's networks have a class 0 of this name. {way}"


def _is_name(entry: Any) -> bool:
    return isinstance(entry, str) and not entry.strip().isdecimal()


def modality(channels: tuple[str, ...]) -> str | None:
    """Return ``CT`` or ``MR``, as in DICOM, if the names of all channels agree on one of them; else ``None``."""
    names = [name.lower() for name in channels]
    if all(name == "ct" for name in names):
        return "CT"
    return "MR" if all(re.match(r"(mri?|t1|t2|flair)(?![a-z]{3})", name) for name in names) else None
