"""What a client asks for: it is checked before it waits in the queue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import ClassScaleError
from ..options import WHOLE_IMAGE, Options, refuse_unknown
from ..remote.decided import SENT
from .offers import Offers
from .problems import Problem
from .schemas import NewJob

FILES = {"segmentation": "result.seg.nrrd", "confidence": "confidence.nrrd", "statistics": "statistics.csv"}


@dataclass(frozen=True)
class Wish:
    """What a client asks for.

    :ivar owner: name of the token.
    :ivar key: chosen by the client, so that it can ask again if it got no answer.
    :ivar images: ids of uploads, one per channel.
    :ivar models: ids of models that the server offers.
    :ivar options: fields of :class:`~ClassScaleSegLib.options.Options`.
    :ivar confidence: also compute the confidence.
    :ivar statistics: also measure the structures.
    :ivar keep_images: do not remove the images when the job has ended.
    """

    owner: str
    key: str
    images: tuple[str, ...]
    models: tuple[str, ...]
    options: dict[str, Any]
    confidence: bool = False
    statistics: bool = False
    keep_images: bool = False

    @property
    def files(self) -> dict[str, str]:
        """Names of the files that it becomes, by what they hold."""
        wanted = {"segmentation": True, "confidence": self.confidence, "statistics": self.statistics}
        return {what: name for what, name in FILES.items() if wanted[what]}

    def is_same(self, other: Wish) -> bool:
        """Tell whether another wish is the same; the ids of the images differ if they had to be sent again."""
        return vars(self) | {"images": len(self.images)} == vars(other) | {"images": len(other.images)}


def wish_of(owner: str, asked: NewJob) -> Wish:
    """Return what a client asks for.

    :param owner: name of its token.
    """
    return Wish(owner, **{**asked.model_dump(), "images": tuple(asked.images), "models": tuple(asked.models)})


def checked_wish(wish: Wish, offers: Offers) -> Wish:
    """Return a wish that can be met, as far as can be told without its images.

    :raises Problem: if a model is not offered, or there are more or fewer images than its channels.
    :raises ClassScaleError: if an option is unknown, out of range, or not for clients.
    """
    for name in wish.models:
        if name not in offers.all:
            known = ", ".join(offers.all)
            raise Problem(404, "model_unknown", f"This server has no model {name[:100]!a}. It has {known}.")
    if len(set(wish.models)) < len(wish.models):
        raise ClassScaleError("A model is given twice. Leave it out once.")
    refuse_unknown(wish.options, SENT)
    options = Options(**wish.options)
    if options.locate_with not in (None, WHOLE_IMAGE, *offers.all):
        known = ", ".join(offers.all)
        raise Problem(404, "model_unknown", f"This server has no model to locate with of that name. It has {known}.")
    if wish.confidence:
        replace(options, confidence=True)  # raises if the two cannot be had together
    for name in wish.models:
        needed = offers.all[name].channels
        if needed != len(wish.images):
            raise ClassScaleError(f"The model {name} needs {needed} image(s), one per channel, not {len(wish.images)}.")
    return wish
