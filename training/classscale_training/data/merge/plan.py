"""From what the labels mean to the merged dataset: its label values, channels and shares; the same as a taxonomy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError, LabelTableError
from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.table import LabelTable

from ..dataset_json import HIGHEST
from ..merged_labels import Merged, SourceDataset
from .meaning import Meaning
from .source import Source, source_called
from .taxonomy import Row, Taxonomy


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    :ivar channels: names of the channels.
    :ivar maps: for each dataset the new value of each value in its label maps, ``(V,)`` uint8 or uint16.
    """

    meaning: Meaning
    merged: Merged
    channels: tuple[str, ...]
    maps: tuple[np.ndarray, ...]

    @property
    def shared(self) -> int:
        """Number of classes for which labels of several datasets stand, alone or with others."""
        each = [{member for label in labels for member in label.members} for labels in self.meaning.meanings]
        return sum(sum(number in members for members in each) > 1 for number in range(1, len(self.meaning.names)))


def make_plan(meaning: Meaning, taxonomy: Taxonomy = Taxonomy(), shares: Mapping[int, float] | None = None) -> Plan:
    """Number the labels of the merged dataset.

    The classes come first, then the sets in the order in which they appear. A set of several datasets is one label.

    :param taxonomy: names the modalities.
    :param shares: how often cases of each dataset are drawn, by its number; if ``None``, the square root of the number
        of its cases, as in MultiTalent (Ulrich et al., 2023).
    :raises LabelTableError: if the channels of the datasets differ, or there are more labels than a label map can hold.
    :raises ClassScaleError: if the shares do not name all datasets, or are not positive.
    """
    sources, classes = meaning.sources, len(meaning.names)
    channels = _channels(sources, taxonomy)
    sets: dict[tuple[int, ...], int] = {}
    taken = {*meaning.names, "ignore"}
    names = []
    for source, labels in zip(sources, meaning.meanings, strict=True):
        for label in labels:
            if len(label.members) > 1 and label.members not in sets:
                sets[label.members] = classes + len(sets)
                names.append(_unique(label.label.name, source.name, taken))
                taken.add(names[-1])
    ignore = classes + len(sets) if any(source.ignore is not None for source in sources) else None
    total = classes + len(sets) + (ignore is not None)
    if total - 1 > HIGHEST:
        raise LabelTableError(
            f"The merged dataset would have {total} labels; nnU-Net can hold {HIGHEST + 1} in its label maps."
        )
    weights = _shares(sources, shares)
    datasets, maps = [], []
    kind = np.uint8 if total <= 256 else np.uint16
    for source, labels, background in zip(sources, meaning.meanings, meaning.backgrounds, strict=True):
        values = {0: 0, **({} if source.ignore is None or ignore is None else {source.ignore: ignore})}
        contents = {0: background}
        for label in labels:
            members = label.members
            value = members[0] if len(members) == 1 else sets[members]
            values[label.label.value] = value
            if value:
                contents[value] = members
        new = np.zeros(max(values) + 1, kind)
        new[list(values)] = list(values.values())
        maps.append(new)
        ordered = dict(sorted(contents.items()))
        datasets.append(SourceDataset(source.name, source.prefix, weights[source.number], ordered))
    merged = Merged(meaning.names, tuple(names), ignore, tuple(datasets))
    return Plan(meaning, merged, channels, tuple(maps))


