"""Where the models come from that the panel lists: the catalogue of this computer, or a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.catalog.entries import Entry
    from ClassScaleSegLib.models.summary import ModelSummary
    from ClassScaleSegLib.remote.offers import RemoteModel


class ModelSource(Protocol):
    """Models as the catalogue describes them."""

    def entries(self) -> tuple[Entry, ...]:
        """Return all models.

        :raises CatalogError: if they cannot be read.
        """

    def is_there(self, entry: Entry) -> bool:
        """Return whether a model can be used as it is, without a download."""

    def structures(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of what a model finds."""

    def summaries(self, entry: Entry) -> tuple[ModelSummary, ...]:
        """Return what the parts of a model are.

        :raises ModelError: if it cannot be used.
        """


class CatalogModels:
    """The models of the catalogue of this computer."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.entries, self.is_there, self.structures = catalog.entries, catalog.is_installed, catalog.structures

    def summaries(self, entry: Entry) -> tuple[ModelSummary, ...]:
        """Return what the parts of a model are.

        :raises ModelError: if it cannot be used.
        """
        from ClassScaleSegLib.models.summary import summarize

        paths = zip(self._catalog.paths(entry), entry.parts, strict=True)
        return tuple(summarize(path, part.configuration) for path, part in paths)

    def is_trainable(self, entry: Entry) -> bool:
        """Return whether a model can be trained further: it is here, one network, and planned by nnU-Net.

        One that cannot be opened counts: the training says what is wrong with it.
        """
        from ClassScaleSegLib.errors import ModelError
        from ClassScaleSegLib.models.summary import is_trainable

        if len(entry.parts) != 1 or not self.is_there(entry):
            return False
        (path,) = self._catalog.paths(entry)
        try:
            return is_trainable(path, entry.parts[0].configuration)
        except ModelError:
            return True


class ServerModels:
    """The models that a server offers.

    :param models: by their ids.
    """

    def __init__(self, models: Mapping[str, RemoteModel]) -> None:
        self._models = models

    def entries(self) -> tuple[Entry, ...]:
        """Return all models of the server."""
        return tuple(map(_entry, self._models.values()))

    def is_there(self, entry: Entry) -> bool:
        """Return ``True``: none has to be downloaded to this computer."""
        return True

    def structures(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of what a model finds."""
        summaries = self.summaries(entry)
        return tuple(dict.fromkeys(label.name for each in summaries for label in each.table.foreground))

    def summaries(self, entry: Entry) -> tuple[ModelSummary, ...]:
        """Return what the parts of a model are, as the server describes them."""
        return self._models[entry.id].summaries


def _entry(model: RemoteModel) -> Entry:
    from ClassScaleSegLib.catalog.entries import Entry, Part

    first = model.summaries[0]
    parts = (Part(),) * len(model.summaries)
    licence, notice = model.licence or first.licence, model.notice or first.notice
    return Entry(model.id, model.name, modality=first.modality, parts=parts, licence=licence, notice=notice)
