"""``classscaleseg models``: list, download, remove and add models. Nothing is downloaded without consent."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from dataclasses import asdict
from typing import Any

from ..catalog.catalog import Catalog, Entry, Search
from ..catalog.entries import REGIONS
from ..catalog.parts import is_complete
from ..errors import Cancelled, CatalogError, ModelError
from ..models.advice import advise_on_network
from ..models.summary import summarize
from ..process.terminal import on_one_line
from .options import add_command
from .parsing import Parser
from .reporting import Reporter


def add_models_options(parser: Parser) -> None:
    """Add the actions of ``classscaleseg models``."""
    parser.meant = "classscaleseg models info {}, or classscaleseg models list --search {}"
    commands = parser.add_subparsers(required=True, metavar="ACTION")
    one = "totalsegmentator-3mm"
    actions = {
        _list: "--search left kidney",
        _info: one,
        _card: "head-mr-312",
        _download: one,
        _remove: one,
        _add: "my-model.zip",
        _path: "toy-120",
    }
    parsers = {
        action: add_command(commands, "action", action.__name__[1:], action, example)
        for action, example in actions.items()
    }
    for action in (_info, _card, _download, _remove, _path):
        text = "id or name of a model; `classscaleseg models list` lists them"
        parsers[action].add_argument("model", metavar="MODEL", help=text)
    for action in (_list, _info):
        parsers[action].add_argument("--json", action="store_true", help="print JSON")
    listed = parsers[_list]
    text = "words, such as left kidney; all must occur in name, description, modality, regions or structures of a model"
    listed.add_argument("--search", nargs="+", action="extend", metavar="WORD", help=text)
    listed.add_argument("--modality", metavar="NAME", help="only models for these images, such as CT or MR")
    text = "only models that find something there; those of the whole body fit every region"
    listed.add_argument("--region", type=str.casefold, choices=REGIONS, help=text)
    listed.add_argument("--licence", metavar="WORD", help="only models of this licence, such as Apache or CC-BY-4.0")
    text = "agree to address, size and licence without being asked"
    parsers[_download].add_argument("--yes", action="store_true", help=text)
    add = parsers[_add]
    add.add_argument("source", metavar="SOURCE", help="model folder, exported zip, bundle, or the web address of a zip")
    add.add_argument("--name", help="name of the model that users see (default: the model's own name)")


def models_command(options: argparse.Namespace, reporter: Reporter) -> None:
    """List, download, remove and add models."""
    options.action(Catalog(), options)


def consent_text(entry: Entry, catalog: Catalog) -> str:
    """Return what users must know before a download: address, size, licence, folder and warnings."""
    lines = [entry.name, entry.description, ""]
    missing = [part for part in entry.parts if part.addresses and not is_complete(part, catalog.place(entry, part))]
    downloads = [one for part in missing for one in (part.files or [part])]
    lines += [f"  address   {one.address} ({_megabytes(one.size)})" for one in downloads]
    lines += [
        f"  size      {_megabytes(entry.download_size)}",
        f"  licence   {entry.licence or 'unknown'}" + (f" ({entry.licence_address})" if entry.licence_address else ""),
        f"  kept in   {catalog.folder / entry.id}",
    ]
    if entry.notice:
        lines.append(f"  note      {entry.notice}")
    if not entry.tried:
        lines.append("  untried   ClassScaleSeg's authors have not been able to download it from there themselves.")
    if not all(one.sha256 for one in downloads):
        lines.append(
            "  checksum  unknown; that of this download is recorded, and later downloads are compared with it."
        )
    return "\n".join(lines)


def _list(catalog: Catalog, options: argparse.Namespace) -> None:
    """List all models, or those that fit, and say which are on this machine."""
    wanted = Search(" ".join(options.search or ()), options.modality or "", options.region or "", options.licence or "")
    entries = catalog.search(wanted)
    if not entries and not options.json:
        print(wanted.advice(catalog.entries(), catalog.structures))
        return
    if options.json:
        print(json.dumps([_facts(catalog, entry) for entry in entries], indent=2))
        return
    rows = [("MODEL", "CLASSES", "FOR", "LICENCE", "STATE", "NAME")]
    for entry in entries:
        classes, modality = str(entry.classes or "?"), entry.modality or "-"
        licence = textwrap.shorten(entry.licence or "?", 30, placeholder=" ...")
        rows.append((entry.id, classes, modality, licence, _state(catalog, entry), entry.name))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)] + [row[-1]]))
    print(f"\nDownloads are kept in {catalog.folder}.")


def _info(catalog: Catalog, options: argparse.Namespace) -> None:
    """Print everything that the catalogue knows about a model."""
    entry = catalog.find(options.model)
    facts = _facts(catalog, entry)
    if warnings := _warnings(catalog, entry):
        facts["warning"] = " ".join(warnings)
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    shown = {key: value for key, value in facts.items() if key not in ("parts", "structures")}
    shown |= {"regions": ", ".join(facts["regions"]), "locate_with": _located(entry)}
    for key, value in shown.items():
        print(f"{key:>16}  {'-' if value in (None, '') else value}")
    for part in facts["parts"]:
        listed = part.pop("files")
        for key, value in [*part.items(), *(fact for file in listed for fact in file.items())]:
            if value is not None:
                print(f"{key:>16}  {value}")
    print(f"{'structures':>16}  {', '.join(facts['structures']) or '-'}")  # last: there may be a hundred


def _located(entry: Entry) -> str | None:
    """Return in words what tells a model where to look."""
    if (coarse := entry.locate_with) is None:
        return None
    return f"{coarse.model}: {', '.join(coarse.classes)}, with a margin of {coarse.margin:g} mm"


def _warnings(catalog: Catalog, entry: Entry) -> list[str]:
    """Return warnings about a model that is on this machine, or why it cannot be used."""
    if not catalog.is_installed(entry):
        return []
    found: list[str] = []
    try:
        for path, part in zip(catalog.paths(entry), entry.parts, strict=True):
            found += advise_on_network(summarize(path, part.configuration))
    except ModelError as error:
        found.append(str(error))
    return list(dict.fromkeys(found))


def _card(catalog: Catalog, options: argparse.Namespace) -> None:
    """Print the model card: training data, licences, accuracy and known failures."""
    entry = catalog.find(options.model)
    parts = zip(catalog.paths(entry), entry.parts, strict=True)
    cards = [card for path, part in parts if (card := summarize(path, part.configuration).card)]
    if not cards:
        raise CatalogError(f"{entry.name} has no model card. Its source is {entry.source or 'not stated'}.")
    print("\n".join(map(on_one_line, "\n\n".join(cards).expandtabs().splitlines())))


def _download(catalog: Catalog, options: argparse.Namespace) -> None:
    """Download a model after asking for consent; if it is downloaded already, check its files."""
    from tqdm import tqdm

    entry = catalog.find(options.model)
    if not catalog.is_installed(entry) and any(part.addresses for part in entry.parts):
        print(consent_text(entry, catalog))
        if not options.yes and not sys.stdin.isatty():
            raise CatalogError(
                "Nothing was downloaded, because standard input is not a terminal and nobody can answer. Give --yes to "
                "agree to the above."
            )
        if not options.yes and input("\nDownload it? [y/N] ").strip().casefold() not in ("y", "yes"):
            raise Cancelled("Nothing was downloaded.")
    with tqdm(unit="B", unit_scale=True, file=sys.stderr, leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        paths = catalog.download(entry, show)
    if entry.locate_with is not None and not catalog.is_installed(catalog.find(entry.locate_with.model)):
        print(f"It looks only where another model finds structures: {_located(entry)}.")
        print(f"That one is not downloaded yet: classscaleseg models download {entry.locate_with.model}")
    for part, path in zip(entry.parts, paths, strict=True):
        record = catalog.record(entry, part)
        print(path)
        if record and not all(one.sha256 for one in part.files or [part]):
            print(f"  SHA-256 {record.sha256}, recorded for later; the catalogue has none to compare it with")


def _remove(catalog: Catalog, options: argparse.Namespace) -> None:
    """Delete a download, or take your own model off the list."""
    entry = catalog.find(options.model)
    freed = catalog.remove(entry)
    print(f"{entry.name}: {_megabytes(freed)} freed" + ("; removed from the list" if entry.own else ""))


def _add(catalog: Catalog, options: argparse.Namespace) -> None:
    """Add your own model to the list; its files stay where they are."""
    entry = catalog.add(options.source, options.name)
    print(f"{entry.name}: use it as {entry.id}")
    if not catalog.is_installed(entry):
        print(f"It is not downloaded yet: classscaleseg models download {entry.id}")


def _path(catalog: Catalog, options: argparse.Namespace) -> None:
    """Print the paths of a model's files."""
    for path in catalog.paths(catalog.find(options.model)):
        print(path)


