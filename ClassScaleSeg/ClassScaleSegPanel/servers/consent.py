"""Asks once for each address, before the first image is sent there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ..widgets.texts import ask_yes
from .texts import consent

if TYPE_CHECKING:
    from ..state import ServerView

_SETTING = "ClassScaleSeg/ServersAgreed"
_MOST = 100  # addresses that are remembered
_LONGEST = 300


def agreed(view: ServerView | None) -> bool:
    """Return whether images may be sent to a server; ask, if the user has not said so before.

    :param view: ``None`` if this computer segments.
    """
    if view is None or view.server is None:
        return view is None
    address, known = view.server.address, _addresses()
    if address in known:
        return True
    if not ask_yes(consent(address, view.name), _("Send the image?")):
        return False
    slicer.app.userSettings().setValue(_SETTING, json.dumps([*known, address][-_MOST:]))
    return True


def withdraw(address: str) -> None:
    """Forget that the user has agreed to an address."""
    slicer.app.userSettings().setValue(_SETTING, json.dumps([each for each in _addresses() if each != address]))


def _addresses() -> list[str]:
    """Return the addresses to which the user has agreed. The settings are not trusted: what is damaged is none."""
    try:
        found = json.loads(slicer.app.userSettings().value(_SETTING) or "[]")
    except (TypeError, ValueError, RecursionError):
        return []
    fine = isinstance(found, list) and all(isinstance(each, str) and len(each) <= _LONGEST for each in found)
    return found if fine else []
