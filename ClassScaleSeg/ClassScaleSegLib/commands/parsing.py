"""Parse a command line, and say of a wrong one what to type instead."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ..process.exit_codes import ExitCode

_INCOMPLETE = ("arguments are required", "unrecognized arguments")  # how argparse begins what an example helps with


def add_program_options(
    parser: argparse.ArgumentParser, text: str = "report progress as JSON lines on standard output"
) -> argparse._ArgumentGroup:
    """Add the options by which another program starts a command, and return their group.

    :param text: what ``--json-progress`` does.
    """
    group = parser.add_argument_group("for programs")
    group.add_argument("--json-progress", action="store_true", help=text)
    text = "when the process PID ends, stop and remove FOLDER"
    group.add_argument("--stop-with-parent", nargs=2, metavar=("PID", "FOLDER"), help=text)
    return group


class Parser(argparse.ArgumentParser):
    """Says what is wrong without the list of all options, in which it would be lost, but with what could be meant.

    :ivar example: a command line that is complete.
    :ivar hint: a sentence that follows it; may be empty.
    :ivar meant: what somebody means who puts something else in the place of an action; ``{}`` stands for that.
    :ivar meant_by_file: only the name of a file or folder can mean that.

    >>> parser = Parser("serve")
    >>> parser.example, parser.meant = "serve --models toy-120", "serve --models {}"
    >>> parser.advice("the following arguments are required: --models")
    'For example: serve --models toy-120'
    """

    example = hint = meant = ""
    meant_by_file = False
    _wrong: str | None = None  # what is no action
    _given: Sequence[str] = ()

    def advice(self, message: str) -> str:
        """Return lines that say what to type, empty if the message says enough.

        :param message: what is wrong.
        """
        if self._wrong is not None:
            actions = next(each.choices for each in self._actions if isinstance(each, argparse._SubParsersAction))
            near = difflib.get_close_matches(self._wrong.casefold(), actions or (), 1)
            if near:
                return f"Do you mean {self.prog} {near[0]}?"
            if self.meant and self._wrong != "help" and (not self.meant_by_file or _may_be_file(self._wrong)):
                return f"Do you mean {self.meant.replace('{}', shlex.quote(self._wrong))}?"
        elif not any(words in message for words in _INCOMPLETE):
            return ""
        return "\n".join(filter(None, (self.example and f"For example: {self.example}", self.hint)))

    def error(self, message: str) -> NoReturn:
        """End the process with a message."""
        lines = (f"{self.prog}: error: {message}", self.advice(message), f"{self.prog} --help lists all options.")
        self.exit(ExitCode.USAGE, "".join(f"{line}\n" for line in lines if line))

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments. The command whose arguments they are refuses those that it does not know, and shows its
        own example; argparse would let the program do so."""
        self._given = sys.argv[1:] if args is None else list(args)
        found, unknown = super().parse_known_args(self._given, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            if (option := self._unknown_option(value)) is not None:
                raise argparse.ArgumentError(None, f"unrecognized arguments: {option}")
            self._wrong = str(value)
        super()._check_value(action, value)

    def _unknown_option(self, value: str) -> str | None:
        """Return the option before an argument, if there is no such option: then the argument is meant for it."""
        place = self._given.index(value) if value in self._given else 0
        before = self._given[place - 1] if place else ""
        name = before.partition("=")[0]
        is_known = any(known.startswith(name) for known in self._option_string_actions)
        return before if before.startswith("-") and name != "--" and not is_known else None


def _may_be_file(word: str) -> bool:
    return os.path.exists(word) or any(sign in word for sign in (".", "/", os.sep))
