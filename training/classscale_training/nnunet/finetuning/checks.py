"""What can be refused before hours of work."""

from __future__ import annotations

import argparse
from contextlib import redirect_stdout
from pathlib import Path

from ClassScaleSegLib.catalog.catalog import resolve_model
from ClassScaleSegLib.errors import ClassScaleError, ModelError, OutputError
from ClassScaleSegLib.files import refuse_existing, refuse_replacing, refuse_unwritable_folder
from ClassScaleSegLib.images.paired_cases import segmentation_files

from ...data.collect.command import refuse_equal_channels
from ...data.collect.plan import UNLABELLED, group_prefix
from ..environment import LENGTHS, TRAINER
from ..trainers import find_trainer
from .begin import Begin
from .path_lengths import refuse_long_paths, training_files
from .preparing import STATE_LETTERS, results_name
from .work import DATASET, ID, Work

EPOCHS = 100
FOLDS = (*"01234", "all")


def checked_output(options: argparse.Namespace) -> Path:
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


def checked_trainer(options: argparse.Namespace) -> tuple[str, type | None]:
    """Return the name of the trainer, without what depends on the labels, and the trainer itself if it was named.

    :raises ClassScaleError: if there is none with so many epochs, or a trainer is named too.
    :raises ModelError: if there is no trainer of this name, no bundle can be made of what it trains, or it does not
        take the optimiser.
    """
    if options.trainer is None:
        return trainer_of(EPOCHS if options.epochs is None else options.epochs), None
    if options.epochs is not None:
        raise ClassScaleError("A trainer decides on the number of epochs: leave out --epochs or --trainer.")
    with redirect_stdout(None):  # nnU-Net misses its variables, which are set later
        trainer = find_trainer(options.trainer)
    from ..trainer import ClassScaleTrainer

    if not issubclass(trainer, ClassScaleTrainer):
        raise ModelError(
            f"No bundle can be made of what {options.trainer} trains. Name one that is a kind of {TRAINER}."
        )
    if options.optimizer is not None:
        from ..optimizers import refuse_optimizer

        refuse_optimizer(trainer)
    return options.trainer, trainer


def check_channels(options: argparse.Namespace, begin: Begin) -> None:
    """Check the names of the channels, if they are given.

    :raises ClassScaleError: if two are the same.
    :raises ModelError: if they are more or fewer than those of the model.
    """
    if options.channels is None:
        return
    refuse_equal_channels(options.channels)
    if len(options.channels) != len(begin.channels):
        raise ModelError(
            f"{begin.path} needs {len(begin.channels)} channels ({', '.join(begin.channels)}), but --channels names "
            f"{len(options.channels)} ({', '.join(options.channels)}). Name as many, or choose another model."
        )


def trainer_of(epochs: int) -> str:
    """Return the name of the trainer with a number of epochs.

    :raises ClassScaleError: if there is none.
    """
    if epochs != 1000 and epochs not in LENGTHS:
        raise ClassScaleError(
            f"There is no trainer with {epochs} epochs. Choose {', '.join(map(str, sorted((*LENGTHS, 1000))))}."
        )
    return TRAINER if epochs == 1000 else f"{TRAINER}_{epochs}epoch{'s' * (epochs > 1)}"


def check_fold(cases: int, fold: str) -> None:
    """Check that cases have a fold: as many as there are cases, at most five.

    :raises ClassScaleError: if they do not.
    """
    folds = min(cases, 5) if cases > 1 else 0
    if fold == "all" or int(fold) < folds:
        return
    if not folds:
        raise ClassScaleError("A single case has no folds: nothing would be left to train on. So train the fold all.")
    raise ClassScaleError(f"{cases} cases have the folds 0 to {folds - 1}, not {fold}.")


def refuse_long_names(work: Work, begin: Begin, trainer: str, options: argparse.Namespace, segmentations: Path) -> None:
    """Refuse a folder in which Windows refuses the paths of files.

    :param segmentations: folder with a file for each case.
    :raises OutputError: if there would be such a file.
    """
    names = list(segmentation_files(segmentations)) if segmentations.is_dir() else []
    if options.missing == UNLABELLED:
        names = [f"{group_prefix(0)}{name}" for name in names]  # as in merged datasets
    results = results_name("0" * STATE_LETTERS, options)
    refuse_long_paths(work.root, training_files(DATASET, results, begin.trained(trainer), options.fold, names))


def refuse_other_dataset(work: Work) -> None:
    """Refuse a folder with another dataset of the same number, as earlier versions have named it after the folder.

    :raises OutputError: naming it.
    """
    for folder in (work.raw.parent, work.plans.parents[1]):
        if others := [other for other in folder.glob(f"Dataset{ID:03d}_*") if other.name != DATASET]:
            raise OutputError(
                f"{others[0]} was made by an earlier version or by another program, and no training can go on with "
                f"it. Delete {work.root}, or choose another folder (-o or --work)."
            )
