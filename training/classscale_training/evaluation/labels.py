"""What label values mean in an evaluation: names, regions, the label to ignore, and the labels of merged datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError, ImageError
from ClassScaleSegLib.labels.table import name_words

from ..data.dataset_json import read_dataset_json
from ..data.merged_labels import MERGED_FROM, Merged
from ..data.volumes import case_name

Region = int | tuple[int, ...]


@dataclass(frozen=True)
class Labels:
    """What a ``dataset.json`` says.

    :ivar names: by label value; of regions, the first has 1.
    :ivar ignore: label of the reference voxels that do not count, or ``None``.
    :ivar regions: the label values of each region; nothing if the classes are ordinary labels.
    """

    names: dict[int, str] = field(default_factory=dict)
    ignore: int | None = None
    regions: tuple[Region, ...] = ()

    @classmethod
    def of(cls, dataset_json: Path) -> Labels:
        """Read nnU-Net's ``dataset.json``. Regions are those that nnU-Net's LabelManager evaluates, in its order.

        :raises LabelTableError: if the file cannot be read.
        """
        labels = read_dataset_json(dataset_json)["labels"]
        ignore = labels.pop("ignore", None)
        if not any(isinstance(value, list) for value in labels.values()):
            return cls({value: str(name) for name, value in labels.items()}, ignore)
        found = {name: value for name, value in labels.items() if np.any(value)}  # without the background
        names = dict(enumerate(map(str, found), 1))
        regions = tuple(tuple(value) if isinstance(value, list) else value for value in found.values())
        return cls({0: "background", **names}, ignore, regions)

    @property
    def by_region(self) -> dict[str, Region]:
        """The label values of each region by its name."""
        return {self.names[number]: values for number, values in enumerate(self.regions, 1)}


def check_same(file: Path, found: Labels, other: Path) -> None:
    """Check that the model of the predictions and the references mean the same by label values.

    :param file: the ``dataset.json`` of the predictions.
    :param found: what it says.
    :param other: that of the references.
    :raises ImageError: if a value has the name of another one, or regions are others.
    """
    theirs = Labels.of(other)
    if found.regions or theirs.regions:
        ours, others = found.by_region, theirs.by_region
        if ours != others:
            raise ImageError(
                f"{file} and {other} have different regions ({_listed(ours)} and {_listed(others)}). Give the one that "
                "counts (--dataset-json)."
            )
    else:
        refuse_exchanged(file, found.names, theirs.names, other)


def _listed(regions: Mapping[str, Region]) -> str:
    return "; ".join(f"{name} {values}" for name, values in regions.items())[:200] or "none"


def merged_of(dataset_json: Path) -> Merged | None:
    """Return the datasets of a merged one; ``None`` if it is not merged, or there is no such file."""
    return Merged.of(read_dataset_json(dataset_json)) if dataset_json.is_file() else None


def refuse_merged(dataset_json: Path, references: Iterable[str]) -> None:
    """Refuse references of a merged dataset, whose labels the ``dataset.json`` of a network does not explain.

    :raises ClassScaleError: naming one of them.
    """
    prefixes = read_dataset_json(dataset_json).get(MERGED_FROM) or {}
    found = next((name for name in references if name.startswith(tuple(prefixes))), None)
    if found is not None:
        raise ClassScaleError(
            f"{found} belongs to a merged dataset, whose labels may stand for several classes; {dataset_json} has only "
            "the classes of the network. Give the dataset.json of the merged dataset (--dataset-json)."
        )


def refuse_exchanged(file: Path, own: Mapping[int, str], names: Mapping[int, str], whose: object) -> None:
    """Refuse label values that mean something else, as those drawn in Slicer or of another model may.

    :param own: names of the values by the file itself.
    :param names: those that they should have.
    :param whose: what says so.
    :raises ImageError: if a value has the name of another one.
    """
    values = {_words(name): value for value, name in names.items()}
    for value, name in own.items():
        meant = values.get(_words(name), value)
        if meant != value and _words(names.get(value, "")) != _words(name):
            raise ImageError(
                f"{file} has {name} as label {value}, {whose} as label {meant}: its label values mean something else. "
                "Write it with the values of the other."
            )


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(name_words(name)))


def as_labels(merged: Merged, reference: Path, prediction: Path | None, classes: np.ndarray) -> np.ndarray:
    """Return the label values that predicted classes have in the dataset of a case.

    :raises ImageError: if the prediction has other classes than the merged dataset.
    """
    if classes.max(initial=0) >= len(merged.names):
        raise ImageError(
            f"{prediction} holds label {classes.max()}; a network trained on the merged dataset has the classes 0 to "
            f"{len(merged.names) - 1}. Evaluate predictions of such a network."
        )
    values = merged.value_of_class[merged.dataset_of(case_name(reference) or "")]
    highest = len(merged.names) + len(merged.sets) - 1
    return np.where(values > highest, 0, values).astype(np.uint16)[classes]
