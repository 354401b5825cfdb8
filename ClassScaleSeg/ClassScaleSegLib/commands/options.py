"""Options that several commands of ``classscaleseg`` share, and the kinds of numbers they take."""

from __future__ import annotations

import argparse


def model_options(parser: argparse.ArgumentParser) -> None:
    """Which of the checkpoints and models in MODEL."""
    # each --folds adds to those before, so that a program can pass them one by one: --folds=0 --folds=1
    parser.add_argument("--folds", nargs="+", action="extend", help="such as 0 1 2 (default: all there are)")
    parser.add_argument("--checkpoint", default="final", choices=("final", "best"))
    parser.add_argument("--configuration", help="which of several models in MODEL")


def fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
