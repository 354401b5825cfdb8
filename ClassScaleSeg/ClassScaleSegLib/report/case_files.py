"""Write and read ``cases/NAME.json``: the facts and the pictures of one case. Files that are read are not trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import ClassScaleError, OutputError, reason
from ..files import replacing
from .facts import VERSION, CaseFacts, from_json, loads, to_json
from .pictures import Picture

FORMAT = "classscaleseg-case"
_LARGEST = 64 << 20  # bytes
_NOT_IN_NAMES = set('/\\:*?"<>|%')


@dataclass(frozen=True)
class ReportedCase:
    """A case with its pictures, as a file holds it."""

    facts: CaseFacts
    pictures: tuple[Picture, ...] = ()


def case_path(folder: Path, name: str, suffix: str = ".json") -> Path:
    """Return the file of a case in the folder of a report.

    Characters that file systems refuse are written as in web addresses.

    >>> case_path(Path("report"), "head 1/a").as_posix()
    'report/cases/head 1%2Fa.json'
    """
    valid = name.encode(errors="backslashreplace").decode()
    hidden = valid[:1] == "." or not valid
    letters = (f"%{ord(c):02X}" if c in _NOT_IN_NAMES or not c.isprintable() else c for c in valid)
    return folder / "cases" / ("%" * hidden + "".join(letters) + suffix)


def write_case(folder: Path, case: ReportedCase) -> None:
    """Write a case, in place of an older one of its name.

    :raises OutputError: if it cannot be written.
    """
    facts = {"format": FORMAT, "version": VERSION, **to_json(case)}
    with replacing(case_path(folder, case.facts.name), overwrite=True) as temporary:
        temporary.write_text(json.dumps(facts, separators=(",", ":"), allow_nan=False), encoding="utf-8")


def read_case(path: Path) -> ReportedCase:
    """Read a case.

    :raises OutputError: if the file cannot be read, or is not a case; the message names the file and the entry.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ClassScaleError(f"It has more than {_LARGEST >> 20} MiB.")
        value = loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ClassScaleError(f"Its format is not {FORMAT}.")
        if value.get("version") != VERSION:
            raise ClassScaleError(
                f"It has version {value.get('version')!r}; this ClassScaleSeg reads version {VERSION}."
            )
        case = from_json(ReportedCase, value)
        _check(case)
        if case_path(path.parents[1], case.facts.name).name != path.name:
            raise ClassScaleError(f"It is of another case, {case.facts.name[:80]!r}.")
        return case
    except (OSError, ValueError, ClassScaleError) as error:
        why = (isinstance(error, OSError) and error.strerror) or reason(error)
        raise OutputError(
            f"{path} cannot be used as a case of a report. {why.rstrip('.')}. Remove the file, or segment the case "
            "again with --report."
        ) from error


def case_files(folder: Path) -> list[Path]:
    """Return the files of all cases of a report, in the order of their names."""
    files = (folder / "cases").glob("*.json")
    return sorted(file for file in files if not file.name.startswith("."))  # not what another machine is writing


def _check(case: ReportedCase) -> None:
    """Check what the types do not say.

    :raises ClassScaleError: if facts contradict each other, or a picture is none.
    """
    names = {one.value: one.name for one in case.facts.classes}
    if len(set(names.values())) != len(case.facts.classes):
        raise ClassScaleError("Two of its classes have the same name or value.")
    for one in case.facts.classes:
        if len(one.color) != 7 or one.color[0] != "#" or set(one.color[1:]) - set("0123456789abcdef"):
            raise ClassScaleError(f"The class {one.name[:40]!r} has no colour such as #ff8000.")
    found = [one.value for one in case.facts.structures]
    if len(set(found)) != len(found):
        raise ClassScaleError("A structure is listed twice.")
    for structure in case.facts.structures:
        if names.get(structure.value) != structure.name:
            raise ClassScaleError(f"The structure {structure.name[:40]!r} is not among its classes.")
        if not (structure.voxels > 0 and structure.volume_ml > 0):
            raise ClassScaleError(f"The structure {structure.name[:40]!r} has no volume.")
    for picture in case.pictures:
        picture.checked()
