"""The command ``finetune`` of ``classscaleseg-train``: from corrected segmentations to a model that learned from them.

It runs the commands ``collect``, ``plan --like``, ``preprocess``, ``train``, ``export`` and, if cases are left out of
the training, ``compare-models``, each in a process of its own, and keeps nnU-Net's three folders in one, and what they
print in logs. What is done is not done again, so the
same command goes on after an interruption. Every state of the cases, and every model to begin with, has its own folder
of results: a training on further cases begins anew, and nothing that was learned before is lost.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from ClassScaleSegLib.catalog.catalog import resolve_model
from ClassScaleSegLib.errors import ClassScaleError, OutputError
from ClassScaleSegLib.files import refuse_existing, refuse_replacing, refuse_unwritable_folder, unwritable
from ClassScaleSegLib.images.paired_cases import segmentation_files
from ClassScaleSegLib.labels.sides import pair_of_sides
from ClassScaleSegLib.models.files import open_source
from ClassScaleSegLib.models.identity import model_sha256
from ClassScaleSegLib.models.model import read_parts
from ClassScaleSegLib.process.exit_codes import exit_code
from ClassScaleSegLib.process.parent_watch import ParentWatch

from ..data.collect.cases import add_folders, named_folders
from ..data.collect.plan import MISSING, OVERLAP, UNLABELLED, group_prefix
from ..data.collect.record import RECORD
from ..evaluation.models_command import FACTS
from ..files import alone, read_json, write_json
from .environment import LENGTHS, PLANS, TRAINER, find_trainer, make_torchvision_importable
from .finetune_report import JsonReport, Report
from .finetune_work import DATASET, ID, StepFailed, Work, killed
from .path_lengths import refuse_long_paths, training_files
from .planning_arguments import count
from .splits import SPLITS, read_splits
from .train_command import rate

EPOCHS = 100
RATE = 0.001  # a tenth of that with which nnU-Net begins: the weights are good already
BEFORE, NOW = "before", "now"  # how the models are called that are compared
_STATE = 8  # letters of the name of a state
_NOTE = "preprocessed.json"  # in the work folder: of which cases and model the preprocessed ones are
_LAST, _TABLE = "checkpoint_final.pth", "comparison.csv"
_FOLDS = (*"01234", "all")


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
    missing = "a structure that a case lacks is not in its image (background), or may be there (unlabelled)"
    add("--missing", choices=MISSING, help=f"{missing} (default: stop)")
    add("--overlap", choices=OVERLAP, help="which label wins where structures overlap (default: stop)")
    add("--corrected", action="store_true", help="leave out results of segment that nobody has changed")
    add("--learning-rate", type=rate, metavar="RATE", help=f"of the first epoch (default: {RATE:g})")
    add("--workers", type=count, default=2, metavar="N", help="processes that read and prepare cases (default: 2)")
    add("--trainer", metavar="NAME", help="trainer of nnU-Net, instead of the one that labels and --epochs say")
    add("--name", help="name of the model (default: that of the bundle)")
    add("--licence", help="licence of the weights; that of the model must allow it")
    add("--overwrite", action="store_true", help="replace an existing bundle")
    add("--json-progress", action="store_true", help="report progress as JSON lines on standard output")
    add("--stop-with-parent", nargs=2, metavar=("PID", "FOLDER"), help=argparse.SUPPRESS)


@dataclass(frozen=True)
class _Begin:
    """The model to begin with.

    :ivar named: as the user named it.
    :ivar mirrored: it was trained with mirrored images.
    """

    named: str
    path: Path
    channels: tuple[str, ...]
    configuration: str
    mirrored: bool

    @classmethod
    def read(cls, named: str) -> _Begin:
        """Read a model, its weights too, so that damage is noticed before hours of work.

        :raises ModelError: if it cannot be used, or was not planned by nnU-Net.
        """
        from .plans_of_model import ModelPlans

        summary = ModelPlans.read(named).summary
        (path,) = resolve_model(named)
        with open_source(path) as files:
            mirrored = bool(read_parts(files, None, "final", None).mirror_axes)
        return cls(named, path, summary.channel_names, summary.configuration_name, mirrored)


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
        return _finetune(options, Report(epochs, options.fold != "all"))
    report = JsonReport(epochs, options.fold != "all")
    with _watched(options):
        try:
            return _finetune(options, report)
        except ClassScaleError as error:
            report.failed("", str(error))
            return int(exit_code(error))


@contextmanager
def _watched(options: argparse.Namespace) -> Iterator[None]:
    """Let the parent end the command within the block, by a termination signal or by its own end."""
    embedded = threading.current_thread() is not threading.main_thread()  # which alone can catch signals
    before = None if embedded else signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ParentWatch(*options.stop_with_parent) if options.stop_with_parent else nullcontext():
            yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _finetune(options: argparse.Namespace, report: Report) -> int:
    """Do what :func:`run` does, and report it."""
    from ..processes.device import usable_device

    output = _checked_output(options)
    if options.fold not in _FOLDS:
        raise ClassScaleError(f"{options.fold} is not a fold: give 0 to 4, or all.")
    trainer = _checked_trainer(options)
    images, segmentations = named_folders(options)
    device = usable_device(options.device).type
    begin = _Begin.read(options.model)
    work = Work((options.work or output.with_suffix(".training")).resolve(), report)
    _refuse_long_paths(work, begin, trainer if options.trainer else f"{trainer}_NoMirroring", options, segmentations)
    try:
        work.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(work.root, error) from error
    with alone(work.root / ".lock", f"{work.root} is being used"):
        _refuse_other_dataset(work)
        try:
            folders = ["-i", str(images), "-s", str(segmentations)]
            work.step("collect", [*_collected(options), *folders, "--channels", *(options.channels or begin.channels)])
            _check_fold(work, options.fold)
            state = _prepare(work, begin, options.workers)
            if options.trainer is None and (not begin.mirrored or _has_sides(work)):
                trainer += "_NoMirroring"
            results = work.root / "results" / _results_name(state, options)
            trained = _learn(work, begin, results, trainer, device, options)
            work.step("export", _exported(options, work, trained), results)
        except StepFailed as failed:
            return failed.code
        if options.fold != "all":
            _compare(options, work, begin, output, state, trained)
    following = f"Next: classscaleseg segment IMAGE -m {shlex.quote(str(output))} -o RESULT.seg.nrrd"
    report.finished(output.resolve(), following)
    return 0


def _checked_output(options: argparse.Namespace) -> Path:
    """Return the bundle to write, if it can be written.

    :raises OutputError: if it is no zip, cannot be written, exists and is not to be replaced, or is the model itself.
    """
    output: Path = options.output
    if output.suffix.lower() != ".zip":
        raise OutputError(f"{output} must end in .zip: a bundle is a zip.")
    refuse_existing(output, options.overwrite)
    refuse_unwritable_folder(output)
    refuse_replacing(output, list(resolve_model(options.model)))
    return output


def _checked_trainer(options: argparse.Namespace) -> str:
    """Return the name of the trainer, without what depends on the labels.

    :raises ClassScaleError: if there is none with so many epochs, or a trainer is named too.
    :raises ModelError: if there is no trainer of this name.
    """
    if options.trainer is None:
        return trainer_of(EPOCHS if options.epochs is None else options.epochs)
    if options.epochs is not None:
        raise ClassScaleError("A trainer decides on the number of epochs: leave out --epochs or --trainer.")
    make_torchvision_importable()
    with redirect_stdout(None):  # nnU-Net misses its variables, which are set later
        find_trainer(options.trainer)
    return options.trainer


def trainer_of(epochs: int) -> str:
    """Return the name of the trainer with a number of epochs.

    :raises ClassScaleError: if there is none.
    """
    if epochs != 1000 and epochs not in LENGTHS:
        raise ClassScaleError(
            f"There is no trainer with {epochs} epochs. Choose {', '.join(map(str, sorted((*LENGTHS, 1000))))}."
        )
    return TRAINER if epochs == 1000 else f"{TRAINER}_{epochs}epoch{'s' * (epochs > 1)}"


def _collected(options: argparse.Namespace) -> list[str]:
    """Return the other arguments of ``collect``, but for the channels."""
    given = [("--labels", options.labels), ("--missing", options.missing), ("--overlap", options.overlap)]
    more = [part for flag, value in given if value is not None for part in (flag, value)]
    named = ["--name", DATASET.partition("_")[2], "--workers", str(options.workers)]
    return ["-d", str(ID), *named, *more, "--renew", *["--corrected"][: options.corrected]]


def _check_fold(work: Work, fold: str) -> None:
    """Check that the collected cases have a fold: as many as there are cases, at most five.

    :raises ClassScaleError: if they do not.
    """
    cases = read_json(work.raw / "dataset.json", {"numTraining": int}, "Run the command again.")["numTraining"]
    folds = min(cases, 5) if cases > 1 else 0
    if fold == "all" or int(fold) < folds:
        return
    if not folds:
        raise ClassScaleError("A single case has no folds: nothing would be left to train on. So train the fold all.")
    raise ClassScaleError(f"{cases} cases have the folds 0 to {folds - 1}, not {fold}.")


def _prepare(work: Work, begin: _Begin, workers: int) -> str:
    """Plan and preprocess the collected cases, if that is not done.

    :returns: a name for these cases and the model to begin with, the same only for the same.
    """
    state = _state(work, begin.path)
    if not _is_noted(work, state):
        _forget(work)
        work.step("plan", ["-d", str(ID), "--like", begin.named, "-npfp", str(workers)])
        work.step("preprocess", ["-d", str(ID), "-c", begin.configuration, "-np", str(workers)])
        write_json(work.root / _NOTE, {"state": state})
    return state


def _results_name(state: str, options: argparse.Namespace) -> str:
    """Return the name of the folder of results: another learning rate is another training."""
    return state if options.learning_rate is None else f"{state}-{options.learning_rate:g}"


def _learn(work: Work, begin: _Begin, results: Path, trainer: str, device: str, options: argparse.Namespace) -> Path:
    """Train a fold, or go on with it, if that is not done; return the folder of the training."""
    fold, learning_rate = options.fold, options.learning_rate
    if learning_rate is None and options.trainer is None:
        learning_rate = RATE
    results.mkdir(parents=True, exist_ok=True)
    trained = results / DATASET / _trained(begin, trainer)
    if not (trained / f"fold_{fold}" / _LAST).is_file():
        learn = [str(ID), begin.configuration, fold, "-tr", trainer, "-device", device, "--c", "--no-validation"]
        learn += [] if learning_rate is None else ["--learning-rate", f"{learning_rate:g}"]
        work.step("train", [*learn, "-pretrained_weights", begin.named], results)
        if fold != "all":
            write_json(trained / f"fold_{fold}" / SPLITS, read_splits(work.plans.with_name(SPLITS)))
    return trained


def _compare(options: argparse.Namespace, work: Work, begin: _Begin, output: Path, state: str, trained: Path) -> None:
    """Compare the new model with the one that it began with, on the cases that the training has not seen.

    There is a new model, whatever happens here.
    """
    results = work.root / "compared" / f"{state}-{options.fold}"
    facts = results / FACTS
    cases = ["-i", str(work.raw / "imagesTr"), "-s", str(work.raw / "labelsTr")]
    models = ["-m", begin.named, "-m", str(output), "--labels", str(work.raw / "labels.csv")]
    kept = ["--names", BEFORE, NOW, "--results", str(results), "-o", str(results / _TABLE), "--overwrite"]
    try:
        cases += ["--cases", *read_splits(_splits_of(work, trained, options.fold))[int(options.fold)]["val"]]
        with suppress(FileNotFoundError):
            facts.unlink()
        ended = work.ended("compare-models", [*cases, *models, *kept, "-device", options.device])
        if facts.is_file():
            found = read_json(facts, {"cases": list, "structures": list, "mean_dice": list}, "Run the command again.")
            work.report.compared(found, results / _TABLE)
            return
        why = (ended.error or killed(ended)).strip()
    except OSError as error:
        why = str(unwritable(facts, error))
    except ClassScaleError as error:
        why = str(error)
    except KeyboardInterrupt:
        work.report.line(f"{output} is written, but was not compared. To do so: {_again(cases, models)}")
        raise
    again = _again(cases, models)
    work.report.line(f"The new model is written, but could not be compared: {why} To try again: {again}")


def _again(cases: Sequence[str], models: Sequence[str]) -> str:
    """Return the command that compares models, as a user types it."""
    return shlex.join(["classscaleseg-train", "compare-models", *cases, *models])


def _splits_of(work: Work, trained: Path, fold: str) -> Path:
    """Return the file with the folds by which a fold was trained.

    It is kept with the training: the preprocessed cases may have been others since, and back again.
    """
    kept = trained / f"fold_{fold}" / SPLITS
    return kept if kept.is_file() else work.plans.with_name(SPLITS)


def _trained(begin: _Begin, trainer: str) -> str:
    """Return the name of nnU-Net's folder of a training."""
    return f"{trainer}__{PLANS}__{begin.configuration}"


