"""One table for the classes of several models: how they are numbered, and named where names meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..resources import resource
from .label import Label, segment_color, segment_id
from .standard_names import standard_name
from .table import LabelTable, name_words


@dataclass(frozen=True)
class CommonClasses:
    """The classes of several models.

    :ivar table: one row for each class, and one for the background.
    :ivar values: for each model, the value in the table of each of its own values but the background's.
    """

    table: LabelTable
    values: tuple[dict[int, int], ...]


def common_classes(tables: Sequence[LabelTable], models: Sequence[str] = ()) -> CommonClasses:
    """Return the classes of several models in one table; that of a single one stays as it is.

    Classes of the same name are one class if their models are parts of one. If not, the name of the model is put behind
    each of them; also if they are named alike in the terminology, or differ in case and spaces alone.

    If all names are classes of TotalSegmentator's task ``total``, values, colours and codes are taken from there, so
    that its five part models give the same label values as its single network. Otherwise classes are numbered from 1,
    model by model.

    :param tables: one table for each model.
    :param models: for each table the name of the model that it is a part of. By default all are parts of one.
    :raises LabelTableError: if there are more than 65535 classes.

    >>> first = LabelTable.from_names({0: "background", 1: "liver", 2: "mouse"})
    >>> second = LabelTable.from_names({0: "background", 1: "tail", 2: "liver"})
    >>> [(label.value, label.name) for label in common_classes([first, second]).table.foreground]
    [(1, 'liver'), (2, 'mouse'), (3, 'tail')]
    >>> common = common_classes([first, second], ["A", "B"])
    >>> [label.name for label in common.table.foreground], common.values
    (['liver (A)', 'mouse', 'tail', 'liver (B)'], ({1: 1, 2: 2}, {1: 3, 2: 4}))
    """
    if len(tables) == 1:
        return CommonClasses(tables[0], ({label.value: label.value for label in tables[0].foreground},))
    names = models or [""] * len(tables)
    rows: dict[tuple[str, str], Label] = {}  # by model and own name
    for name, table in zip(names, tables, strict=True):
        for label in table.foreground:
            rows.setdefault((name, label.name), label)
    known = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    standard = {label.name: label for label in known.foreground}
    meeting = _meeting(rows)
    if not meeting and {name for _model, name in rows} <= standard.keys():
        chosen = {key: standard[key[1]] for key in rows}
    else:
        chosen = {key: _renumbered(label, value) for value, (key, label) in enumerate(rows.items(), start=1)}
        taken = {label.name for key, label in chosen.items() if key not in meeting}
        for key in meeting:
            chosen[key] = _told_apart(chosen[key], key[0], taken)
            taken.add(chosen[key].name)
    values = tuple(
        {label.value: chosen[name, label.name].value for label in table.foreground}
        for name, table in zip(names, tables, strict=True)
    )
    return CommonClasses(LabelTable((known[0], *chosen.values())), values)


def _meeting(rows: dict[tuple[str, str], Label]) -> list[tuple[str, str]]:
    """Return the classes that would be taken for those of another model."""
    owners: dict[object, set[str]] = {}
    keys = {key: _names(label) for key, label in rows.items()}
    for (model, _name), alike in keys.items():
        for name in alike:
            owners.setdefault(name, set()).add(model)
    return [key for key, alike in keys.items() if any(len(owners[name]) > 1 for name in alike)]


def _names(label: Label) -> set[tuple[str, ...]]:
    """Return the words of the name, and of that in the terminology."""
    standard = standard_name(label)
    return {tuple(name_words(name)) for name in (label.name, standard) if name is not None}


def _told_apart(label: Label, model: str, taken: set[str]) -> Label:
    name = f"{label.name} ({model})"
    return replace(label, name=name if name not in taken else f"{name} ({label.value})")


def _renumbered(label: Label, value: int) -> Label:
    """Give a label another value and the matching id, and also the matching colour unless the model set its own."""
    color = segment_color(value) if label.color == segment_color(label.value) else label.color
    return replace(label, value=value, id=segment_id(value), color=color)
