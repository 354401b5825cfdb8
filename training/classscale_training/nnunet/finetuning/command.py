"""The command ``finetune`` of ``classscaleseg-train``: from corrected segmentations to a model that learned from them.

It runs the commands ``collect``, ``plan --like``, ``preprocess``, ``train`` and ``export``, each in a process of its
own, and keeps nnU-Net's three folders in one, and what they print in logs. With ``--fill``, ``fill`` comes first; if
cases are left out of the training, ``compare-models`` comes last. What is done is not done again, so the same command
goes on after an interruption. Every state of the cases, and every model to begin with, has its own folder of results: a
training on further cases begins anew, and nothing that was learned before is lost.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import unwritable
from ClassScaleSegLib.images.paired_cases import segmentation_files
from ClassScaleSegLib.labels.sides import pair_of_sides
from ClassScaleSegLib.models.identity import model_sha256

from ...data.collect.cases import add_folders, named_folders
from ...data.collect.plan import MISSING, OVERLAP
from ...data.collect.wanted import read_wanted
from ...files import alone, read_json, write_json
from ...processes.json_progress import add_progress_options, reported
from .. import optimizer_rates
from ..optimizer_rates import ADAMW, SGD
from ..planning_arguments import count
from ..splits import SPLITS, read_splits
from ..train_command import rate
from .begin import Begin
from .checks import (
    EPOCHS,
    FOLDS,
    check_channels,
    check_fold,
    checked_output,
    checked_trainer,
    refuse_long_names,
    refuse_other_dataset,
)
from .comparison import compare
from .preparing import name_of, prepare, results_name
from .report import JsonReport, Report
from .work import DATASET, ID, StepFailed, Work

# The weights are good already: SGD begins with a tenth of nnU-Net's rate.
RATES = {SGD: optimizer_rates.RATES[SGD] / 10, ADAMW: optimizer_rates.RATES[ADAMW]}
_LAST = "checkpoint_final.pth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`run`."""
    add = parser.add_argument
    add_folders(parser)
    add("-m", "--model", required=True, metavar="MODEL", help="model to begin with: a bundle, a folder or a name")
    add("-o", "--output", type=Path, required=True, metavar="BUNDLE.zip", help="bundle to write")
    add("--work", type=Path, metavar="DIR", help="folder of all between (default: beside the bundle, NAME.training)")
    add("--epochs", type=int, metavar="N", help=f"epochs of 250 steps (default: {EPOCHS})")
    add("--fold", default="all", help="0 to 4 leaves out a fifth of the cases, to compare (default: all)")
    add("-device", choices=("auto", "cuda", "cpu", "mps"), default="auto", help="device (default: CUDA, or the CPU)")
    channels = "what the images are, such as CT, or T1 FLAIR (default: as the model's)"
    add("--channels", nargs="+", metavar="NAME", help=channels)
    labels = "label table, dataset.json or model that names the wanted labels in their order"
    add("--labels", metavar="TABLE", help=f"{labels} (default: all that the cases have)")
    fill = "a structure that the model knows and a case lacks is there what the model finds: so that it forgets nothing"
    add("--fill", action="store_true", help=fill)
    missing = "a structure that a case lacks is not in its image (background), or may be there (unlabelled)"
    add("--missing", choices=MISSING, help=f"{missing} (default: stop)")
    add("--overlap", choices=OVERLAP, help="which label wins where structures overlap (default: stop)")
    add("--corrected", action="store_true", help="leave out results that nobody has changed, or checked in Slicer")
    add("--optimizer", choices=tuple(RATES), help=f"{SGD} (default), or {ADAMW} with a warm-up, for a single epoch")
    rates = ", ".join(f"{value:g} for {name}" for name, value in RATES.items())
    add("--learning-rate", type=rate, metavar="RATE", help=f"of the first epoch (default: {rates})")
    add("--workers", type=count, default=2, metavar="N", help="processes that read and prepare cases (default: 2)")
    add("--trainer", metavar="NAME", help="trainer of nnU-Net, instead of the one that labels and --epochs say")
    add("--name", help="name of the model (default: that of the bundle)")
    add("--licence", help="licence of the weights; that of the model must allow it")
    add("--overwrite", action="store_true", help="replace an existing bundle")
    add_progress_options(parser)


def run(options: argparse.Namespace) -> int:
    """Fine-tune a model on corrected segmentations, and write it as a bundle.

    :param options: parsed from the arguments of :func:`add_arguments`.
    :returns: 0, or the exit code of the step that failed, which has said why; 0 too if only the comparison failed.
    :raises ClassScaleError: if an argument is wrong, or the device cannot be used.
    :raises ModelError: if the model cannot be used, or was not planned by nnU-Net, or there is no such trainer.
    :raises OutputError: if the output cannot be written or exists already.
    :raises Busy: if another process works in the same folder.
    """
    epochs = None if options.trainer is not None else EPOCHS if options.epochs is None else options.epochs
    if not options.json_progress:
        return _finetune(options, Report(epochs, options.fold != "all", options.fill))
    return reported(options, lambda: _finetune(options, JsonReport(epochs, options.fold != "all", options.fill)))


