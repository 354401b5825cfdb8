"""Tell whether two models are the same: by the checksum of the files from which they are opened."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import ModelError
from ..files import sha256_of
from .bundle import is_bundle
from .families import foreign_reader
from .files import Files, open_source
from .folder import fold_names


def model_sha256(
    path: str | Path,
    folds: tuple[int | str, ...] | None = None,
    checkpoint: str = "final",
    configuration: str | None = None,
) -> str:
    """Return the SHA-256 of a model, 64 hexadecimal digits: of a zip that of the file.

    Of a folder it is the SHA-256 of the lines ``NAME DIGEST`` of the files from which the model is opened, in the order
    of names.

    :param path: the model, as :func:`~ClassScaleSegLib.models.model.open_model` accepts it; so are the others.
    :raises ModelError: if a file cannot be read, or there is no such model.

    >>> from ClassScaleSegLib.resources import resource
    >>> model_sha256(resource("Models", "toy-120.zip"))[:16]
    '5eb9239c8f35796a'
    """
    path = Path(path)
    try:
        if path.is_file():
            return sha256_of(path)
        with open_source(path, configuration) as files:
            folder = path / files.root
            lines = [f"{name} {sha256_of(folder / name)}\n" for name in sorted(_names(files, folds, checkpoint))]
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read ({error.strerror or error}).") from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _names(files: Files, folds: tuple[int | str, ...] | None, checkpoint: str) -> list[str]:
    """Return the names of the files from which the model is opened."""
    if is_bundle(files):
        return ["manifest.json"]  # it holds the checksums of the others, which are compared when the model is opened
    if (reader := foreign_reader(files)) is not None:
        return reader.members(files)
    texts, file = ["plans.json", "dataset.json"], f"checkpoint_{checkpoint}.pth"
    return [*texts, *(f"fold_{fold}/{file}" for fold in fold_names(files, folds, file))]
