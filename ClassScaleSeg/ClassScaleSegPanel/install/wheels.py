"""Packages from a folder of wheels, for computers without a network: what is to be installed, and what lacks there.

Everything is looked up before anything is installed. The files are then installed without looking at dependencies, so
that no package of Slicer is replaced.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterable
from email.parser import HeaderParser
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ClassScaleSegLib.errors import ClassScaleError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_LARGEST_METADATA = 1 << 20  # bytes


class Plan(NamedTuple):
    """What is to be done.

    :ivar files: wheels to install, each after those that it needs.
    :ivar lacking: requirements for which the folder has no wheel that suits this Python and system.
    :ivar sources: names of the packages among them that the folder has as source archives only.
    """

    files: tuple[Path, ...]
    lacking: tuple[str, ...]
    sources: tuple[str, ...]


def plan_wheels(folder: Path, requirements: Iterable[str], kept: Collection[str]) -> Plan:
    """Find the wheels for requirements that are not installed, and for all that these need in turn.

    :param folder: with the files ``*.whl``; folders inside of it are not searched.
    :param requirements: such as ``nnunetv2>=2.7``.
    :param kept: packages that are never installed if there is any version of them.
    :raises ClassScaleError: if the folder or a wheel cannot be read.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wheels, archives = _contents(folder)
    names_kept = {canonicalize_name(name) for name in kept}
    seen: set[str] = set()
    files: list[Path] = []
    lacking: list[str] = []

    def add(requirement: Requirement) -> None:
        name = canonicalize_name(requirement.name)
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        if key in seen or is_met(requirement, name in names_kept):
            return
        seen.add(key)
        suitable = [
            (version, -rank, file)
            for version, rank, file in wheels.get(name, [])
            if requirement.specifier.contains(version, prereleases=True)
        ]
        if not suitable:
            lacking.append(str(requirement))
            return
        _version, _rank, file = max(suitable)
        for further in _requirements_of(file, requirement.extras):
            add(further)
        if file not in files:
            files.append(file)

    for wanted in requirements:
        add(Requirement(wanted))
    named = {canonicalize_name(Requirement(one).name) for one in lacking}
    sources = sorted(name for name in named if any(_is_archive_of(name, archive) for archive in archives))
    return Plan(tuple(files), tuple(lacking), tuple(sources))


def is_met(requirement: Requirement, any_version: bool = False) -> bool:
    """Return whether a package is installed, by its metadata alone.

    :param any_version: an unsuitable version is enough.
    """
    try:
        version = distribution(requirement.name).version
    except PackageNotFoundError:
        return False
    return any_version or requirement.specifier.contains(version, prereleases=True)


def unmet(requirements: Iterable[str], kept: Collection[str]) -> list[str]:
    """Return what installed packages need, directly or not, and no version of which is installed.

    An installation that was ended halfway leaves such a state.

    :param requirements: such as ``nnunetv2>=2.7``; those that are not installed are not looked at.
    :param kept: packages that are not looked at.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen = {canonicalize_name(name) for name in kept}
    found: list[str] = []
    waiting = [(Requirement(one), False) for one in requirements]
    while waiting:
        requirement, needed = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        try:
            installed = distribution(name)
            metadata = installed.read_text("METADATA")  # other kinds of packages have other files
            needs = installed.requires if metadata is None else _needs(metadata)
            waiting += [(_requirement(line), True) for line in needs or []]
        except PackageNotFoundError:
            if needed:
                found.append(f"{requirement.name}{requirement.specifier}")
    return sorted(found)


@cache
def _needs(metadata: str) -> tuple[str, ...]:
    """Return the lines of ``METADATA`` that name what a package needs; parsing it takes the longest here."""
    return tuple(HeaderParser().parsestr(metadata).get_all("Requires-Dist", ()))


@cache
def _requirement(line: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(line)


def _contents(folder: Path) -> tuple[dict[str, list], list[str]]:
    """Return the wheels of each package that suit this Python and system, with version and rank, and other archives."""
    from packaging.tags import sys_tags
    from packaging.utils import parse_wheel_filename

    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise ClassScaleError(
            f"{folder} cannot be read ({error.strerror or error}). Choose a folder with wheels, files that end in .whl."
        ) from error
    ranks = {tag: rank for rank, tag in enumerate(sys_tags())}
    wheels: dict[str, list] = {}
    for file in files:
        if file.suffix != ".whl":
            continue
        try:
            name, version, _build, tags = parse_wheel_filename(file.name)
        except ValueError:  # InvalidWheelFilename, or in older versions of packaging InvalidVersion
            continue
        if found := [ranks[tag] for tag in tags if tag in ranks]:
            wheels.setdefault(name, []).append((version, min(found), file))
    archives = [file.name.lower().replace("_", "-") for file in files if file.name.endswith((".tar.gz", ".zip"))]
    return wheels, archives


def _is_archive_of(name: str, archive: str) -> bool:
    return archive.startswith(f"{name}-") and archive[len(name) + 1 : len(name) + 2].isdigit()


def _requirements_of(file: Path, extras: Collection[str]) -> list[Requirement]:
    """Return what a wheel needs on this system."""
    from packaging.requirements import Requirement

    environments, found = [{"extra": extra} for extra in ("", *extras)], []
    try:
        with zipfile.ZipFile(file) as wheel:
            (entry,) = (
                info
                for info in wheel.infolist()
                if info.filename.endswith(".dist-info/METADATA") and info.filename.count("/") == 1
            )
            with wheel.open(entry) as stream:
                text = stream.read(_LARGEST_METADATA).decode("utf-8", "replace")
        for line in HeaderParser().parsestr(text).get_all("Requires-Dist") or []:
            requirement = Requirement(line)
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                found.append(requirement)
    # ValueError: of a line that is no requirement, or whose marker cannot be evaluated
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ClassScaleError(f"{file} is damaged ({error}). Copy this wheel into the folder again.") from error
    return found