def _finetune(options: argparse.Namespace, report: Report) -> int:
    """Do what :func:`run` does, and report it."""
    from ...processes.device import usable_device

    output = checked_output(options)
    if options.fold not in FOLDS:
        raise ClassScaleError(f"{options.fold} is not a fold: give 0 to 4, or all.")
    trainer, named = checked_trainer(options)
    images, segmentations = named_folders(options)
    device = usable_device(options.device).type
    begin = Begin.read(options.model, named)
    check_channels(options, begin)
    if options.labels is not None:
        read_wanted(options.labels)
    if options.fold != "all" and segmentations.is_dir():
        check_fold(len(segmentation_files(segmentations)), options.fold)  # and again without those that are left out
    work = Work((options.work or output.with_suffix(".training")).resolve(), report)
    refuse_long_names(work, begin, trainer if options.trainer else f"{trainer}_NoMirroring", options, segmentations)
    try:
        work.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(work.root, error) from error
    with alone(work.root / ".lock", f"{work.root} is being used"):
        refuse_other_dataset(work)
        try:
            folders = ["-i", str(images), "-s", str(segmentations)]
            chosen = [*_labels(options), *["--corrected"][: options.corrected]]
            under = _filled(work, begin, [*folders, *chosen], device) if options.fill else []
            channels = ["--channels", *(options.channels or begin.channels)]
            work.step("collect", [*_collected(options), *chosen, *folders, *under, *channels])
            check_fold(_collected_cases(work), options.fold)
            state = prepare(work, begin, options.workers)
            if options.trainer is None and (not begin.mirrored or _has_sides(work)):
                trainer += "_NoMirroring"
            results = work.root / "results" / results_name(state, options)
            trained = _learn(work, begin, results, trainer, device, options)
            work.step("export", _exported(options, work, trained), results)
        except StepFailed as failed:
            return failed.code
        if options.fold != "all":
            compare(options, work, begin, output, state, trained)
    following = f"Next: classscaleseg segment IMAGE -m {shlex.quote(str(output))} -o RESULT.seg.nrrd"
    report.finished(output.resolve(), following)
    return 0


def _filled(work: Work, begin: Begin, cases: Sequence[str], device: str) -> list[str]:
    """Segment the cases with the model, and return the arguments of ``collect`` that name the results.

    :param cases: arguments that say which they are.
    """
    found = work.root / "found" / name_of(model_sha256(begin.path))
    work.step("fill", [*cases, "-m", begin.named, "-o", str(found), "-device", device])
    return ["--under", str(found)]


def _labels(options: argparse.Namespace) -> list[str]:
    return [] if options.labels is None else ["--labels", options.labels]


def _collected(options: argparse.Namespace) -> list[str]:
    """Return arguments of ``collect``."""
    given = [("--missing", options.missing), ("--overlap", options.overlap)]
    more = [part for flag, value in given if value is not None for part in (flag, value)]
    named = ["--name", DATASET.partition("_")[2], "--workers", str(options.workers)]
    return ["-d", str(ID), *named, *more, "--renew"]


def _collected_cases(work: Work) -> int:
    """Return how many cases were collected."""
    return read_json(work.raw / "dataset.json", {"numTraining": int}, "Run the command again.")["numTraining"]


def _learn(work: Work, begin: Begin, results: Path, trainer: str, device: str, options: argparse.Namespace) -> Path:
    """Train a fold, or go on with it, if that is not done; return the folder of the training."""
    fold, (optimizer, learning_rate) = options.fold, _optimizer(options)
    results.mkdir(parents=True, exist_ok=True)
    trained = results / DATASET / begin.trained(trainer)
    if not (trained / f"fold_{fold}" / _LAST).is_file():
        learn = [str(ID), begin.configuration, fold, "-tr", trainer, "-device", device, "--c", "--no-validation"]
        learn += [] if optimizer is None else ["--optimizer", optimizer]
        learn += [] if learning_rate is None else ["--learning-rate", f"{learning_rate:g}"]
        work.step("train", [*learn, "-pretrained_weights", begin.named], results)
        if fold != "all":
            write_json(trained / f"fold_{fold}" / SPLITS, read_splits(work.plans.with_name(SPLITS)))
    return trained


def _optimizer(options: argparse.Namespace) -> tuple[str | None, float | None]:
    """Return the optimiser, if it is not the trainer's, and the learning rate, if it is not that of --trainer."""
    name = options.optimizer
    if options.learning_rate is not None or (name is None and options.trainer is not None):
        return name, options.learning_rate
    return name, RATES[name or SGD]


def _exported(options: argparse.Namespace, work: Work, trained: Path) -> list[str]:
    """Return the arguments of ``export``."""
    output: Path = options.output
    about = ["--labels", str(work.raw / "labels.csv"), f"--name={options.name or output.stem}"]
    licence = [f"--licence={options.licence}"] if options.licence else []
    overwrite = ["--overwrite"][: options.overwrite]
    return ["-m", str(trained), "-f", options.fold, "-o", str(output), *about, *licence, *overwrite]


def _has_sides(work: Work) -> bool:
    """Return whether labels tell left from right."""
    labels = read_json(work.raw / "dataset.json", {"labels": dict}, "Run the command again.")["labels"]
    return pair_of_sides(labels) is not None
