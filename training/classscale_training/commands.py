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

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.process.exit_codes import ExitCode, exit_code

from .data import totalsegmentator as convert_totalsegmentator
from .data import toy_dataset
from .evaluation import evaluate as evaluation
from .nnunet import commands as nnunet_commands
from .nnunet.environment import trainer_folder

_SUMMARIES = {
    "plan": "check a dataset and choose spacing, patch size and network",
    "preprocess": "resample and normalise a planned dataset",
    "train": "train one fold, resume a training, or validate it",
    "validate": "validate a finished training",
    "export": "write a bundle, or a model folder for stock nnU-Net",
    "toy": "write a synthetic dataset with 1 to 4000 classes",
    "evaluate": "compare predicted label maps with reference label maps",
    "convert": "convert the TotalSegmentator dataset to an nnU-Net dataset",
    "trainers": "print the folder to set as nnUNet_extTrainer",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of ``classscaleseg-train``.

    :param arguments: of the command line, without the program's name; None for those of this process.
    :returns: the value of an :class:`.ExitCode`.
    :raises SystemExit: if the arguments cannot be parsed, or after ``-h``.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ClassScaleError as error:
        print(error, file=sys.stderr)
        return int(exit_code(error))
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return int(ExitCode.CANCELLED)


def _print_trainer_folder(_: argparse.Namespace) -> int:
    print(trainer_folder())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="classscaleseg-train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add_arguments, run in (
        ("plan", nnunet_commands.add_plan_arguments, nnunet_commands.plan),
        ("preprocess", nnunet_commands.add_preprocess_arguments, nnunet_commands.preprocess),
        ("train", nnunet_commands.add_train_arguments, nnunet_commands.train),
        ("validate", nnunet_commands.add_validate_arguments, nnunet_commands.train),
        ("export", nnunet_commands.add_export_arguments, nnunet_commands.export),
        ("toy", toy_dataset.add_arguments, toy_dataset.run),
        ("evaluate", evaluation.add_arguments, evaluation.run),
        ("convert", convert_totalsegmentator.add_arguments, convert_totalsegmentator.run),
        ("trainers", lambda parser: None, _print_trainer_folder),
    ):
        command = commands.add_parser(name, help=_SUMMARIES[name], description=_SUMMARIES[name])
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
