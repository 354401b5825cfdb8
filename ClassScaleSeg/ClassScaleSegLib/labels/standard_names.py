"""Names of anatomy as the terminology has them: "Left kidney" in place of a model's own ``kidney_left``."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .label import Label
from .table import LabelTable


def with_standard_names(table: LabelTable) -> LabelTable:
    """The table with every name taken from its codes, where that is unambiguous.

    A label without codes keeps its own name, and so do all labels that would get the same name as another one.
    """
    proposed = {label.value: standard_name(label) for label in table}
    taken = Counter(name or table[value].name for value, name in proposed.items())
    return LabelTable(
        tuple(
            replace(label, name=proposed[label.value])
            if proposed[label.value] and taken[proposed[label.value]] == 1
            else label
            for label in table
        )
    )


def standard_name(label: Label) -> str | None:
    """Meaning of the label's type with its modifier before it ("Left kidney"); ``None`` without codes."""
    if label.value == 0 or label.type is None or not label.type.meaning:
        return None
    words = label.type.meaning
    if label.type_modifier is not None and label.type_modifier.meaning:
        words = (
            f"{label.type_modifier.meaning} {words[0].lower() + words[1:]}"
            if words[1:2].islower()
            else (f"{label.type_modifier.meaning} {words}")
        )
    if label.region is not None and label.region.meaning:
        side = f"{label.region_modifier.meaning} " if label.region_modifier is not None else ""
        words += f", {side}{label.region.meaning}"
    return words
