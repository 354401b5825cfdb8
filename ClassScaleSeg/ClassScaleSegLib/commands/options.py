"""Options that several subcommands of ``classscaleseg`` share, and the types of their numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def summary(command: Callable[..., Any]) -> str:
    """Return the first paragraph of a function's docstring, which is its help text."""
    return " ".join((command.__doc__ or "").partition("\n\n")[0].split())


def model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose folds, checkpoint and configuration of a model."""
    # each --folds adds to the previous ones, so that a program can pass them one by one: --folds=0 --folds=1
    parser.add_argument(
        "--folds", nargs="+", action="extend", metavar="FOLD", help="folds to average, such as 0 1 2 (default: all)"
    )
    parser.add_argument(
        "--checkpoint", default="final", choices=("final", "best"), help="checkpoint of each fold (default: final)"
    )
    parser.add_argument(
        "--configuration", metavar="NAME", help="choose among several models in MODEL, such as 3d_fullres"
    )


def fraction(text: str) -> float:
    """Convert a command-line argument to a number above 0 and at most 1.

    :raises argparse.ArgumentTypeError: if it is out of range.
    :raises ValueError: if it is not a number.

    >>> fraction("0.5")
    0.5
    """
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def positive(text: str) -> float:
    """Convert a command-line argument to a number above 0.

    :raises argparse.ArgumentTypeError: if it is out of range.
    :raises ValueError: if it is not a number.
    """
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def count(text: str) -> int:
    """Convert a command-line argument to an integer of at least 1.

    :raises argparse.ArgumentTypeError: if it is out of range.
    :raises ValueError: if it is not an integer.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
