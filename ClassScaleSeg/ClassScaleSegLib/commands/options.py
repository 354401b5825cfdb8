"""Add subcommands of ``classscaleseg``, and the options that they share, made from the fields of `Options`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import ClassScaleError
from ..options import FIELDS, checked, flag
from .parsing import Parser


def add_command(commands: Any, attribute: str, name: str, function: Callable[..., Any], example: str) -> Parser:
    """Add a subcommand that sets an attribute to a function, the first paragraph of whose docstring is the help.

    :param commands: as `add_subparsers` of a `Parser` returns them.
    :param example: what may follow the name.
    """
    text = " ".join((function.__doc__ or "").partition("\n\n")[0].split())
    added: Parser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(**{attribute: function})
    added.example = f"{added.prog} {example}".rstrip()
    added.epilog = f"example: {added.example}"
    return added


def add_options(parser: argparse._ActionsContainer, *names: str) -> None:
    """Add the options of the command line that set fields of `Options`.

    :param parser: or a group of its options.
    :param names: of the fields, which are also the names of the parsed arguments.

    >>> parser = argparse.ArgumentParser()
    >>> add_options(parser, "memory_limit_gib", "mirroring", "classes")
    >>> parser.parse_args(["--memory-limit", "4", "--classes", "liver", "--classes", "spleen", "7"])
    Namespace(memory_limit_gib=4.0, mirroring=True, classes=['liver', 'spleen', '7'])
    """
    for name in names:
        default, about = FIELDS[name].default, FIELDS[name].metadata
        text, kind = about["help"], about["kind"]
        more: dict[str, Any] = {"dest": name, "default": default, "help": text}
        more |= {"metavar": about["metavar"]} if "metavar" in about else {}
        if kind is bool:
            more["help"] = f"do not {text}" if default else text
            more["action"] = "store_false" if default else "store_true"
        elif kind is tuple:
            more |= {"nargs": "+", "action": "extend"}
        else:
            more |= {"type": partial(_value, name, kind), "choices": about.get("choices")}
            more["help"] += "" if default is None else f" (default: {default})"
        parser.add_argument(flag(name), **more)


def _value(name: str, kind: Callable[[str], Any], text: str) -> Any:
    try:
        return checked(name, kind(text))
    except (ValueError, ClassScaleError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
