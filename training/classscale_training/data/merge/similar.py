"""Find labels of different datasets that are different classes although their names are similar."""

from __future__ import annotations

from .class_names import sides_and_rest, words
from .meaning import LabelMeaning, Meaning
from .taxonomy import Taxonomy


def similar_labels(meaning: Meaning, taxonomy: Taxonomy = Taxonomy()) -> list[str]:
    """Return lines of a taxonomy that would make one class of labels with similar names.

    Names are similar if all words of one are in the other, and both have the same side. Left out are labels of which
    the taxonomy says something, and those that are the same class as another label of the other dataset.

    :param taxonomy: from which the meaning follows.

    >>> from pathlib import Path
    >>> from ClassScaleSegLib.labels.table import LabelTable
    >>> from .meaning import resolve
    >>> from .source import Source
    >>> names = ["left caudate nucleus", "right caudate nucleus"], ["Left Caudate", "brain stem"]
    >>> tables = [LabelTable.from_names({0: "background", **dict(enumerate(each, 1))}) for each in names]
    >>> sources = [Source(index, Path(f"Dataset00{index}_A"), table) for index, table in enumerate(tables)]
    >>> similar_labels(resolve(sources))
    ['1,Left Caudate,left caudate nucleus']
    """
    labels = [(index, one) for index, each in enumerate(meaning.meanings) for one in each if not one.rows]
    meant = {(index, one.members) for index, each in enumerate(meaning.meanings) for one in each}
    sets = [frozenset(words(label.label.name)) for _, label in labels]
    having: dict[str, set[int]] = {}
    for position, found in enumerate(sets):
        for word in found:
            having.setdefault(word, set()).add(position)
    pairs = set()
    for position, found in enumerate(sets):
        for other in set.intersection(*(having[word] for word in found)) if found else ():
            pairs.add((min(position, other), max(position, other)))
    lines = []
    for first, second in sorted(pairs):
        (index, one), (other_index, another) = labels[first], labels[second]
        if index == other_index or _side(one) != _side(another):
            continue
        if (other_index, one.members) not in meant and (index, another.members) not in meant:
            number, name = meaning.sources[other_index].number, meaning.names[one.members[0]]
            lines.append(taxonomy.line(number, another.label.name, name))
    return lines


def _side(label: LabelMeaning) -> tuple[str, ...]:
    return sides_and_rest(label.label.name)[0]
