"""``classscaleseg servers``: the servers that a user knows. Tokens are never on the command line."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from ..addresses import is_private
from ..process.exit_codes import ExitCode
from ..remote.credentials import TOKEN
from ..remote.faults import Unencrypted
from ..remote.servers import Servers, is_name
from .options import add_command
from .parsing import Parser
from .reporting import Reporter
from .server_options import read_token


def add_servers_options(parser: Parser) -> None:
    """Add the actions of ``classscaleseg servers``."""
    parser.meant = "classscaleseg servers add NAME {}, or classscaleseg servers test {}"
    commands = parser.add_subparsers(required=True, metavar="ACTION")
    actions = {_add: "lab https://lab-gpu:8471", _list: "", _test: "lab", _remove: "lab"}
    add, listed, test, remove = (
        add_command(commands, "action", action.__name__[1:], action, example) for action, example in actions.items()
    )
    add.add_argument("name", metavar="NAME", help="name of your choice, by which --server takes it")
    add.add_argument("address", metavar="URL", help="address of the server, such as https://lab-gpu:8471")
    text = f"file with the token (default: the environment variable {TOKEN}, or you are asked in a terminal)"
    add.add_argument("--token-file", type=Path, metavar="FILE", help=text)
    text = "file with the certificate of the server, or of who has signed it, if this system does not trust it"
    add.add_argument("--ca", type=Path, metavar="FILE", help=text)
    text = "send images and the token there even if the address is not one of https, now and in future"
    add.add_argument("--insecure", action="store_true", help=text)
    text = "send the token even if the address is not one of https"
    test.add_argument("--insecure", action="store_true", help=text)
    listed.add_argument("--json", action="store_true", help="print JSON")
    for action in (test, remove):
        action.add_argument("name", metavar="NAME", help="of a server; `classscaleseg servers list` lists them")


def servers_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Add, list, test and remove servers that segment for you."""
    try:
        options.action(Servers(), options)
    except Unencrypted as error:
        reporter.error(error)
        return ExitCode.USAGE
    return ExitCode.OK


def _add(servers: Servers, options: argparse.Namespace) -> None:
    """Add a server to your list, or change one. Its token is kept in the keyring of the system, if there is one."""
    if is_name(options.address) and not is_name(options.name):  # an address is no name, so the order is clear
        options.name, options.address = options.address, options.name
    token, terminal, known = os.environ.get(TOKEN) or None, sys.stdin.isatty(), _knows_token(servers, options.address)
    if options.token_file is not None:
        token = read_token(options.token_file)
    elif token is None and terminal:
        without = "the one that is kept" if known else "none"
        token = getpass.getpass(f"Token of {options.name} ({without}: press Enter): ").strip() or None
    kept = servers.add(options.name, options.address, token, options.ca, options.insecure)
    server = servers.named(options.name)
    if token is None and known:
        kept = "Its token is kept as before."
    print(f"{options.name}: {server.address}" + (f". {kept}" if kept else ""))
    if token is None and not (terminal or known):
        said = f"You were not asked for the token of {options.name}, because standard input is not a terminal."
        print(f"{said} If the server needs one, give --token-file, or set {TOKEN}.", file=sys.stderr)
    if not is_private(server.address):
        said = f"The connection to {server.address} is not encrypted: others in the network could read what is sent."
        more = "" if server.insecure else " Nothing is sent without --insecure: add it here for good, or to a command."
        print(f"{said}{more}", file=sys.stderr)


def _knows_token(servers: Servers, address: str) -> bool:
    """Return whether the list has the token of an address."""
    server = servers.find(address) if not is_name(address) else None
    return server is not None and servers.token(server) is not None


def _list(servers: Servers, options: argparse.Namespace) -> None:
    """List your servers."""
    known = servers.all
    if options.json:
        print(json.dumps([asdict(server) for server in known], indent=2))
        return
    width = max((len(server.name) for server in known), default=0)
    for server in known:
        print(f"{server.name.ljust(width)}  {server.address}" + (f"  (certificate {server.ca})" if server.ca else ""))
    if not known:
        print("There is none yet. Add one: classscaleseg servers add NAME URL")


def _test(servers: Servers, options: argparse.Namespace) -> None:
    """Ask a server whether it can be used, and what it offers."""
    for sentence in servers.test(servers.named(options.name), insecure=options.insecure):
        print(sentence)


def _remove(servers: Servers, options: argparse.Namespace) -> None:
    """Remove a server from your list, and its token."""
    name = servers.named(options.name).name
    servers.remove(name)
    print(f"{name} is removed.")
