"""The command ``finetune`` of ``classscaleseg-train``: from corrected segmentations to a model that learned from them.

It runs the commands ``collect``, ``plan --like``, ``preprocess``, ``train`` and ``export``, each in a process of its
own, and keeps nnU-Net's three folders in one, with a log of all that they print. What is done is not done again, so the
same command goes on after an interruption. Every state of the cases, and every model to begin with, has its own folder
of results: a training on further cases begins anew, and nothing that was learned before is lost.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ClassScaleSegLib.catalog.catalog import resolve_model
from ClassScaleSegLib.errors import ClassScaleError, OutputError
from ClassScaleSegLib.files import refuse_existing, refuse_replacing, refuse_unwritable_folder, unwritable
from ClassScaleSegLib.labels.sides import pair_of_sides
from ClassScaleSegLib.models.files import open_source
from ClassScaleSegLib.models.identity import model_sha256
from ClassScaleSegLib.models.model import read_parts
from ClassScaleSegLib.process.exit_codes import ExitCode

from ..data.collect.cases import folders_in
from ..data.collect.plan import MISSING, OVERLAP
from ..data.collect.record import RECORD
from ..files import alone, read_json, write_json
from .environment import PLANS, TRAINER, find_trainer, make_torchvision_importable
from .planning_arguments import count
from .splits import SPLITS

ID, EPOCHS = 1, 100
# The steps, and which of their lines are shown, by a group of a pattern; warnings and faults come another way.
_STEPS = {
    "collect": re.compile(r"(?!Next: )(.*)"),
    "plan": re.compile(r"(The plans of .*)"),
    "preprocess": re.compile(r"(?!)"),
    "train": re.compile(
        r"[-\d]{10} [\d:.]+: ((?:Epoch|train_loss|val_loss|WARNING|The network|Of \d|Training done).*)"
    ),
    "export": re.compile(r"(.*)"),
}
_NOTE = "preprocessed.json"  # in the work folder: of which cases and model the preprocessed ones are
_LAST = "checkpoint_final.pth"
_FOLDS = (*"01234", "all")
_SECONDS_TO_END = 30
# The child ends when this process was killed; nothing else could stop a training then.
_CHILD = (
    "from classscale_training.processes.parent import end_with_parent; end_with_parent(); "
    "from classscale_training.commands import run; run()"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`run`."""
    add = parser.add_argument
    text = "training folder, with the folders images and segmentations"
    add("folder", nargs="?", type=Path, metavar="FOLDER", help=text)
    add("-i", "--images", type=Path, metavar="DIR", help="folder of the images, instead of FOLDER")
    add("-s", "--segmentations", type=Path, metavar="DIR", help="folder of segmentations with the names of the images")
    add("-m", "--model", required=True, metavar="MODEL", help="model to begin with: a bundle, a folder or a name")
    add("-o", "--output", type=Path, required=True, metavar="BUNDLE.zip", help="bundle to write")
    add("--work", type=Path, metavar="DIR", help="folder of all between (default: beside the bundle, NAME.training)")
    add("--epochs", type=int, default=EPOCHS, metavar="N", help=f"epochs of 250 steps (default: {EPOCHS})")
    add("--fold", default="all", help="0 to 4 leaves a fifth of the cases for validation (default: all, none is left)")
    add("-device", choices=("auto", "cuda", "cpu", "mps"), default="auto", help="device (default: CUDA, or the CPU)")
    channels = "what the images are, such as CT, or T1 FLAIR (default: as the model's)"
    add("--channels", nargs="+", metavar="NAME", help=channels)
    labels = "label table, dataset.json or model that names the wanted labels in their order"
    add("--labels", metavar="TABLE", help=f"{labels} (default: all that the cases have)")
    missing = "a structure that a case lacks is not in its image (background), or may be there (unlabelled)"
    add("--missing", choices=MISSING, help=f"{missing} (default: stop)")
    add("--overlap", choices=OVERLAP, help="which label wins where structures overlap (default: stop)")
    add("--corrected", action="store_true", help="leave out results of segment that nobody has changed")
    add("--workers", type=count, default=2, metavar="N", help="processes that read and prepare cases (default: 2)")
    add("--trainer", metavar="NAME", help="trainer of nnU-Net, instead of the one that labels and --epochs say")
    add("--name", help="name of the model (default: that of the bundle)")
    add("--licence", help="licence of the weights; that of the model must allow it")
    add("--overwrite", action="store_true", help="replace an existing bundle")


