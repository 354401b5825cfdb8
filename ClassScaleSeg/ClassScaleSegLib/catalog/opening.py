"""Open a model by its path, or by its id or name in the catalogue."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError
from ..models import model
from .catalog import Catalog, entry_named


def open_model(
    source: str | Path,
    folds: tuple[int | str, ...] | None = None,
    checkpoint: str = "final",
    configuration: str | None = None,
) -> model.Model:
    """Open a model from any source. Its files are not trusted, and no code in them runs. Nothing is downloaded.

    :param source: a path, as of :func:`ClassScaleSegLib.models.model.open_model`, like the other parameters; or the id
        or name of a model of the catalogue that is embedded or downloaded, or is the user's own.
    :param configuration: by default, of a model of the catalogue, the one that its entry names.
    :raises CatalogError: a ModelError: if there is no such file, folder or model, or it is not downloaded.
    :raises ModelError: if the model cannot be used, or consists of several.

    >>> open_model("toy-120").name
    'Toy atlas, 120 classes'
    """
    catalog = Catalog()
    entry = entry_named(str(source), catalog)
    if entry is None:
        return model.open_model(source, folds, checkpoint, configuration)
    paths = catalog.paths(entry)
    if len(paths) > 1:
        listed = ", ".join(map(str, paths))
        raise ModelError(f"{entry.name} consists of {len(paths)} models. Open them one by one: {listed}.")
    return model.open_model(paths[0], folds, checkpoint, configuration or entry.parts[0].configuration)
