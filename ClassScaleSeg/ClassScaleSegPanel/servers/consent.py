"""Asks once for each address, before the first image is sent there, or a token that others could read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ..widgets.texts import ask_yes
from .texts import consent, token_consent

if TYPE_CHECKING:
    from ..state import ServerView

_SETTING = "ClassScaleSeg/ServersAgreed"
_TOKENS = "ClassScaleSeg/TokensAgreed"  # by connections that are not encrypted; whoever sends images has agreed, too
_MOST = 100  # addresses that are remembered
_LONGEST = 300


def agreed(view: ServerView | None) -> bool:
    """Return whether images may be sent to a server; ask, if the user has not said so before.

    :param view: ``None`` if this computer segments.
    """
    if view is None or view.server is None:
        return view is None
    address = view.server.address
    if address in _addresses(_SETTING):
        return True
    if not ask_yes(consent(address, view.name), _("Send the image?")):
        return False
    _remember(_SETTING, address)
    return True


def token_agreed(address: str) -> bool:
    """Return whether the user has agreed to send a token to an address, also if others could read it."""
    return any(address in _addresses(setting) for setting in (_SETTING, _TOKENS))


def agree_to_token(view: ServerView) -> bool:
    """Return whether the token may be sent to a server; ask, if others could read it and the user has not agreed."""
    if view.server is None:
        return False
    address = view.server.address
    if token_agreed(address):
        return True
    if not ask_yes(token_consent(address, view.name), _("Send the token?")):
        return False
    _remember(_TOKENS, address)
    return True


def withdraw(address: str) -> None:
    """Forget that the user has agreed to an address."""
    for setting in (_SETTING, _TOKENS):
        kept = [each for each in _addresses(setting) if each != address]
        slicer.app.userSettings().setValue(setting, json.dumps(kept))


def _remember(setting: str, address: str) -> None:
    slicer.app.userSettings().setValue(setting, json.dumps([*_addresses(setting), address][-_MOST:]))


def _addresses(setting: str) -> list[str]:
    """Return the addresses to which the user has agreed. The settings are not trusted: what is damaged is none."""
    try:
        found = json.loads(slicer.app.userSettings().value(setting) or "[]")
    except (TypeError, ValueError, RecursionError):
        return []
    fine = isinstance(found, list) and all(isinstance(each, str) and len(each) <= _LONGEST for each in found)
    return found if fine else []
