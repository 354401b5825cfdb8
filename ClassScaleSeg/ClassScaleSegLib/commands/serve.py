"""``classscaleseg serve``: segment for others over the network, and the tokens that let them in."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..catalog.catalog import Catalog
from ..errors import ClassScaleError
from ..process.exit_codes import ExitCode
from .options import add_command, add_options
from .parsing import Parser
from .reporting import Reporter

if TYPE_CHECKING:
    from ..server.serving import Settings

PORT = 8471
EXTRA = 'pip install "classscaleseg[server]"'


def add_serve_options(parser: Parser) -> None:
    """Add the options of ``classscaleseg serve``, and its actions."""
    parser.meant = "classscaleseg serve --models {}"
    parser.add_argument(
        "--host", default="127.0.0.1", help="name or address to listen at (default: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen at; 0: a free one (default: {PORT})")
    text = "models that are offered: paths, or ids or names of the catalogue (default: all that are on this machine)"
    parser.add_argument("--models", nargs="+", metavar="MODEL", help=text)
    text = "devices, each of which runs one job at a time (default: every GPU, or the processor if there is none)"
    parser.add_argument("--devices", nargs="+", metavar="DEVICE", help=text)
    add_options(parser, "threads", "memory_limit_gib")
    text = (
        "run the jobs on the workers of Dask instead, which see the folder of the server under the same path: local:4, "
        "tcp://HOST:8786, or a YAML file that describes the jobs of a queue"
    )
    parser.add_argument("--cluster", metavar="WHERE", help=text)
    text = "let nobody in without a token, also at an address of this machine alone: behind a proxy"
    parser.add_argument("--require-token", action="store_true", help=text)
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, with its chain, in PEM: https")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, in PEM")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-upload", type=float, default=8, metavar="GIB", help="GiB of an image (default: 8)")
    text = "million voxels of an image (default: 1024)"
    limits.add_argument("--max-voxels", type=float, default=1024, metavar="MILLIONS", help=text)
    text = "jobs of one token that may wait or run (default: 20)"
    limits.add_argument("--max-jobs", type=int, default=20, metavar="N", help=text)
    text = "minutes after which a job is stopped (default: 120)"
    limits.add_argument("--max-minutes", type=float, default=120, metavar="MIN", help=text)
    text = "minutes after which images and results are removed that nobody has fetched (default: 60)"
    limits.add_argument("--keep-minutes", type=float, default=60, metavar="MIN", help=text)
    _add_folder(parser)
    actions = parser.add_subparsers(metavar="ACTION")
    token = add_command(actions, "run", "token", token_command, "anna")
    token.add_argument("name", nargs="?", metavar="NAME", help="of the person or machine that gets a new token")
    token.add_argument("--revoke", metavar="NAME", help="make a token invalid, at once")
    token.add_argument("--list", action="store_true", help="list the tokens")
    _add_folder(token)


def serve_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment for others: a server with the models of this machine, for people who have no GPU."""
    _need_packages()
    from ..server.limits import Limits
    from ..server.serving import Settings, prepared
    from ..server.workers import Slot

    if (options.tls_cert is None) != (options.tls_key is None):
        reporter.error(
            ClassScaleError("A certificate needs its key, and a key its certificate (--tls-cert, --tls-key).")
        )
        return ExitCode.USAGE
    limits = Limits(
        int(_positive(options.max_upload, "--max-upload") * 2**30),
        int(_positive(options.max_voxels, "--max-voxels") * 2**20),
        int(_positive(options.max_jobs, "--max-jobs")),
        _positive(options.max_minutes, "--max-minutes") * 60,
        _positive(options.keep_minutes, "--keep-minutes") * 60,
    )
    devices = options.devices or (["auto"] if options.cluster is not None else _devices())
    slots = tuple(Slot(device, device, options.threads, options.memory_limit_gib) for device in devices)
    settings = Settings(
        _folder(options),
        tuple(options.models or _installed()),
        options.host,
        options.port,
        slots,
        options.require_token,
        options.tls_cert,
        options.tls_key,
        limits,
        options.cluster,
    )
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with prepared(settings) as server:
        with suppress(KeyboardInterrupt):  # Ctrl-C or a termination signal: so a server ends, it is no fault
            _say_where(server.address, settings)
            server.run()
        print("The server stops. Jobs that wait or run end with it; what is finished is kept.", flush=True)
    return ExitCode.OK


def _say_where(address: str, settings: Settings) -> None:
    print(f"ClassScaleSeg serves {', '.join(settings.models)} at {address}", flush=True)
    if settings.host in ("0.0.0.0", "::"):
        parts = urlsplit(address)
        name = f"{parts.scheme}://{socket.gethostname()}:{parts.port}"
        print(f"Other machines reach it at {name}, or by another name of this machine.", flush=True)
    if not settings.loopback and settings.certificate is None:
        print(
            "Images and tokens are not encrypted on their way, so clients send none without --insecure. Give a "
            "certificate (--tls-cert, --tls-key), or let a proxy do it.",
            file=sys.stderr,
            flush=True,
        )


def token_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Make a token, which lets a person or machine use the server; list them, or revoke one."""
    from ..server.tokens import Tokens

    folder = _folder(options)
    if sum((options.name is not None, options.revoke is not None, options.list)) != 1:
        reporter.error(ClassScaleError("Give the NAME of a new token, or --revoke NAME, or --list."))
        return ExitCode.USAGE
    tokens = Tokens(folder)
    if options.list:
        for token in tokens.all:
            print(f"{token.name:32} {token.created}")
    elif options.revoke is not None:
        tokens.revoke(options.revoke)
        print(f"The token {options.revoke} is not valid any more.")
    else:
        secret = tokens.make(options.name)
        print(f"The token of {options.name}, which is shown only now:", file=sys.stderr, flush=True)
        print(secret)
    return ExitCode.OK


def _add_folder(parser: argparse.ArgumentParser) -> None:
    text = "folder of the server, for tokens, images and results (default: beside the folder of models)"
    parser.add_argument("--folder", type=Path, metavar="DIR", default=argparse.SUPPRESS, help=text)


def _folder(options: argparse.Namespace) -> Path:
    from ..server.folder import default_folder

    return getattr(options, "folder", None) or default_folder()


def _devices() -> list[str]:
    from ..server.devices import default_slots

    return [slot.device for slot in default_slots()]


def _installed() -> list[str]:
    catalog = Catalog()
    return [entry.id for entry in catalog.entries() if catalog.is_installed(entry)]


def _positive(number: float, name: str) -> float:
    if not 0 < number < 1e9:
        raise ClassScaleError(f"{name} is {number:g}; it must be a number above 0.")
    return number


def _need_packages() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ClassScaleError(f"The server needs the package {error.name}. Install it: {EXTRA}.") from error
