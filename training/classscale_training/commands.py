"""The command ``classscaleseg-train``: from a raw dataset to a model, with the arguments of nnU-Net's commands.

    classscaleseg-train toy --classes 300 --dataset-id 300
    classscaleseg-train plan -d 300
    classscaleseg-train preprocess -d 300 -c 3d_fullres
    classscaleseg-train train 300 3d_fullres 0
    classscaleseg-train export -d 300 -o model.zip

Exit codes are those of ``classscaleseg`` (:class:`ClassScaleSegLib.process.exit_codes.ExitCode`).
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns an :class:`ExitCode`."""
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
    for name, text, add_arguments, run in (
        ("plan", "check a dataset and plan it", nnunet_commands.add_plan_arguments, nnunet_commands.plan),
        ("preprocess", "resample and normalise", nnunet_commands.add_preprocess_arguments, nnunet_commands.preprocess),
        ("train", "train, resume, validate", nnunet_commands.add_train_arguments, nnunet_commands.train),
        ("validate", "validate a training", nnunet_commands.add_validate_arguments, nnunet_commands.train),
        ("export", "a bundle, or stock nnU-Net's", nnunet_commands.add_export_arguments, nnunet_commands.export),
        ("toy", "write a toy dataset", toy_dataset.add_arguments, toy_dataset.run),
        ("evaluate", "compare label maps", evaluation.add_arguments, evaluation.run),
        ("convert", "TotalSegmentator's", convert_totalsegmentator.add_arguments, convert_totalsegmentator.run),
        ("trainers", "print what nnUNet_extTrainer is to be", lambda parser: None, _print_trainer_folder),
    ):
        command = commands.add_parser(name, help=text, description=text)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
