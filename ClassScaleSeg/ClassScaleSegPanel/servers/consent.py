"""Asks once for each address, before the first image is sent there, or a token that others could read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ..widgets.texts import ask_yes
from .texts import consent, token_consent

if TYPE_CHECKING:
    from ..state import ServerView

_IMAGES = "ClassScaleSeg/ServersAgreed"
_TOKENS = "ClassScaleSeg/TokensAgreed"  # by connections that are not encrypted; whoever sends images has agreed, too
_MOST = 100  # addresses that are remembered
_LONGEST = 300


def agreed(view: ServerView | None) -> bool:
    """Return whether images may be sent to a server; ask, if the user has not said so before.

    :param view: ``None`` if this computer segments.
    """
    return view is None or _agreed(view, consent, _("Send the image?"), _IMAGES)


def token_agreed(address: str) -> bool:
    """Return whether the user has agreed to send a token to an address, also if others could read it."""
    return any(address in _addresses(setting) for setting in (_TOKENS, _IMAGES))


def agree_to_token(view: ServerView) -> bool:
    """Return whether the token may be sent to a server; ask, if others could read it and the user has not agreed."""
    return _agreed(view, token_consent, _("Send the token?"), _TOKENS, _IMAGES)


def withdraw(address: str) -> None:
    """Forget that the user has agreed to an address."""
    for setting in (_IMAGES, _TOKENS):
        kept = [each for each in _addresses(setting) if each != address]
        slicer.app.userSettings().setValue(setting, json.dumps(kept))


def _agreed(view: ServerView, question: Callable[[str, str], str], title: str, setting: str, *more: str) -> bool:
    """Return whether the user has agreed to what a question asks of a server, before or now.

    :param question: makes its text of the address and the name of the server.
    :param setting: where the answer is kept.
    :param more: the settings of other questions, to which a Yes is enough as well.
    """
    if view.server is None:
        return False
    address = view.server.address
    if any(address in _addresses(each) for each in (setting, *more)):
        return True
    if not ask_yes(question(address, view.name), title):
        return False
    kept = [*_addresses(setting), address][-_MOST:]
    slicer.app.userSettings().setValue(setting, json.dumps(kept))
    return True


def _addresses(setting: str) -> list[str]:
    """Return the addresses to which the user has agreed. The settings are not trusted: what is damaged is none."""
    try:
        found = json.loads(slicer.app.userSettings().value(setting) or "[]")
    except (TypeError, ValueError, RecursionError):
        return []
    fine = isinstance(found, list) and all(isinstance(each, str) and len(each) <= _LONGEST for each in found)
    return found if fine else []
