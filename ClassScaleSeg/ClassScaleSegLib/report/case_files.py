"""Write and read ``cases/NAME.json``: the facts and the pictures of one case. Files that are read are not trusted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ClassScaleError, OutputError, reason
from ..files import replacing, sha256_of, unwritable
from .facts import VERSION, CaseFacts, from_json, loads, to_json
from .pictures import Picture

FORMAT = "classscaleseg-case"
_LARGEST = 64 << 20  # bytes
_LONGEST = 200  # bytes of a file name, without its suffix
_ML = (1e-30, 1e30)  # volumes between which ratios are finite
# devices of Windows, whatever follows the dot: such a file cannot be made, or what is written into it is lost
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{number}" for name in ("COM", "LPT") for number in range(1, 10))}
_NOT_IN_NAMES = set('/\\:*?"<>|%')


@dataclass(frozen=True)
class ReportedCase:
    """A case with its pictures, as a file holds it.

    :ivar origin: the same for two cases if they are of one result; ``None`` if that is not known.
    :ivar result: size, time of the last change in ns, and SHA-256 of the file with the result; ``None`` if not known.
    """

    facts: CaseFacts
    pictures: tuple[Picture, ...] = ()
    origin: str | None = None
    result: tuple[int, int, str] | None = None

    def is_of(self, output: Path) -> bool | None:
        """Return whether a file has the result that was reported; ``None`` if that is not known.

        A file that was replaced may be older than the one before it, and so may its copy; clocks are set back, too.

        :raises OSError: if it cannot be read.
        """
        if self.result is None:
            return None
        state, (size, changed, digest) = output.stat(), self.result
        return state.st_size == size and (state.st_mtime_ns == changed or sha256_of(output) == digest)


def state_of(output: Path) -> tuple[int, int, str] | None:
    """Return what `ReportedCase.result` has of a file; ``None`` if it cannot be read."""
    try:
        state = output.stat()
        return state.st_size, state.st_mtime_ns, sha256_of(output)
    except OSError:
        return None


def case_path(folder: Path, name: str, suffix: str = ".json") -> Path:
    """Return the file of a case in the folder of a report.

    Characters that file systems refuse are written as in web addresses. A name that would be too long is cut, and ends
    with a hash of the whole.

    >>> case_path(Path("report"), "head 1/a").as_posix()
    'report/cases/head 1%2Fa.json'
    >>> case_path(Path("report"), "aux").name, case_path(Path("report"), "auxiliary").name
    ('%aux.json', 'auxiliary.json')
    """
    valid = name.encode(errors="backslashreplace").decode()
    special = valid[:1] == "." or not valid or valid.partition(".")[0].rstrip().upper() in _DEVICES
    letters = (f"%{ord(c):02X}" if c in _NOT_IN_NAMES or not c.isprintable() else c for c in valid)
    stem = "%" * special + "".join(letters)
    if len(stem.encode()) > _LONGEST:
        whole = hashlib.sha256(valid.encode()).hexdigest()[:32]
        stem = f"{stem.encode()[: _LONGEST - len(whole) - 1].decode(errors='ignore')}~{whole}"
    return folder / "cases" / (stem + suffix)


def origin_of(folder: Path, outputs: Sequence[str | Path]) -> str | None:
    """Return by what results of one name in different folders are told apart; ``None`` if there are no files.

    It is a hash, because folders may say who the patient is.

    :param folder: of the report.
    :param outputs: the files of the result, of which the first one counts.
    """
    if not outputs:
        return None
    output = os.path.realpath(outputs[0])
    with suppress(ValueError):  # on another drive
        output = os.path.relpath(output, os.path.realpath(folder))  # the same wherever both are mounted
    return hashlib.sha256(Path(output).as_posix().encode(errors="backslashreplace")).hexdigest()


def origin_of_voxels(images: Iterable[np.ndarray]) -> str:
    """Return by what cases of images in the memory of a program are told apart: a hash of all voxels.

    :param images: the voxels ``(z, y, x)`` of each channel.

    >>> import numpy as np
    >>> origin_of_voxels([np.zeros((2, 3, 4), np.int16)])[:8]
    '96a60525'
    """
    checksum = hashlib.sha256()
    for voxels in images:
        checksum.update(f"{voxels.shape} {voxels.dtype.str}\n".encode())
        # at once where that needs no copy: meanwhile other threads run
        for part in (voxels,) if voxels.flags.c_contiguous else voxels:
            checksum.update(np.ascontiguousarray(part).data)
    return checksum.hexdigest()


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
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise ClassScaleError("It is not a file.")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ClassScaleError(f"It has more than {_LARGEST >> 20} MiB.")
        value = loads(content.decode())
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
    except (OSError, ValueError, RecursionError, ClassScaleError) as error:
        why = (isinstance(error, OSError) and error.strerror) or reason(error)
        raise OutputError(
            f"{path} cannot be used as a case of a report. {why.rstrip('.')}. Remove the file, or segment the case "
            "again with --report."
        ) from error


def case_files(folder: Path) -> list[Path]:
    """Return the files of all cases of a report, in the order of their names.

    :raises OutputError: if the system cannot tell, as of a name that is too long.
    """
    try:
        files = list((folder / "cases").glob("*.json"))
    except OSError as error:
        raise unwritable(folder, error) from error
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
        if not (structure.voxels > 0 and _ML[0] < structure.volume_ml < _ML[1]):
            raise ClassScaleError(f"The structure {structure.name[:40]!r} has no volume.")
    for picture in case.pictures:
        picture.checked()
