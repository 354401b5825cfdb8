"""What a command tells the program that has started it, such as the panel in Slicer: JSON lines. It ends with it."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.process.exit_codes import exit_code
from ClassScaleSegLib.process.parent_watch import ParentWatch
from ClassScaleSegLib.process.terminal import printable


def add_progress_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`reported`."""
    add = parser.add_argument
    add("--json-progress", action="store_true", help="report progress as JSON lines on standard output")
    add("--stop-with-parent", nargs=2, metavar=("PID", "FOLDER"), help=argparse.SUPPRESS)


def tell(event: str, **facts: Any) -> None:
    """Print an event as a JSON line, as ``classscaleseg segment --json-progress`` does."""
    print(json.dumps({"event": event, **facts}), flush=True)


def tell_error(sentence: str) -> None:
    """Print the event with which a command fails."""
    tell("error", kind=ClassScaleError.__name__, message=printable(sentence))


def reported(options: argparse.Namespace, work: Callable[[], int]) -> int:
    """Return ``work()``, or the exit code of its error, which is told as an event.

    The parent ends it by a termination signal, a file or its own end.

    :param options: parsed from the arguments of :func:`add_progress_options`.
    """
    with _watched(options):
        try:
            return work()
        except ClassScaleError as error:
            tell_error(str(error))
            return int(exit_code(error))


@contextmanager
def _watched(options: argparse.Namespace) -> Iterator[None]:
    """Let the parent end the command within the block."""
    embedded = threading.current_thread() is not threading.main_thread()  # which alone can catch signals
    before = None if embedded else signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ParentWatch(*options.stop_with_parent) if options.stop_with_parent else nullcontext():
            yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