def taxonomy_rows(plan: Plan, taxonomy: Taxonomy = Taxonomy()) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a taxonomy that says everything, from which the same merged dataset follows.

    :param taxonomy: names the modalities.
    """
    meaning = plan.meaning
    modalities = _modalities(meaning.sources, taxonomy)
    spelled = {label.name for source in meaning.sources for label in source.table}
    for name in meaning.names:
        if name not in spelled:
            yield "", name, name, ""
    for source, labels, background in zip(meaning.sources, meaning.meanings, meaning.backgrounds, strict=True):
        if source.number in modalities:
            yield source.number, "", "", modalities[source.number]
        for label in labels:
            for member in label.members:
                yield source.number, label.label.name, meaning.names[member], ""
        for member in background:
            yield source.number, "background", meaning.names[member], ""


def class_table(meaning: Meaning) -> LabelTable:
    """Return the classes as a label table, with the codes of the first label with codes that stands for each alone."""
    coded: dict[int, Label] = {}
    for label in (label for labels in meaning.meanings for label in labels):
        if len(label.members) == 1 and label.label.category is not None:
            coded.setdefault(label.members[0], label.label)
    return LabelTable(
        tuple(
            replace(coded.get(label.value, label), value=label.value, id=label.id, name=label.name, color=label.color)
            for label in LabelTable.from_names(dict(enumerate(meaning.names)))
        )
    )


def _unique(name: str, dataset: str, taken: set[str]) -> str:
    if name in taken:
        name = f"{name} ({dataset})"
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name} {number}"
    return unique


def _shares(sources: Sequence[Source], given: Mapping[int, float] | None) -> dict[int, float]:
    if given is None:
        return {source.number: round(math.sqrt(max(1, len(source.cases))), 3) for source in sources}
    numbers = [source.number for source in sources]
    odd = [number for number in (*given, *numbers) if number not in numbers or number not in given]
    if odd:
        what = "which is not merged" if odd[0] not in numbers else "which has none"
        example = " ".join(f"{number}=1" for number in numbers)
        raise ClassScaleError(
            f"The shares must name the merged datasets; the exception is {odd[0]}, {what}. Write: --shares {example}"
        )
    wrong = next((number for number in numbers if not 0 < given[number] < math.inf), None)
    if wrong is not None:
        raise ClassScaleError(f"The share of dataset {wrong} is {given[wrong]:g}. Give a positive number.")
    return {number: float(given[number]) for number in numbers}


def _modalities(sources: Sequence[Source], taxonomy: Taxonomy) -> dict[int, str]:
    """Return the modalities that the taxonomy names, by the number of the dataset."""
    found: dict[int, Row] = {}
    for row in taxonomy.rows:
        source = source_called(sources, row.dataset)
        if not row.modality or source is None:
            continue
        first = found.setdefault(source.number, row)
        if first.modality.casefold() != row.modality.casefold():
            raise LabelTableError(
                f"{taxonomy.where(first, row)}: {source.name} has the modalities {first.modality} and {row.modality}. "
                "Remove one."
            )
    return {number: row.modality for number, row in found.items()}


def _channels(sources: Sequence[Source], taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the names of the channels of the merged dataset.

    :raises LabelTableError: if the datasets differ, and the taxonomy does not say what their modalities are.
    """
    modalities = _modalities(sources, taxonomy)
    first = sources[0]
    for source in sources:
        if len(source.channels) != len(first.channels):
            counts = [f"{s.name} has {len(s.channels)} ({', '.join(s.channels)})" for s in (first, source)]
            raise LabelTableError(
                f"The numbers of channels differ: {' and '.join(counts)}. Only datasets with the same channels can be "
                "merged."
            )
        here, there = ([channel.casefold() for channel in each.channels] for each in (source, first))
        if here != there and sorted(here) == sorted(there):
            raise LabelTableError(
                f"The order of the channels differs: {', '.join(first.channels)} in {first.name}, "
                f"{', '.join(source.channels)} in {source.name}. Number the files of one as those of the other."
            )
    names: list[tuple[str, ...]] = []
    alike: dict[str, tuple[str, ...]] = {}
    for source in sources:
        given = modalities.get(source.number)
        if given is None:
            names.append(source.channels)
        else:  # the datasets of a modality have the channels of the first of them
            single = (given,) if len(source.channels) == 1 else source.channels
            names.append(alike.setdefault(given.casefold(), single))
    each = [
        list({name.casefold(): name for name in reversed(channel)}.values())[::-1]
        for channel in zip(*names, strict=True)
    ]
    if any(len(channel) > 1 for channel in each) and len(modalities) < len(sources):
        other = next(i for i, n in enumerate(names) if [x.casefold() for x in n] != [x.casefold() for x in names[0]])
        lines = [taxonomy.line(s.number, "", "", "MR") for s in sources if s.number not in modalities]
        raise LabelTableError(
            f"The channels differ: {', '.join(names[0])} in {first.name}, {', '.join(names[other])} in "
            f"{sources[other].name}. If their images are of the same kind, say which in the taxonomy, such as\n    "
            + "\n    ".join(lines)
            + "\n  If not, name the kind of each, such as CT and MR; nnU-Net then normalises every image by itself."
        )
    return tuple(" or ".join(channel) for channel in each)
