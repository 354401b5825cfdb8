"""Find the images of a BIDS dataset, and the file of each result in a BIDS derivative. No voxel is read.

Sources: the specification of BIDS 1.11.1, for names common-principles.md and appendices/entities.md, for those of
results derivatives/introduction.md and derivatives/imaging.md; extension proposal 24, a draft, for CT.

A result keeps the entities of its image and has the suffix ``dseg``. It needs none of its own: ``space`` is for images
that were moved to another grid, ``seg`` and ``desc`` are for several results of one name in one derivative, of which
`write_derivative` makes sure that there are none.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import ImageError, ModelError, named
from ..models.files import parse_json

DESCRIPTION = "dataset_description.json"
RESULT = "_dseg.nii.gz"
MAX_DESCRIPTION = 1 << 20  # bytes
MAX_POINTER = 32 << 10  # bytes; git-annex takes no larger file for one of its own
_LABEL = "[0-9a-zA-Z+]+"
_NAME = re.compile(f"(?P<entities>sub-{_LABEL}(?:_[a-zA-Z]+-{_LABEL})*)_(?P<suffix>[0-9a-zA-Z]+)")
_PATTERN = re.compile(r"[0-9a-zA-Z+_*?\[\]!-]+")
_NO_MAGNITUDE = ("part-phase", "part-real", "part-imag")


@dataclass(frozen=True)
class BidsImage:
    """An image of a BIDS dataset.

    :ivar name: file name without ``.nii`` or ``.nii.gz``; no other image has it.
    :ivar file: the image, by the names of its links, not of their targets. Its content may be missing.
    :ivar output: file of the result in the derivative.
    :ivar source: the image's path in its dataset, with ``/``.
    """

    name: str
    file: Path
    output: Path
    source: str


@dataclass(frozen=True)
class BidsImages:
    """What `bids_images` has found.

    :ivar images: by subject, session, folder and name.
    :ivar left_out: a sentence for each file or folder that may have been meant, and cannot be used.
    """

    images: tuple[BidsImage, ...]
    left_out: tuple[str, ...]


def default_suffix(modality: str | None) -> str:
    """Return the suffix of the images that a model is for: ``ct`` or ``T1w``.

    :param modality: of the model, ``CT`` or ``MR``; ``None`` if unknown.
    :raises ImageError: if it is unknown.

    >>> default_suffix("CT"), default_suffix("MR")
    ('ct', 'T1w')
    """
    if modality is None:
        raise ImageError(
            "The model does not say which images it is for, CT or MR. Name the suffix of their files, such as "
            "--bids-suffix T1w."
        )
    return "ct" if modality == "CT" else "T1w"


def image_kind(suffix: str) -> str:
    """Return the suffix alone, without the entities before it.

    >>> image_kind("acq-mprage_T1w")
    'T1w'
    """
    return suffix.rpartition("_")[2]


def bids_images(dataset: str | Path, suffix: str, out: str | Path) -> BidsImages:
    """Find the images ``sub-*/[ses-*/]*/*_SUFFIX.nii[.gz]`` of a dataset.

    Upper and lower case are equal, so ``ct`` finds ``CT`` too. Phase, real and imaginary parts are left out. Hidden
    folders and those beside the subjects, such as ``derivatives`` and ``sourcedata``, are not searched.

    :param dataset: the folder of the dataset, raw or a derivative.
    :param suffix: such as ``T1w``. Entities may be before it, and ``*`` in it: ``acq-mprage*_T1w``.
    :param out: the folder of the derivative.
    :raises ImageError: if this is no BIDS dataset or not a suffix, no image was found, or two images would have the
        same name or result.
    """
    root, pattern = Path(dataset), suffix.removeprefix("_").casefold()
    if not _PATTERN.fullmatch(pattern):
        raise ImageError(f"{suffix!a} is not the end of a file name in BIDS, such as T1w or acq-mprage_T1w.")
    read_description(root)
    found: list[BidsImage] = []
    left_out: list[str] = []
    others: Counter[str] = Counter()
    meant = f"(?<![0-9a-z]){re.escape(image_kind(pattern))}(?![0-9a-z])"
    for folder in _folders_of_images(root, left_out):
        for name in _names(folder, left_out):
            stem = _stem(name)
            if stem is None:
                continue
            parts, file = _NAME.fullmatch(stem), folder / name
            if parts is None or not _belongs(stem, folder.relative_to(root).parts):
                if re.search(meant, stem.casefold()):
                    left_out.append(_misnamed(file, root, image_kind(suffix)))
            elif not fnmatchcase(f"_{stem}".casefold(), f"*_{pattern}"):
                others[parts["suffix"]] += 1
            elif part := next((part for part in _NO_MAGNITUDE if part in stem.split("_")), None):
                left_out.append(f"{file} is left out: {part} is not the magnitude of the signal, which models need.")
            else:
                source = file.relative_to(root)
                output = Path(out) / source.with_name(parts["entities"] + RESULT)
                found.append(BidsImage(stem, file, output, source.as_posix()))
    if not found:
        raise _nothing_found(root, suffix, others, left_out)
    _refuse_equal(found)
    return BidsImages(tuple(found), tuple(left_out))


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of a dataset's ``dataset_description.json``, of which no value has been checked.

    :raises ImageError: if it is missing or damaged, so that the folder is no BIDS dataset.
    """
    file = folder / DESCRIPTION
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder. Name the folder of a BIDS dataset.")
    if not os.path.lexists(file):
        raise ImageError(
            f"{folder} is no BIDS dataset: it has no {DESCRIPTION}. Name the folder that has one, or segment a folder "
            "of images without --bids."
        )
    refuse_missing_content(file)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_DESCRIPTION + 1)
    except OSError as error:
        raise ImageError(f"{file} cannot be read ({error.strerror or error}).") from error
    if len(content) > MAX_DESCRIPTION:
        raise ImageError(f"{file} is larger than {MAX_DESCRIPTION >> 20} MiB: it does not describe a BIDS dataset.")
    try:
        with named(file):
            return parse_json(content)
    except ModelError as error:
        raise ImageError(str(error)) from error


def refuse_missing_content(file: Path) -> None:
    """Refuse a file of a datalad or git-annex dataset whose content was not fetched, and whatever is no file.

    git-annex leaves a link to nothing, or a small text file (a pointer) that names the content.

    :raises ImageError: saying how to fetch it.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
            raise ImageError(f"{file} is {what}; a file was expected.")
        place = b""
        if status.st_size <= MAX_POINTER:
            with file.open("rb") as opened:
                place = opened.readline()
    except OSError as error:
        place = os.fsencode(os.readlink(file)) if file.is_symlink() else b""
        if not (isinstance(error, FileNotFoundError) and _in_annex(place)):
            target = f", a link to {_shown(os.fsdecode(place))}," if place else ""
            raise ImageError(f"{file}{target} cannot be read ({error.strerror or error}).") from error
    if _in_annex(place):
        raise ImageError(
            f"{file} has no content here: git-annex has not fetched it. In {file.parent}, run: datalad get "
            f"{shlex.quote(file.name)}"
        )


def annex_key(file: Path) -> str | None:
    """Return git-annex's name for the content of a file that is a link into its store; ``None`` for other files.

    :raises OSError: if the link cannot be read.
    """
    if not file.is_symlink():
        return None
    place = os.readlink(file)
    return os.path.basename(place.replace("\\", "/")) if _in_annex(os.fsencode(place)) else None


def _in_annex(place: bytes) -> bool:
    return b"annex/objects/" in place.replace(b"\\", b"/")


def _folders_of_images(root: Path, left_out: list[str]) -> Iterator[Path]:
    """Yield the folders, such as ``anat``, of all subjects and sessions."""
    for subject in _subfolders(root, left_out):
        if not subject.name.startswith("sub-"):
            continue
        inner = _subfolders(subject, left_out)
        if not inner:
            left_out.append(
                f"{_shown(str(subject))} has no folders. If it is a dataset of its own that was not fetched, run in "
                f"{root}: datalad get {shlex.quote(_shown(subject.name))}"
            )
        for folder in inner:
            yield from _subfolders(folder, left_out) if folder.name.startswith("ses-") else [folder]


def _subfolders(folder: Path, left_out: list[str]) -> list[Path]:
    return [folder / name for name in _names(folder, left_out) if (folder / name).is_dir()]


def _names(folder: Path, left_out: list[str]) -> list[str]:
    """Return the names in a folder but hidden ones, in order."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        left_out.append(f"{folder} is left out: it cannot be read ({error.strerror or error}).")
        return []


def _stem(name: str) -> str | None:
    """Return the name of a NIfTI file without its suffix; ``None`` for other files."""
    suffix = next((suffix for suffix in (".nii.gz", ".nii") if name.lower().endswith(suffix)), None)
    return None if suffix is None else name[: -len(suffix)]


def _belongs(stem: str, folders: Sequence[str]) -> bool:
    """Tell whether a name says the same subject and session as its folders, and each entity once."""
    *entities, _ = stem.split("_")
    keys = [entity.partition("-")[0] for entity in entities]
    above = list(folders[:-1])  # sub-01, or sub-01 and ses-1
    return entities[: len(above)] == above and ("ses" in keys) == (len(above) == 2) and len(set(keys)) == len(keys)


def _misnamed(file: Path, root: Path, kind: str) -> str:
    right = "_".join([*file.relative_to(root).parts[:-2], kind])
    said = f"{_shown(str(file))} is left out: BIDS does not name files so, but as in {right}.nii.gz."
    return f"{said} Rename it if it is meant."


def _shown(name: str) -> str:
    """Return a name that nobody has checked so that it cannot control the terminal."""
    return name if name.isprintable() else ascii(name)


def _nothing_found(root: Path, suffix: str, others: Counter[str], left_out: list[str]) -> ImageError:
    text = f"{root} has no image sub-*/[ses-*/]*/*_{suffix}.nii[.gz]."
    if others:
        listing = ", ".join(f"{kind} ({number})" for kind, number in others.most_common(12))
        text += f" It has {listing}; choose one of them (--bids-suffix)."
    return ImageError(" ".join([text, *left_out[:2]]))


def _refuse_equal(images: Sequence[BidsImage]) -> None:
    """Refuse two images of one name, or with one result, also where upper and lower case are equal.

    :raises ImageError: naming both files.
    """
    seen: dict[str, BidsImage] = {}
    for image in images:
        for key in (image.name.casefold(), str(image.output).casefold()):
            other = seen.setdefault(key, image)
            if other is image:
                continue
            both = f"{other.file} and {image.file}"
            if other.file.with_name(image.name) == image.file.with_name(image.name) and other.name == image.name:
                raise ImageError(f"{both} are compressed and not. BIDS allows one of them: move the other elsewhere.")
            what = f"be the case {image.name}" if key == image.name.casefold() else f"have the result {image.output}"
            raise ImageError(
                f"{both} would both {what}. Move one elsewhere, or choose by more of the name, such as --bids-suffix "
                f"acq-NAME_{image_kind(image.name)}."
            )
