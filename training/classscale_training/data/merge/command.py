"""The command ``classscaleseg-train merge``: one raw dataset of several, each with its own labels."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError

from ..raw_dataset import dataset_path, raw_folder
from .class_names import words
from .conflicts import check_meaning
from .meaning import resolve
from .plan import Plan, make_plan
from .similar import similar_labels
from .source import read_source
from .splits import merged_splits
from .taxonomy import Taxonomy
from .writing import Written, write_merged

_SHOWN = 8  # names in a line


@dataclass(frozen=True)
class MergeOptions:
    """How to merge.

    :ivar name: of the merged dataset, after its number.
    :ivar taxonomy: CSV that says what labels stand for, as :mod:`.taxonomy` describes it.
    :ivar shares: as for :func:`.make_plan`.
    :ivar overwrite: replace what was merged from other datasets or with other options.
    :ivar workers: number of processes that write label maps.
    """

    name: str = "Merged"
    taxonomy: Path | None = None
    shares: Mapping[int, float] | None = None
    overwrite: bool = False
    workers: int = 0


def plan_merge(
    numbers: Sequence[int], options: MergeOptions = MergeOptions(), nnunet_raw: Path | None = None
) -> tuple[Plan, Taxonomy]:
    """Find what would become of the labels of several raw datasets. Nothing is written.

    :param numbers: of the datasets.
    :param nnunet_raw: folder of all raw datasets; if ``None``, the environment variable ``nnUNet_raw`` names it.
    :raises ClassScaleError: if datasets or taxonomy cannot be used, or contradict each other.
    """
    if len(set(numbers)) < max(2, len(numbers)):
        raise ClassScaleError("Name at least two datasets, and each of them once.")
    taxonomy = Taxonomy() if options.taxonomy is None else Taxonomy.read(options.taxonomy)
    sources = [read_source(raw_folder(number, nnunet_raw)) for number in numbers]
    meaning = resolve(sources, taxonomy)
    check_meaning(meaning, taxonomy)
    return make_plan(meaning, taxonomy, options.shares), taxonomy


def merge(
    numbers: Sequence[int],
    into: int,
    options: MergeOptions = MergeOptions(),
    nnunet_raw: Path | None = None,
    progress: bool = False,
) -> tuple[Path, Plan, Written]:
    """Merge raw datasets. An interrupted call can be repeated.

    :param numbers: of the datasets.
    :param into: number of the merged dataset.
    :param nnunet_raw: as for :func:`plan_merge`.
    :param progress: show a progress bar, if standard error is a terminal.
    :returns: the folder, what was to be written, and what was done.
    :raises ClassScaleError: as :func:`plan_merge` and :func:`.write_merged`.
    """
    if into in numbers:
        raise ClassScaleError(f"The dataset {into} is to be merged; give --into another number.")
    if not re.fullmatch(r"\w[\w.-]*", options.name):
        raise ClassScaleError(
            f"{options.name!r} cannot be the name of a dataset. Use letters, digits, '_', '-' and '.'."
        )
    folder = dataset_path(into, options.name, nnunet_raw)
    plan, taxonomy = plan_merge(numbers, options, nnunet_raw)

    def bar(cases: Iterable[Any], total: int) -> Iterable[Any]:
        from tqdm import tqdm

        return tqdm(cases, desc="Merging cases", total=total, disable=None if progress else True)

    return folder, plan, write_merged(folder, plan, taxonomy, options.overwrite, options.workers, bar)


def describe(plan: Plan) -> Iterator[str]:
    """Yield lines that say what becomes of every label."""
    meaning, merged = plan.meaning, plan.merged
    sets = {members: value for source in merged.datasets for value, members in source.labels.items() if value}
    names = (*merged.names, *merged.sets)
    for source, dataset, labels, background in zip(
        meaning.sources, merged.datasets, meaning.meanings, meaning.backgrounds, strict=True
    ):
        modality = ", ".join(source.channels)
        yield f"{source.name} ({modality}): {len(source.cases)} cases, share {dataset.share:g}, {len(labels)} labels"
        for label in labels:
            value = sets.get(label.members, 0)
            members = [meaning.names[member] for member in label.members]
            what = f", which stands for {_listed(members)}" if len(members) > 1 else ""
            if len(members) == 1 and not label.rows and sorted(words(members[0])) != sorted(words(label.label.name)):
                what = ", which has the same codes"
            yield f"  {label.label.value} {label.label.name} -> {value} {names[value]}{what}"
        contents = [meaning.names[member] for member in background if member]
        absent = [meaning.names[number] for number in dataset.absent(len(meaning.names))]
        yield f"  0 background -> 0 background{f', and perhaps {_listed(contents)}' if contents else ''}"
        if absent:
            yield f"  absent: {_listed(absent)}"


def summary(plan: Plan) -> str:
    """Return what the merged dataset is made of, in a sentence without its end.

    The classes are counted without the background.
    """
    sources = plan.meaning.sources
    mixed = ""
    if any(" or " in channel for channel in plan.channels):
        mixed = f"; the images are {', '.join(plan.channels)}, so nnU-Net will normalise each by itself"
    cases = sum(len(source.cases) for source in sources)
    sets = "1 label for a set" if len(plan.merged.sets) == 1 else f"{len(plan.merged.sets)} labels for sets"
    return (
        f"{len(sources)} datasets, {cases} cases, {len(plan.merged.names) - 1} classes "
        f"({plan.shared} of them in several datasets), {sets} of classes{mixed}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _share(text: str) -> tuple[int, float]:
    number, _, share = text.partition("=")
    try:
        return int(number), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a dataset and its share, such as 291=2") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg-train merge``."""
    add = parser.add_argument
    add("-d", nargs="+", type=int, required=True, metavar="ID", help="datasets to be merged")
    add("--into", type=int, required=True, metavar="ID", help="number of the merged dataset")
    add("--name", default=MergeOptions.name, help="its name (default: %(default)s)")
    add("--taxonomy", type=Path, metavar="FILE", help="CSV that says which label stands for which classes")
    shares = "how often cases of each dataset are drawn, such as 291=2 292=1 (default: root of the number of cases)"
    add("--shares", nargs="+", type=_share, metavar="ID=SHARE", help=shares)
    add("--check", action="store_true", help="print what would become of the labels, and write nothing")
    add("--overwrite", action="store_true", help="make a dataset anew that was merged in another way")
    add("--workers", type=int, default=0, metavar="N", help="number of worker processes; 0 or 1: none (default: 0)")
    add("--no_pbar", action="store_true", help="show no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Run ``classscaleseg-train merge`` and return its exit code.

    :raises ClassScaleError: as :func:`merge`.
    """
    shares = None if arguments.shares is None else dict(arguments.shares)
    options = MergeOptions(arguments.name, arguments.taxonomy, shares, arguments.overwrite, arguments.workers)
    if arguments.check:
        plan, taxonomy = plan_merge(arguments.d, options)
        print("\n".join(describe(plan)))
        merged_splits(plan.meaning.sources)
        similar = similar_labels(plan.meaning, taxonomy)
        if similar:
            print("Some labels have similar names, but are different classes. To make one of two, add its line:")
            print("\n".join(f"    {line}" for line in similar))
        print(f"{summary(plan)}. Nothing was written.")
        return 0
    folder, plan, written = merge(arguments.d, arguments.into, options, progress=not arguments.no_pbar)
    if written.finished:
        print(f"{folder} is finished already: {summary(plan)}.")
        return 0
    similar = similar_labels(plan.meaning)
    if similar:
        pairs = "1 pair" if len(similar) == 1 else f"{len(similar)} pairs"
        sentence = "labels with similar names, but as different classes; --check lists them."
        print(f"Warning: the datasets have {pairs} of {sentence}", file=sys.stderr)
    images = ", ".join(f"{count} images {way}" for way, count in sorted(written.images.items()))
    kept = f"; {written.kept} label maps were there already" if written.kept else ""
    print(f"{folder}: {summary(plan)}; {images}{kept}.")
    if not (folder / "splits_final.json").exists():
        print("Every dataset has a single case, so there is none to validate with: train the fold all.")
    print(f"Next: classscaleseg-train plan -d {arguments.into}")
    return 0