@dataclass(frozen=True)
class _Work:
    """The folders of a fine-tuning.

    :ivar root: holds everything.
    """

    root: Path

    @property
    def dataset(self) -> str:
        """Name of the dataset: the same for all bundles that are made in the folder."""
        return f"Dataset{ID:03d}_{re.sub(r'[^A-Za-z0-9_-]+', '-', self.root.stem).strip('-_') or 'X'}"

    def environment(self, results: Path | None = None) -> dict[str, str]:
        folders = {"raw": self.root / "raw", "preprocessed": self.root / "preprocessed", "results": results}
        return {f"nnUNet_{name}": str(folder) for name, folder in folders.items() if folder is not None}

    @property
    def raw(self) -> Path:
        return self.root / "raw" / self.dataset

    @property
    def plans(self) -> Path:
        return self.root / "preprocessed" / self.dataset / f"{PLANS}.json"


def run(options: argparse.Namespace) -> int:
    """Fine-tune a model on corrected segmentations, and write it as a bundle.

    :param options: parsed from the arguments of :func:`add_arguments`.
    :returns: 0, or the exit code of the step that failed, which has said why.
    :raises ClassScaleError: if an argument is wrong, or the device cannot be used.
    :raises ModelError: if the model cannot be used, or was not planned by nnU-Net, or there is no such trainer.
    :raises OutputError: if the output cannot be written or exists already.
    :raises Busy: if another process works in the same folder.
    """
    from ..processes.device import usable_device
    from .plans_of_model import ModelPlans

    output: Path = options.output
    if output.suffix.lower() != ".zip":
        raise OutputError(f"{output} must end in .zip: a bundle is a zip.")
    if options.fold not in _FOLDS:
        raise ClassScaleError(f"{options.fold} is not a fold: give 0 to 4, or all.")
    refuse_existing(output, options.overwrite)
    refuse_unwritable_folder(output)
    sources = resolve_model(options.model)
    refuse_replacing(output, list(sources))
    trainer = options.trainer or trainer_of(options.epochs)
    if options.trainer is not None:
        make_torchvision_importable()
        with redirect_stdout(None):  # nnU-Net misses its variables, which are set later
            find_trainer(trainer)
    model = ModelPlans.read(options.model)  # which also says what is wrong with it
    device = usable_device(options.device).type
    name = options.name or output.stem
    work = _Work((options.work or output.with_suffix(".training")).resolve())
    try:
        work.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(work.root, error) from error
    with alone(work.root / ".lock", f"{work.root} is being used"):
        code = _step("collect", _collect(options, work, model.summary.channel_names), work)
        if code:
            return code
        state = _state(work, sources[0])
        if not _is_noted(work, state):
            _forget(work)
            planned = ["-d", str(ID), "--like", options.model, "-npfp", str(options.workers)]
            prepared = ["-d", str(ID), "-c", model.summary.configuration_name, "-np", str(options.workers)]
            code = _step("plan", planned, work) or _step("preprocess", prepared, work)
            if code:
                return code
            write_json(work.root / _NOTE, {"state": state})
        if options.trainer is None and _keeps_sides(work, sources[0]):
            trainer += "_NoMirroring"
        results, configuration = work.root / "results" / state, model.summary.configuration_name
        results.mkdir(parents=True, exist_ok=True)
        trained = results / work.dataset / f"{trainer}__{PLANS}__{configuration}"
        fold = trained / f"fold_{options.fold}"
        if not ((fold / _LAST).is_file() and (fold / "validation" / "summary.json").is_file()):
            learn = [str(ID), configuration, options.fold, "-tr", trainer, "-device", device, "--c"]
            code = _step("train", [*learn, "-pretrained_weights", options.model], work, results)
            if code:
                return code
        if options.fold != "all":  # else the validation has seen what was trained on
            print(_validated(fold / "validation" / "summary.json"))
        labels = ["--labels", str(work.raw / "labels.csv"), f"--name={name}"]
        licence = [f"--licence={options.licence}"] if options.licence else []
        export = ["-m", str(trained), "-f", options.fold, "-o", str(output), *labels, *licence]
        code = _step("export", [*export, *["--overwrite"][: options.overwrite]], work, results)
        if code:
            return code
    print(f"Next: classscaleseg segment IMAGE -m {shlex.quote(str(output))} -o RESULT.seg.nrrd")
    return 0


def trainer_of(epochs: int) -> str:
    """Return the name of the trainer with a number of epochs.

    :raises ClassScaleError: if there is none.
    """
    from .trainer_variants import LENGTHS

    if epochs != 1000 and epochs not in LENGTHS:
        raise ClassScaleError(
            f"There is no trainer with {epochs} epochs. Choose {', '.join(map(str, sorted((*LENGTHS, 1000))))}."
        )
    return TRAINER if epochs == 1000 else f"{TRAINER}_{epochs}epoch{'s' * (epochs > 1)}"


