"""The options that say which server segments, and the server that they name. Tokens are never on the command line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..addresses import refuse_unencrypted
from ..errors import ClassScaleError, ServerError
from ..options import FIELDS, flag
from ..process.job import Job
from ..remote.address import check_address
from ..remote.credentials import TOKEN
from ..remote.decided import BY_SERVER, refuse_decided
from ..remote.faults import Unencrypted
from ..remote.segmenter import RemoteSegmenter
from ..remote.servers import Servers


def add_server_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say which server segments."""
    parser.add_argument(
        "--server",
        metavar="URL",
        help="segment on this server, such as https://lab-gpu:8471, or a name of `classscaleseg servers list`; MODEL "
        f"is one that it offers. Its token is in the environment variable {TOKEN}, unless that list has it",
    )
    parser.add_argument(
        "--server-token-file", type=Path, metavar="FILE", help="file with the token of the server, if it asks for one"
    )
    parser.add_argument(
        "--server-ca",
        type=Path,
        metavar="FILE",
        help="file with the certificate of the server, or of who has signed it, if this system does not trust it",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="send images and the token to another machine even if the address is not one of https",
    )


def refuse_beside_server(options: argparse.Namespace, job: Job) -> None:
    """Refuse options that have no meaning with a server, and those of a server without one.

    :raises ClassScaleError: naming them.
    """
    if job.server is None:
        own = ("server_token_file", "server_ca", "insecure")
        if beside := [name for name in own if getattr(options, name) is not None]:
            raise ClassScaleError(f"{_flags(beside)} needs a server. Name it (--server).")
    else:
        beside = [name for name in (*BY_SERVER, "cluster") if getattr(options, name) is not None]
        if beside:
            raise ClassScaleError(f"{_flags(beside)} cannot be given beside --server: the server decides that.")


def connect(job: Job, token_file: Path | None) -> RemoteSegmenter:
    """Return the server of a job, which may be a name of the user's list, with the token of the user.

    :param token_file: a file with it, instead of the environment. With neither, that of the list is taken.
    :raises Unencrypted: if others could read what is sent, and the user has not allowed that.
    :raises ServerError: if address or token are not valid.
    """
    assert job.server is not None
    servers = Servers()
    known = servers.find(job.server)
    refuse_decided(job.options.changed)
    token = os.environ.get(TOKEN) or None
    if token_file is not None:
        token = read_token(token_file)
    address, ca, insecure = job.server, job.server_ca, job.insecure
    if known is not None:
        address, token = known.address, token or servers.token(known)
        ca, insecure = ca or known.ca, insecure or known.insecure
    what = "the images" if token is None else "the images and the token"
    refuse_unencrypted(check_address(address), what, insecure, Unencrypted)
    return RemoteSegmenter(address, token, ca, insecure=insecure)


def read_token(file: Path) -> str:
    """Return the token in a file.

    :raises ServerError: if it cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:  # with the mark that programs of Windows put first
            return stream.read(10_000)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "it is not text"
        raise ServerError(f"{file} cannot be read ({said}). It should hold the token of the server.") from error


def _flags(names: list[str]) -> str:
    return ", ".join(flag(name) if name in FIELDS else f"--{name.replace('_', '-')}" for name in names)
