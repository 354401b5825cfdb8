"""Check what a client asks for before it waits in the queue."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ClassScaleError
from ..options import WHOLE_IMAGE, Options, refuse_unknown
from ..remote.decided import SENT
from .jobs import Wish
from .offers import Offers
from .problems import Problem


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
