"""The models that a server offers, as it describes them. The description is not trusted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError, ServerError, shown
from ..inference.locating import refuse_other_channels
from ..models.json_checks import is_sha256, is_text
from ..models.summary import ModelSummary
from ..models.summary_json import MODEL_ID, summary_of
from ..options import WHOLE_IMAGE, Options

MAX_MODELS = 1000
MAX_PARTS = 64


@dataclass(frozen=True)
class RemoteModel:
    """A model of a server.

    :ivar id: by which it is chosen.
    :ivar name: for people.
    :ivar summaries: of its parts.
    :ivar licence: of its weights; ``None`` if unknown.
    :ivar notice: text that users must see; ``None`` if there is none.
    :ivar sha256: of each part, 64 hexadecimal digits; of one whose files have none, that of its description.
    """

    id: str
    name: str
    summaries: tuple[ModelSummary, ...]
    licence: str | None
    notice: str | None
    sha256: tuple[str, ...]

    @property
    def channels(self) -> int:
        """Number of images that it needs."""
        return self.summaries[0].channels


def models_of(facts: Mapping[str, Any], address: str) -> dict[str, RemoteModel]:
    """Return the models of a server by their ids, from the JSON of its answer.

    :param address: of the server, for messages.
    :raises ServerError: if the JSON is none that describes models.
    """
    listed = facts.get("models")
    if not isinstance(listed, list) or len(listed) > MAX_MODELS:
        raise ServerError(f"{address} does not say which models it offers. Update ClassScaleSeg there and here.")
    found = {}
    for each in listed:
        try:
            model = _model(each)
        except ModelError as error:
            raise ServerError(f"{address} offers a model that cannot be used: {shown(str(error))}") from error
        found[model.id] = model
    return found


def _model(facts: Any) -> RemoteModel:
    if not isinstance(facts, dict):
        raise ModelError("it is no JSON object.")
    name, parts, sums = facts.get("id"), facts.get("parts"), facts.get("sha256")
    if not isinstance(name, str) or re.fullmatch(MODEL_ID, name) is None:
        raise ModelError(f"its id is not valid: {name!r}.")
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        raise ModelError(f"{name} has no parts.")
    sums = sums if isinstance(sums, list) and len(sums) == len(parts) else [None] * len(parts)
    for key in ("name", "licence", "notice"):
        if not is_text(facts.get(key)) and (key == "name" or facts.get(key) is not None):
            raise ModelError(f"{name} has no valid {key!r}.")
    summaries = tuple(summary_of(part, name) for part in parts)
    if len({summary.channels for summary in summaries}) != 1:
        raise ModelError(f"{name} has parts with different channels.")
    digests = tuple(each if is_sha256(each) else _digest(part) for each, part in zip(sums, parts, strict=True))
    return RemoteModel(name, facts["name"], summaries, facts.get("licence"), facts.get("notice"), digests)


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def located_by(
    options: Options, channels: int, find: Callable[[Sequence[str]], list[RemoteModel]]
) -> list[RemoteModel]:
    """Return the model of a server that locates classes, if one was chosen.

    :param channels: of the images.
    :param find: returns models by their ids or names, as of :func:`chosen`.
    :raises ModelError: if the server has no such model, or it cannot locate classes in such images.
    """
    if options.locate_with in (None, WHOLE_IMAGE):
        return []
    (model,) = find([str(options.locate_with)])
    if len(model.summaries) > 1:
        raise ModelError(f"{model.id} consists of {len(model.summaries)} models; give a single one to locate.")
    refuse_other_channels(model.summaries[0], channels)
    return [model]


def chosen(models: Mapping[str, RemoteModel], wanted: Sequence[str], address: str) -> list[RemoteModel]:
    """Return the models of some ids or names.

    :raises ModelError: if the server has no such model, or one is wanted twice.
    """
    found: list[RemoteModel] = []
    by_name = {model.name.casefold(): model for model in models.values()}
    for text in map(str, wanted):
        model = models.get(text) or by_name.get(text.casefold())
        if model is None:
            offered = ", ".join(models) or "none"
            raise ModelError(f"{address} has no model {text}. It offers {shown(offered)}.")
        if model in found:
            raise ModelError(f"The model {model.name} ({text}) is given twice. Leave it out once.")
        found.append(model)
    return found
