"""Find cases of several datasets that have the same image: often datasets label different things in the same images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from ClassScaleSegLib.errors import ImageError
from ClassScaleSegLib.files import sha256_of

from .source import Source

_PLACES, _PIECE = 16, 1 << 16  # bytes; files of one size are compared here before they are read as a whole


def same_images(sources: Sequence[Source]) -> list[tuple[str, ...]]:
    """Return the groups of cases whose first channel is the same file, or the same copied.

    :returns: names in the merged dataset, in the order of the datasets; no group has only one.
    :raises ImageError: if an image cannot be read.
    """
    files = {f"{source.prefix}{case.name}": case.images[0] for source in sources for case in source.cases}
    try:
        groups: list[list[str]] = [list(files)]
        for key in (_size, _sample, sha256_of):
            groups = [found for group in groups for found in _grouped(group, files, key)]
    except OSError as error:
        raise ImageError(f"{error.filename} cannot be read ({error.strerror or error}). Check the dataset.") from error
    return [tuple(group) for group in groups]


def _grouped(names: Sequence[str], files: Mapping[str, Path], key: Callable[[Path], Hashable]) -> list[list[str]]:
    """Return the groups of several names whose files have the same key."""
    found: dict[Hashable, list[str]] = {}
    for name in names:
        found.setdefault(key(files[name]), []).append(name)
    return [group for group in found.values() if len(group) > 1]


def _size(file: Path) -> int:
    return file.stat().st_size


def _sample(file: Path) -> bytes:
    size, digest = file.stat().st_size, hashlib.sha256()
    with open(file, "rb") as stream:
        for place in range(_PLACES):
            stream.seek(place * max(0, size - _PIECE) // (_PLACES - 1))
            digest.update(stream.read(_PIECE))
    return digest.digest()
