"""What the commands ``plan`` and ``preprocess`` share: arguments, and the words for a killed process."""

from __future__ import annotations

import argparse
import math


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how much is printed."""
    parser.add_argument("--verbose", action="store_true", help="print details")
    parser.add_argument("--no_pbar", action="store_true", help="show no progress bar")


def killed(did: str, dataset: str, option: str) -> str:
    """Return the sentence on a process that was killed: what it did, and the option that sets the processes."""
    return (
        f"A process that {did} cases of {dataset} was killed, most likely because memory ran out. Run the command "
        f"again with fewer processes ({option})."
    )


def positive(text: str) -> float:
    """Parse a positive number."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def count(text: str) -> int:
    """Parse a number of processes."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} processes: give 1 or more")
    return number
