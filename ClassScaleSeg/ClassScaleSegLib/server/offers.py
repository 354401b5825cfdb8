"""The models that a server offers, as it describes them to clients."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalog.catalog import Catalog, entry_named
from ..catalog.chosen import chosen_models
from ..errors import ModelError
from ..models.identity import model_sha256
from ..models.summary import ModelSummary
from ..models.summary_json import summary_facts
from ..options import WHOLE_IMAGE


@dataclass(frozen=True)
class Offer:
    """A model that the server offers.

    :ivar id: by which clients choose it: that of the catalogue, or made of the name of the file.
    :ivar source: by which the child process finds it: a path, or the id of the catalogue.
    :ivar name: for people.
    :ivar summaries: of its parts.
    :ivar paths: of its parts, which clients need not know.
    :ivar facts: the JSON of an answer.
    """

    id: str
    source: str
    name: str
    summaries: tuple[ModelSummary, ...]
    paths: tuple[Path, ...]
    facts: dict[str, Any]

    @property
    def channels(self) -> int:
        """The number of images that it needs."""
        return self.summaries[0].channels


class Offers:
    """All models that a server offers. They are read once; nothing else is ever opened for a client.

    :param models: paths, or ids or names of the catalogue.
    :raises ModelError: if one is unknown, not on this machine, or given twice.

    >>> offers = Offers(["toy-120"])
    >>> offers.all["toy-120"].channels, offers.source("toy-120")
    (1, 'toy-120')
    """

    def __init__(self, models: Sequence[str | Path], catalog: Catalog | None = None) -> None:
        catalog = catalog or Catalog()
        self.all: dict[str, Offer] = {}
        for text in models:
            offer = _offer(str(text), catalog)
            if offer.id in self.all:
                raise ModelError(f"The model {offer.id} is given twice. Leave it out once, or rename its file.")
            self.all[offer.id] = offer
        brief = [{**offer.facts, "parts": []} for offer in self.all.values()]
        self.json = json.dumps({"models": [offer.facts for offer in self.all.values()]}).encode()
        self.brief_json = json.dumps({"models": brief}).encode()

    def source(self, name: str | None) -> str | None:
        """Return by what the child process finds a model; ``None`` and "none" stay as they are."""
        return name if name in (None, WHOLE_IMAGE) else self.all[name or ""].source


def _offer(text: str, catalog: Catalog) -> Offer:
    (chosen,) = chosen_models([text], catalog=catalog)
    entry = entry_named(text, catalog)
    plain = re.sub(r"[^a-z0-9]+", "-", Path(text).name.lower().removesuffix(".zip")).strip("-")
    name, source = (plain, str(Path(text).absolute())) if entry is None else (entry.id, entry.id)
    facts = {
        "id": name,
        "name": chosen.name,
        "parts": [summary_facts(summary) for summary in chosen.summaries],
        "licence": chosen.summaries[0].licence or (entry.licence if entry is not None else None),
        "notice": chosen.summaries[0].notice,
        "sha256": [
            model_sha256(path, configuration=configuration)
            for path, configuration in zip(chosen.paths, chosen.configurations, strict=True)
        ],
    }
    return Offer(name, source, chosen.name, chosen.summaries, tuple(chosen.paths), facts)
