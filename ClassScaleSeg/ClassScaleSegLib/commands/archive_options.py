"""Options of the commands that speak with a DICOM archive. Passwords are never on the command line."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..archive.connection import Archive
from ..archive.credentials import Names
from ..errors import ArchiveError, reason
from .parsing import add_program_options


def add_archive_options(parser: argparse.ArgumentParser, flag: str, json: str) -> None:
    """Add the options that say which archive it is, and who asks.

    :param flag: of the address.
    :param json: what ``--json`` prints.
    """
    text = "root of the archive's DICOMweb service, such as http://localhost:8042/dicom-web"
    parser.add_argument(flag, dest="archive", required=True, metavar="URL", help=text)
    text = f"user of the archive; the password is in the environment variable {Names.password}, or asked for"
    parser.add_argument("--user", metavar="NAME", help=text)
    text = "let images, password and token pass between machines even if the address is not one of https"
    parser.add_argument("--insecure", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help=f"print JSON: {json}")
    add_program_options(parser, f"print {json} as JSON lines, with the progress")


def archive_of(options: argparse.Namespace) -> Archive:
    """Return the archive with the credentials that the environment, or the user who is asked, gives.

    :raises ArchiveError: if the address is not valid or not encrypted, or credentials are missing.
    """
    return with_credentials(options.archive, options.user, options.insecure, Names())


def with_credentials(address: str, user: str | None, insecure: bool, names: Names) -> Archive:
    """Return the archive at an address with the credentials that the environment, or the user who is asked, gives.

    :raises ArchiveError: if the address is not valid or not encrypted, or credentials are missing.
    """
    token = None if user is not None else os.environ.get(names.token) or None
    password = os.environ.get(names.password) if user is not None else None
    archive = Archive(address, user, password, token, insecure, names)
    if user is None or password is not None:
        return archive
    if not sys.stdin.isatty():
        raise ArchiveError(
            f"The password of {user} is missing, and nobody can be asked, because standard input is not a terminal. "
            f"Put it into the environment variable {names.password}."
        )
    return replace(archive, password=getpass.getpass(f"Password of {user} at {archive.address}: "))


def criteria_of(options: argparse.Namespace, names: Sequence[str], several: bool = False) -> dict[str, Any]:
    """Return what is wanted, by its name: what the options say, and the file of ``--criteria``.

    :param several: each is a list of texts, not a text.
    :raises ArchiveError: if the file cannot be used, or says what an option says.
    """
    given = {name: value for name in names if (value := getattr(options, name)) not in (None, [])}
    file = options.criteria
    if file is None:
        return given
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{file} cannot be read as JSON ({reason(error)}). Name another file.") from error
    if not isinstance(found, dict) or not all(name in names and _fits(found[name], several) for name in found):
        what, known = "lists of texts" if several else "texts", ", ".join(names)
        raise ArchiveError(f"{file} must be a JSON object of {what}, each with one of these names: {known}.")
    if twice := sorted(given.keys() & found.keys()):
        raise ArchiveError(f"{file} says what --{twice[0]} says, too. Give it once.")
    return given | found


def _fits(value: Any, several: bool) -> bool:
    texts = value if several and isinstance(value, list) else [None if several else value]
    return all(isinstance(text, str) for text in texts)