def _refuse_long_paths(
    work: Work, begin: _Begin, trainer: str, options: argparse.Namespace, segmentations: Path
) -> None:
    """Refuse a folder in which Windows refuses the paths of files.

    :param segmentations: folder with a file for each case.
    :raises OutputError: if there would be such a file.
    """
    names = list(segmentation_files(segmentations)) if segmentations.is_dir() else []
    if options.missing == UNLABELLED:
        names = [f"{group_prefix(0)}{name}" for name in names]  # as in merged datasets
    refuse_long_paths(
        work.root,
        training_files(DATASET, _results_name("0" * _STATE, options), _trained(begin, trainer), options.fold, names),
    )


def _refuse_other_dataset(work: Work) -> None:
    """Refuse a folder with another dataset of the same number, as earlier versions have named it after the folder.

    :raises OutputError: naming it.
    """
    for folder in (work.raw.parent, work.plans.parents[1]):
        if others := [other for other in folder.glob(f"Dataset{ID:03d}_*") if other.name != DATASET]:
            raise OutputError(
                f"{others[0]} was made by an earlier version or by another program, and no training can go on with "
                f"it. Delete {work.root}, or choose another folder (-o or --work)."
            )


def _exported(options: argparse.Namespace, work: Work, trained: Path) -> list[str]:
    """Return the arguments of ``export``."""
    output: Path = options.output
    about = ["--labels", str(work.raw / "labels.csv"), f"--name={options.name or output.stem}"]
    licence = [f"--licence={options.licence}"] if options.licence else []
    overwrite = ["--overwrite"][: options.overwrite]
    return ["-m", str(trained), "-f", options.fold, "-o", str(output), *about, *licence, *overwrite]


def _state(work: Work, model: Path) -> str:
    """Return a name for the collected cases and the model to begin with, the same only for the same."""
    digest = hashlib.sha256(model_sha256(model).encode())
    for file in (RECORD, "dataset.json"):
        digest.update((work.raw / file).read_bytes())
    return digest.hexdigest()[:_STATE]


def _is_noted(work: Work, state: str) -> bool:
    """Return whether the cases have been planned and preprocessed in this state."""
    file = work.root / _NOTE
    return file.is_file() and work.plans.is_file() and read_json(file, {}, f"Delete {file}.").get("state") == state


def _forget(work: Work) -> None:
    """Forget what was preprocessed before, and its folds, in which other cases would not be.

    Cases can return to an earlier state after the preprocessing of another one was interrupted.

    :raises OutputError: if a file cannot be deleted.
    """
    for file in (work.root / _NOTE, work.plans.with_name(SPLITS)):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(file, error) from error


def _has_sides(work: Work) -> bool:
    """Return whether labels tell left from right."""
    labels = read_json(work.raw / "dataset.json", {"labels": dict}, "Run the command again.")["labels"]
    return pair_of_sides(labels) is not None
