"""Train a segmentation model, from a raw dataset to a model file, with the arguments of nnU-Net's commands.

    classscaleseg-train toy --classes 300 --dataset-id 300
    classscaleseg-train plan -d 300
    classscaleseg-train preprocess -d 300 -c 3d_fullres
    classscaleseg-train train 300 3d_fullres 0
    classscaleseg-train export -d 300 -o model.zip

Add -h to a command for its arguments. Exit codes are the same as those of the command classscaleseg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.process.ending import leave, run_command
from ClassScaleSegLib.process.fault_log import FaultLog

from .data import totalsegmentator as convert
from .data import toy_dataset
from .data.collect import command as collect
from .data.collect import fill_command as fill
from .data.merge import command as merge
from .evaluation import command as evaluate
from .evaluation import models_command as compare_models
from .nnunet import export_command as export
from .nnunet.environment import trainer_folder
from .nnunet.finetuning import command as finetune
from .nnunet.plan_command import add_plan_arguments, plan
from .nnunet.preprocess_command import add_preprocess_arguments, preprocess
from .nnunet.pretraining import command as pretrain
from .nnunet.train_command import add_train_arguments, add_validate_arguments, train


def main(arguments: Sequence[str] | None = None, ending: str | Path | None = None) -> int:
    """Run one command of ``classscaleseg-train``.

    :param arguments: of the command line, without the program's name; None for those of this process.
    :param ending: file that gets the sentence of an error, too.
    :returns: the value of an :class:`.ExitCode`.
    :raises SystemExit: if the arguments cannot be parsed, or after ``-h``.
    """

    def run() -> int:
        options = _parser().parse_args(arguments)
        return int(options.run(options))

    def tell(error: ClassScaleError) -> None:
        print(error, file=sys.stderr)
        if ending is not None:
            Path(ending).write_text(str(error), encoding="utf-8", errors="backslashreplace")

    return run_command(run, tell, FaultLog("classscaleseg-train", arguments), "Cancelled.")


def run(arguments: Sequence[str] | None = None, ending: str | Path | None = None) -> NoReturn:
    """Do what :func:`main` does, and end the process with the exit code."""
    leave(main(arguments, ending))


def _print_trainer_folder(_: argparse.Namespace) -> int:
    print(trainer_folder())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="classscaleseg-train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add_arguments, run, summary in (
        ("plan", add_plan_arguments, plan, "check a dataset and choose spacing, patch size and network"),
        ("preprocess", add_preprocess_arguments, preprocess, "resample and normalise a planned dataset"),
        ("pretrain", pretrain.add_arguments, pretrain.run, "learn an encoder from images, without labels"),
        ("train", add_train_arguments, train, "train one fold, resume a training, or validate it"),
        ("validate", add_validate_arguments, train, "validate a finished training"),
        ("export", export.add_arguments, export.run, "write a bundle, or a model folder for stock nnU-Net"),
        ("collect", collect.add_arguments, collect.run, "make a dataset of images and their segmentations"),
        ("fill", fill.add_arguments, fill.run, "segment drawn cases with a model, for what nobody has drawn"),
        ("finetune", finetune.add_arguments, finetune.run, "train a model further on corrected segmentations"),
        ("compare-models", compare_models.add_arguments, compare_models.run, "compare models on drawn cases"),
        ("merge", merge.add_arguments, merge.run, "make one dataset of several that label different things"),
        ("toy", toy_dataset.add_arguments, toy_dataset.run, "write a synthetic dataset with 1 to 4000 classes"),
        ("evaluate", evaluate.add_arguments, evaluate.run, "compare predicted label maps with reference label maps"),
        ("convert", convert.add_arguments, convert.run, "convert the TotalSegmentator dataset to an nnU-Net dataset"),
        ("trainers", lambda parser: None, _print_trainer_folder, "print the folder to set as nnUNet_extTrainer"),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


if __name__ == "__main__":
    run()
