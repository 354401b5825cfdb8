"""The command ``classscaleseg-train collect``: a raw dataset of images and their segmentations."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError, LabelTableError, OutOfMemoryError, OutputExistsError
from ClassScaleSegLib.labels.table import LabelTable

from ..findings import Finding, report
from ..parallel import ProcessKilledError, map_cases
from ..raw_dataset import dataset_path, raw_root, refuse_foreign
from .cases import Case, add_folders, listed, named_folders, pair_cases, with_under, without_unchanged
from .plan import MISSING, OVERLAP, Plan, Rules, make_plan
from .record import RECORD, Record, read_record
from .survey import Survey, survey_case
from .wanted import Wanted, read_wanted
from .writing import Written, write_collected

_NAME = "Collected"
_MODALITIES = ("CT", "MR")  # of DICOM, which are names of channels too
_MOST_LABELS = 8  # in the last line


@dataclass(frozen=True)
class CollectOptions:
    """How to collect.

    :ivar name: of the dataset, after its number; ``None``: that which it has, or else "Collected".
    :ivar labels: a label table, ``dataset.json`` or model that names the wanted labels in their order.
    :ivar channels: names of the channels; ``None``: those that the dataset or ``labels`` has, or else the modality of
        the DICOM series.
    :ivar corrected: leave out results that nobody has changed, or checked in Slicer.
    :ivar under: a folder of segmentations with the names of the cases, from which a case gets the structures that its
        own one lacks.
    :ivar rules: what holds where segmentations leave it open.
    :ivar overwrite: make the dataset anew, with the labels and cases of this call alone.
    :ivar renew: do so only if the dataset has other channels, or cases or labels that are no longer there.
    :ivar workers: number of processes.
    """

    name: str | None = None
    labels: str | None = None
    channels: tuple[str, ...] | None = None
    corrected: bool = False
    under: Path | None = None
    rules: Rules = field(default_factory=Rules)
    overwrite: bool = False
    renew: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Collected:
    """What was collected, or is to be.

    :ivar written: what was done; ``None`` if nothing was to be written.
    """

    folder: Path
    channels: tuple[str, ...]
    plan: Plan
    written: Written | None


def collect(
    images: Path,
    segmentations: Path,
    dataset_id: int,
    options: CollectOptions = CollectOptions(),
    nnunet_raw: Path | None = None,
    write: bool = True,
    progress: bool = False,
) -> Collected:
    """Make a raw dataset of images and their segmentations, or bring one up to date that was collected before.

    Warnings are printed. An interrupted call can be repeated.

    :param images: a folder of images, as ``classscaleseg segment`` takes it.
    :param segmentations: a folder of segmentations with the names of the images, as ``classscaleseg compare`` takes it.
    :param dataset_id: number of the dataset, 1..999.
    :param nnunet_raw: folder of all raw datasets; if ``None``, the environment variable ``nnUNet_raw`` names it.
    :param write: whether to write anything.
    :param progress: show progress bars, if standard error is a terminal.
    :raises OutputExistsError: if the dataset was made in another way.
    :raises ClassScaleError: for everything that is wrong with the cases; all faults are in the message.
    """
    folder = _folder(dataset_id, options.name, nnunet_raw)
    refuse_foreign(folder, RECORD)
    before = Record() if options.overwrite else read_record(folder)
    wanted = None if options.labels is None else read_wanted(options.labels)
    if options.renew and options.channels not in (None, before.channels):
        before = Record()
    channels = _channels(options, before, wanted)
    cases, findings = pair_cases(images, segmentations, max(1, len(channels)))
    cases, told = without_unchanged(cases, options.corrected)
    findings += told
    if options.under is not None and cases:
        cases, told = with_under(cases, options.under)
        findings += told
    if not cases and not any(finding.error for finding in findings):
        findings.append(Finding(f"No segmentation in {segmentations} is left to be collected.", LabelTableError))
    gone = _gone(cases, before, folder)
    if gone and options.renew:
        before, gone = Record(), []
    findings += gone
    if not channels and any(case.images[0].is_file() for case in cases):
        raise ClassScaleError(
            f"Say what the images of {images} are: --channels CT, --channels T1, or --channels T1 FLAIR for NAME_0000 "
            "and NAME_0001. nnU-Net normalises CT by the values of all cases, and other images each by itself."
        )
    names = None if wanted is None else wanted.table
    surveys = list(_surveys(cases, names, options.workers, progress))
    findings += [found for found in surveys if isinstance(found, Finding)]
    read = [(case, found) for case, found in zip(cases, surveys, strict=True) if isinstance(found, Survey)]
    if not read:
        report(folder.name, findings)
    findings += [Finding(notice) for _, survey in read for notice in survey.notices]
    modalities = sorted({survey.modality for _, survey in read if survey.modality})
    if channels:
        findings += _other_modality(channels, modalities)
    else:
        channels = _modality(modalities, findings)
    plan, more = _plan(read, options, before, wanted)
    report(folder.name, [*findings, *more])
    written = None
    if write:
        bar = functools.partial(_bar, "Writing cases", progress)
        written = write_collected(folder, plan, channels, options.rules, names, options.workers, bar)
        report(folder.name, _covered(written.covered, options.rules))
    return Collected(folder, channels, plan, written)


def _plan(
    read: Sequence[tuple[Case, Survey]], options: CollectOptions, before: Record, wanted: Wanted | None
) -> tuple[Plan, list[Finding]]:
    """Number the structures of all cases, anew if that is allowed and the labels of the dataset are in the way."""
    cases, surveys = [case for case, _ in read], [survey for _, survey in read]
    plan, findings = make_plan(cases, surveys, options.rules, before, wanted)
    if options.renew and before.cases and any(finding.error for finding in findings):
        plan, findings = make_plan(cases, surveys, options.rules, Record(), wanted)
        names = set(plan.table.names.values())
        lost = [name for name in before.table.names.values() if name not in names]
        if lost:
            findings.append(Finding(f"The labels are numbered anew, without {listed(lost, _MOST_LABELS)}."))
    return plan, findings


def _folder(dataset_id: int, name: str | None, nnunet_raw: Path | None) -> Path:
    """Return the folder of the dataset: without a name, the one with this number that was collected before."""
    if name is None:
        pattern = f"Dataset{dataset_id:03d}_*"
        found = [file.parent for file in raw_root(nnunet_raw).glob(f"{pattern}/{RECORD}")]
        name = found[0].name.partition("_")[2] if len(found) == 1 else _NAME
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ClassScaleError(f"{name!r} cannot be the name of a dataset. Use letters, digits, '_', '-' and '.'.")
    return dataset_path(dataset_id, name, nnunet_raw)


def _channels(options: CollectOptions, before: Record, wanted: Wanted | None) -> tuple[str, ...]:
    """Return the names of the channels; none if only the images can tell."""
    given = options.channels
    if given is not None:
        refuse_equal_channels(given)
    if given is not None and before.channels and given != before.channels:
        raise OutputExistsError(
            f"The dataset was collected with the channels {', '.join(before.channels)}, not {', '.join(given)}. Allow "
            "overwriting (--overwrite) to make it anew, or choose another number."
        )
    return given or before.channels or (wanted.channels if wanted else None) or ()


def refuse_equal_channels(names: Sequence[str]) -> None:
    """Refuse channels of the same name, or without one.

    :raises ClassScaleError: if there are such.
    """
    if not all(name.strip() for name in names) or len(set(names)) < len(names):
        raise ClassScaleError(f"--channels {' '.join(names)}: give each channel a name of its own.")


def _gone(cases: Sequence[Case], before: Record, folder: Path) -> list[Finding]:
    """Find cases of the dataset that are no longer there."""
    gone = sorted(before.cases.keys() - {case.name for case in cases})
    if not gone:
        return []
    them = "them" if len(gone) > 1 else "it"
    sentence = (
        f"{folder.name} has {len(gone)} case{'s' * (len(gone) > 1)} more than are collected now: {listed(gone)}. Put "
        f"{them} back, or allow overwriting (--overwrite) to make the dataset anew without {them}."
    )
    return [Finding(sentence, OutputExistsError)]


def _modality(modalities: Sequence[str], findings: list[Finding]) -> tuple[str, ...]:
    """Return the only modality of DICOM series as the name of the channel."""
    if len(modalities) == 1 and modalities[0] in _MODALITIES:
        return (modalities[0],)
    if modalities:
        sentence = f"The DICOM series are {' and '.join(modalities)}. Say what the images are, such as --channels CT."
        findings.append(Finding(sentence, LabelTableError))
    return ("?",)  # there are faults


def _other_modality(channels: Sequence[str], modalities: Sequence[str]) -> list[Finding]:
    """Find DICOM series that nnU-Net would normalise in a wrong way: it goes by the name of the channel."""
    if not modalities or (channels == ("CT",)) == (list(modalities) == ["CT"]):
        return []
    made = f"The DICOM series are {' and '.join(modalities)}, but the channel is called {channels[0]}"
    advice = f"they will be normalised like CT. Say what they are, such as --channels {modalities[-1]}."
    if channels != ("CT",):
        advice = "they will not be normalised like CT. If they are to be, add --channels CT."
    return [Finding(f"{made}: {advice} A training that begins with a model normalises as that model does.")]


def _covered(covered: Mapping[str, Sequence[str]], rules: Rules) -> Iterator[Finding]:
    """Find structures of which the other ones leave nothing where they overlap."""
    for name, cases in covered.items():
        yield Finding(
            f"With --overlap {rules.overlap}, other labels cover all of {name} in {listed(cases)}, and its label map "
            "has none of it."
        )


def _surveys(
    cases: Sequence[Case], names: LabelTable | None, workers: int, progress: bool
) -> Iterable[Survey | Finding]:
    work = functools.partial(survey_case, names)
    done = 0
    try:
        for found in _bar("Reading cases", progress, map_cases(work, cases, min(workers, len(cases))), len(cases)):
            yield found
            done += 1
    except ProcessKilledError as error:
        raise OutOfMemoryError(
            f"A process that read {cases[done].name} or a case near it was killed, most likely because memory ran out. "
            "Run the command again with fewer processes (--workers)."
        ) from error


def _bar(what: str, shown: bool, items: Iterable[Any], total: int) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, disable=None if shown else True)


def describe(collected: Collected) -> Iterator[str]:
    """Yield lines that say what the dataset is made of."""
    plan, written = collected.plan, collected.written
    labels = [f"{value} {name}" for value, name in plan.table.names.items()]
    count = f"{len(plan.cases)} case{'s' * (len(plan.cases) != 1)}"
    what = f"{count}, {len(labels)} label{'s' * (len(labels) != 1)}: {listed(labels, _MOST_LABELS)}"
    if written is None:
        yield from labels
        yield f"{what}. Nothing was written."
    elif written.finished:
        yield f"{collected.folder} is finished already: {what}."
    else:
        done = [f"{n} {word}" for word in ("new", "changed", "removed") if (n := getattr(written, word))]
        images = [f"{n} image{'s' * (n != 1)} {way}" for way, n in sorted((written.images or {}).items())]
        yield f"{collected.folder}: {what}; {', '.join([*done, *images]) or 'as before'}."
    if 0 < plan.new < len(labels):
        yield f"New labels, behind those that the dataset has: {listed(labels[-plan.new :], _MOST_LABELS)}."
    if plan.merged is not None:
        groups = [f"{source.name}: {source.share:g}" for source in plan.merged.datasets]
        yield f"Groups of cases, whose background may contain what nobody has drawn there: {listed(groups)}."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg-train collect``."""
    add = parser.add_argument
    add_folders(parser)
    add("-d", type=int, required=True, metavar="ID", help="number of the dataset")
    add("--name", help="its name (default: that which it has, or Collected)")
    labels = "label table, dataset.json or model that names the wanted labels in their order"
    add("--labels", metavar="TABLE", help=f"{labels} (default: all, as they appear)")
    channels = "what the images are, such as CT, or T1 FLAIR (default: as before, as in TABLE, or as DICOM says)"
    add("--channels", nargs="+", metavar="NAME", help=channels)
    missing = "a structure that a case lacks is not in its image (background), or may be there (unlabelled)"
    add("--missing", choices=MISSING, help=f"{missing} (default: stop)")
    overlap = "which label wins where structures overlap, the first or the last of the dataset's labels"
    add("--overlap", choices=OVERLAP, help=f"{overlap} (default: stop)")
    add("--corrected", action="store_true", help="leave out results that nobody has changed, or checked in Slicer")
    under = "segmentations of the same names, from which a case gets what its own one lacks, such as those of `fill`"
    add("--under", type=Path, metavar="DIR", help=under)
    add("--check", action="store_true", help="read all cases, print the labels, and write nothing")
    add("--overwrite", action="store_true", help="make the dataset anew, with the labels and cases of this call alone")
    add("--renew", action="store_true", help="do so only if the dataset has cases or labels that are no longer there")
    add("--workers", type=int, default=0, metavar="N", help="number of worker processes; 0 or 1: none (default: 0)")
    add("--no_pbar", action="store_true", help="show no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Run ``classscaleseg-train collect`` and return its exit code.

    :raises ClassScaleError: as :func:`collect`.
    """
    images, segmentations = named_folders(arguments)
    channels = None if arguments.channels is None else tuple(arguments.channels)
    options = CollectOptions(
        name=arguments.name,
        labels=arguments.labels,
        channels=channels,
        corrected=arguments.corrected,
        under=arguments.under,
        rules=Rules(arguments.missing, arguments.overlap),
        overwrite=arguments.overwrite,
        renew=arguments.renew,
        workers=arguments.workers,
    )
    bar = not arguments.no_pbar
    collected = collect(images, segmentations, arguments.d, options, write=not arguments.check, progress=bar)
    print("\n".join(describe(collected)))
    if collected.written is not None:
        print(f"Next: classscaleseg-train plan -d {arguments.d}")
    return 0