def _state(catalog: Catalog, entry: Entry) -> str:
    """Return in words where a model is."""
    if entry.embedded:
        return "embedded"
    place = "yours" if entry.own and not entry.parts[0].addresses else "downloaded"
    if catalog.is_installed(entry):
        return f"{place}, {_megabytes(catalog.size(entry))}"
    if place == "yours":
        return f"not found at {entry.parts[0].file}"
    arrived = catalog.size(entry)
    begun = f", {_megabytes(arrived)} of it downloaded" if arrived > 100_000 else ""
    return f"to download, {_megabytes(entry.download_size)}{begun}"


def _facts(catalog: Catalog, entry: Entry) -> dict[str, Any]:
    """Return facts that can be written as JSON: the entry, the path of each part, and the record of its download."""
    facts = {**asdict(entry), "state": _state(catalog, entry)}
    for listed, part in zip(facts["parts"], entry.parts, strict=True):
        record = catalog.record(entry, part)
        listed["path"] = str(catalog.place(entry, part))
        if record:
            listed["seen_sha256"] = record.sha256
            listed["seen_on"] = time.strftime("%Y-%m-%d", time.gmtime(record.time))
    return facts


def _megabytes(size: int | None) -> str:
    return "size unknown" if size is None else f"{size / 1e6:.1f} MB"