def _collect(options: argparse.Namespace, work: _Work, channels: Sequence[str]) -> list[str]:
    """Return the arguments of ``collect``.

    :raises ClassScaleError: if the folders are not named in one of both ways, or a folder lacks one of them.
    """
    pair = (options.images, options.segmentations)
    if (options.folder is None) == (None in pair) or (options.folder is not None and any(pair)):
        raise ClassScaleError("Give a training folder, or both -i IMAGES and -s SEGMENTATIONS.")
    images, segmentations = pair if options.folder is None else folders_in(options.folder)
    given = [("--labels", options.labels), ("--missing", options.missing), ("--overlap", options.overlap)]
    more = [part for flag, value in given if value is not None for part in (flag, value)]
    named = ["--name", work.dataset.partition("_")[2], "--workers", str(options.workers)]
    flags = ["--renew", *["--corrected"][: options.corrected]]
    places = ["-i", str(images), "-s", str(segmentations)]
    return [*places, "-d", str(ID), *named, *more, *flags, "--channels", *(options.channels or channels)]


def _state(work: _Work, model: Path) -> str:
    """Return a name for the collected cases and the model to begin with, the same only for the same."""
    digest = hashlib.sha256(model_sha256(model).encode())
    for file in (RECORD, "dataset.json"):
        digest.update((work.raw / file).read_bytes())
    return digest.hexdigest()[:12]


def _is_noted(work: _Work, state: str) -> bool:
    """Return whether the cases have been planned and preprocessed in this state."""
    file = work.root / _NOTE
    return file.is_file() and work.plans.is_file() and read_json(file, {}, f"Delete {file}.").get("state") == state


def _forget(work: _Work) -> None:
    """Forget what was preprocessed before, and its folds, in which other cases would not be.

    Cases can return to an earlier state after the preprocessing of another one was interrupted.

    :raises OutputError: if a file cannot be deleted.
    """
    for file in (work.root / _NOTE, work.plans.with_name(SPLITS)):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(file, error) from error


def _keeps_sides(work: _Work, model: Path) -> bool:
    """Return whether images must not be mirrored: labels or the model tell left from right."""
    labels = read_json(work.raw / "dataset.json", {"labels": dict}, "Run the command again.")["labels"]
    if pair_of_sides(labels) is not None:
        return True
    with open_source(model) as files:
        return not read_parts(files, None, "final", None).mirror_axes


def _validated(summary: Path) -> str:
    """Return a sentence on the validation of a fold."""
    found = read_json(summary, {"foreground_mean": dict, "metric_per_case": list}, "Train this fold again.")
    cases, dice = len(found["metric_per_case"]), found["foreground_mean"].get("Dice")
    figure = "none" if dice is None else f"{dice:.3f}"
    return f"Mean Dice of {cases} case{'s' * (cases != 1)} that the training has not seen: {figure}"


def _step(name: str, arguments: Sequence[str], work: _Work, results: Path | None = None) -> int:
    """Run one command, show what matters of its output, log all of it, and return its exit code."""
    print(f"[{[*_STEPS].index(name) + 1}/{len(_STEPS)}] {name}", flush=True)
    log = work.root / "logs" / f"{name}.txt"
    log.parent.mkdir(exist_ok=True)
    code = _run([name, *arguments], work.environment(results), log, _STEPS[name])
    if code:
        print(
            f"The step {name} has failed. Settle what it says (the rest of its output is in {log}), and run the same "
            "command again: it goes on there.",
            file=sys.stderr,
        )
    return code if code >= 0 else ExitCode.FAULT


def _run(arguments: Sequence[str], variables: dict[str, str], log: Path, shown: re.Pattern[str]) -> int:
    environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    # without this folder, which -c puts first: a random.py in it would be taken for Python's own
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {_CHILD}", *arguments]
    form: dict[str, Any] = {"stdout": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    with open(log, "w", encoding="utf-8") as file, subprocess.Popen(command, env=environment, **form) as child:
        with _ended(child):
            assert child.stdout is not None
            for line in child.stdout:
                file.write(line)
                if found := shown.match(line.rstrip("\n")):
                    print(found[1], flush=True)
            return child.wait()


@contextmanager
def _ended(child: subprocess.Popen) -> Iterator[None]:
    """End a process with the block, if it still runs because of an error or a signal."""
    try:
        yield
    except BaseException:
        child.terminate()
        try:
            child.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
