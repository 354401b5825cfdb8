"""Replace a model's own names by the names in the terminology: "Left kidney" instead of ``kidney_left``."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .label import Label
from .table import LabelTable


def with_standard_names(table: LabelTable, known: LabelTable | None = None) -> LabelTable:
    """Return the table with the name of each label taken from its codes.

    A label keeps its own name if it has no codes, or if another label would have the same name.

    :param table: labels with or without codes.
    :param known: all labels of the models, so that a label has the same name in each result, whatever else was found.

    >>> table = LabelTable.from_names({1: "kidney_left", 2: "cell 2"})
    >>> with_standard_names(table).names
    {1: 'Left kidney', 2: 'cell 2'}
    """
    proposed = {label.value: standard_name(label) for label in table}
    taken = Counter(standard_name(label) or label.name for label in known or table)
    unique = {value: name for value, name in proposed.items() if name and taken[name] == 1}
    return LabelTable(tuple(replace(label, name=unique.get(label.value, label.name)) for label in table))


def standard_name(label: Label) -> str | None:
    """Return a name such as "Left kidney" from a label's codes; ``None`` for the background or without a type."""
    meaning = {field: code.meaning for field, code in label.codes.items() if code is not None and code.meaning}
    words = meaning.get("type")
    if label.value == 0 or words is None:
        return None
    if "type_modifier" in meaning:
        if words[1:2].islower():
            words = words[0].lower() + words[1:]
        words = f"{meaning['type_modifier']} {words}"
    if "region" in meaning:
        words += ", " + " ".join(meaning[field] for field in ("region_modifier", "region") if field in meaning)
    return words
