"""Describe a model in JSON, for a program on another machine, and read such a description, which is not trusted.

What is written is what lists, choosers and estimates of memory show. ``plans.json`` and ``dataset.json`` stay behind:
the latter may list the images of a training. So do the packages of the network, which are needed where it runs: nothing
that another machine says is ever installed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import LabelTableError, ModelError
from ..labels.label import CODE_FIELDS, MAX_VALUE, Code, Label, one_line
from ..labels.table import LabelTable
from .bundle import complete_table
from .configuration import MAX_PATCH_VOXELS, MAX_SPACING, MIN_SPACING
from .dataset_json import MAX_CHANNELS
from .json_checks import MAX_TEXT, is_text, numbers, short
from .preprocessing import ENTRY, Auto3DSeg, Preprocessing, is_orientation, read_preprocessing
from .summary import ModelSummary

MODEL_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # also the name of a file on any system
MAX_CARD = 1 << 20  # letters of a model card; those of the embedded models have about 5000
MAX_FOLDS = 100
_MAX_FEATURES, _MAX_PARAMETERS = 1 << 20, 1 << 40

_FLAGS = ("regions", "residual", "projects", "reads_with_nibabel", "swap_sides")
_TEXTS = ("modality", "licence", "notice")  # each may be null
_COUNTS = {"features": _MAX_FEATURES, "parameters": _MAX_PARAMETERS}


def summary_facts(summary: ModelSummary) -> dict[str, Any]:
    """Return a summary as JSON values, for :func:`summary_of`.

    >>> from ClassScaleSegLib.models.summary import summarize
    >>> from ClassScaleSegLib.resources import resource
    >>> facts = summary_facts(summarize(resource("Models", "toy-120.zip")))
    >>> facts["name"], facts["spacing"], facts["labels"][7]["name"]
    ('Toy atlas, 120 classes', [2.0, 2.0, 2.0], 'cell 7')
    """
    card = summary.card
    return {
        "name": summary.name,
        "configuration_name": _text(summary.configuration_name),
        "labels": [_label_facts(label) for label in summary.table],
        "values": list(summary.values),
        "channel_names": list(map(_text, summary.channel_names)),
        "spacing": list(summary.spacing),
        "patch": list(summary.patch),
        "folds": list(summary.folds),
        "orientation": summary.orientation,
        "preprocessing": _preprocessing_facts(summary.preprocessing),
        "peak_channels": summary.peak_channels,
        **{name: getattr(summary, name) for name in (*_FLAGS, *_TEXTS, *_COUNTS)},
        "card": None if card is None else card[:MAX_CARD],
    }


def _text(text: str) -> str:
    """Return a text of ``plans.json`` or ``dataset.json``, which may be anything, as a reader accepts it."""
    return one_line(text)[:MAX_TEXT] or "?"


def _label_facts(label: Label) -> dict[str, Any]:
    codes = {name: [code.scheme, code.value, code.meaning] for name, code in label.codes.items() if code is not None}
    return {
        "value": label.value,
        "id": label.id,
        "name": label.name[:MAX_TEXT],
        "color": list(label.color),
        "codes": codes,
        "group": label.group,
    }


def _preprocessing_facts(preprocessing: Preprocessing | None) -> dict[str, Any] | None:
    """Return the entry of plans from which :func:`read_preprocessing` reads it."""
    if preprocessing is None:
        return None
    kind = "auto3dseg" if isinstance(preprocessing, Auto3DSeg) else "conform"
    facts = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(preprocessing).items()}
    del facts["step"]  # follows from the kind
    return {"kind": kind, **facts}


def summary_of(facts: Any, model: str) -> ModelSummary:
    """Return the summary that :func:`summary_facts` describes. The facts are not trusted; unknown ones are ignored.

    :param model: id of the model, which becomes the summary's ``path``: no file of this machine.
    :returns: a summary without ``plans``, ``dataset`` and ``packages``.
    :raises ModelError: if the id or an entry is missing or not valid; the message names it.

    >>> from ClassScaleSegLib.models.summary import summarize
    >>> from ClassScaleSegLib.resources import resource
    >>> toy = summarize(resource("Models", "toy-120.zip"))
    >>> again = summary_of(summary_facts(toy), "toy-120")
    >>> again.table == toy.table, again.spacing == toy.spacing, again.path.name
    (True, True, 'toy-120')
    >>> summary_of({}, "toy-120")
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.ModelError: the description of the model toy-120 has no valid 'spacing': None.
    """
    if not isinstance(model, str) or re.fullmatch(MODEL_ID, model) is None:
        raise ModelError(f"{short(model)} is not the id of a model.")
    try:
        return _summary(facts, model)
    except (ModelError, LabelTableError) as error:
        raise ModelError(f"the description of the model {model} {error}") from error


def _summary(facts: Any, model: str) -> ModelSummary:
    if not isinstance(facts, dict):
        raise ModelError(f"is not a JSON object: {short(facts)}.")
    spacing = _entry(facts, "spacing", lambda it: (numbers(it, 2) or numbers(it, 3)) and _are_lengths(it))
    axes = len(spacing)
    values = _entry(facts, "values", lambda it: _are_whole(it, 1, MAX_VALUE + 1, 0, MAX_VALUE))
    channels = _entry(facts, "channel_names", lambda it: _are_texts(it, MAX_CHANNELS))
    patch = _entry(facts, "patch", lambda it: _are_whole(it, axes, axes, 1, MAX_PATCH_VOXELS))
    if math.prod(patch) > MAX_PATCH_VOXELS:
        raise ModelError(f"has a 'patch' of more than {MAX_PATCH_VOXELS} voxels: {short(patch)}.")
    counts = {name: _entry(facts, name, partial(_is_whole, least=1, most=most)) for name, most in _COUNTS.items()}
    entries = {ENTRY: facts.get("preprocessing"), "patch_size": patch}
    try:
        preprocessing = read_preprocessing(entries, len(channels))
    except ModelError as error:
        raise ModelError(f"has a 'preprocessing' that is not valid ({error})") from error
    return ModelSummary(
        path=Path(model),
        name=_entry(facts, "name", is_text),
        configuration_name=_entry(facts, "configuration_name", is_text),
        plans={},
        dataset={},
        table=_table(facts.get("labels"), tuple(values)),
        classes=len(values),
        values=tuple(values),
        channels=len(channels),
        channel_names=tuple(channels),
        spacing=tuple(map(float, spacing)),
        patch=tuple(patch),
        folds=tuple(_entry(facts, "folds", _are_folds)),
        orientation=_entry(facts, "orientation", lambda it: it is None or is_orientation(it)),
        preprocessing=preprocessing,
        peak_channels=_entry(facts, "peak_channels", lambda it: _is_whole(it, 0, _MAX_FEATURES)),
        packages=(),
        **{name: _entry(facts, name, lambda it: isinstance(it, bool)) for name in _FLAGS},
        **{name: _entry(facts, name, lambda it: it is None or is_text(it)) for name in _TEXTS},
        **counts,
        card=_entry(facts, "card", lambda it: it is None or (isinstance(it, str) and len(it) <= MAX_CARD)),
    )


def _entry(facts: dict, name: str, fine: Callable[[Any], object]) -> Any:
    value = facts.get(name)
    if not fine(value):
        raise ModelError(f"has no valid {name!r}: {short(value)}.")
    return value


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _are_whole(value: Any, fewest: int, most: int, least: int, greatest: int) -> bool:
    fine = isinstance(value, list) and fewest <= len(value) <= most
    return fine and all(_is_whole(entry, least, greatest) for entry in value)


def _are_lengths(spacing: list[float]) -> bool:
    return MIN_SPACING <= min(spacing) <= max(spacing) <= MAX_SPACING


def _are_texts(value: Any, most: int) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= most and all(map(is_text, value))


def _are_folds(value: Any) -> bool:
    return _are_texts(value, MAX_FOLDS) and all(re.fullmatch(r"\d{1,4}|all", fold, re.ASCII) for fold in value)


def _table(rows: Any, values: tuple[int, ...]) -> LabelTable:
    """Return the label table, with exactly the values that the model gives, and a background."""
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_VALUE + 1:
        raise ModelError(f"has no valid 'labels': {short(rows)}.")
    return complete_table(LabelTable(tuple(map(_label, rows))), values)


def _label(row: Any) -> Label:
    if not isinstance(row, dict):
        raise ModelError(f"has a label that is no JSON object: {short(row)}.")
    codes: Any = row.get("codes", {})
    color: Any = row.get("color")
    group = row.get("group")
    fine = (
        _is_whole(row.get("value"), 0, MAX_VALUE)
        and is_text(row.get("id"))
        and is_text(row.get("name"))
        and _are_whole(color, 3, 3, 0, 255)
        and (group is None or is_text(group))
        and isinstance(codes, dict)
        and set(codes) <= set(CODE_FIELDS)
        and all(_is_code(code) for code in codes.values())
    )
    if not fine:
        raise ModelError(f"has a label that is not valid: {short(row)}.")
    red, green, blue = color
    coded = {name: Code(*code) for name, code in codes.items()}
    return Label(row["value"], row["id"], row["name"], (red, green, blue), group=group, **coded)


def _is_code(code: Any) -> bool:
    return (
        isinstance(code, list) and len(code) == 3 and all(isinstance(text, str) and len(text) <= 2000 for text in code)
    )
