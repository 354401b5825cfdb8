"""What the panel says of a server: what it is and does, what is wrong with it, and to what the user agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..translation import translated
from ..widgets.texts import shortened

if TYPE_CHECKING:
    from ..state import PanelModel, ServerView

_DEVICES = 3  # that are named


def server_fault(view: ServerView, models: tuple[PanelModel, ...]) -> str:
    """Return why nothing can be segmented on a server now; empty if it can.

    :param models: of the run.
    """
    if view.fault and view.server is None:
        return panel_words(view.fault)
    if view.unasked:
        text = _('{fault} To send it all the same, press "Try again". Otherwise select another device.')
        return text.format(fault=panel_words(view.fault))
    if view.fault:
        text = _('{fault} Press "Try again", or select another device.')
        return text.format(fault=panel_words(view.fault))
    name = shortened(view.name, 40)
    if view.models is None:
        return _("Asking {server} for its models...").format(server=name)
    if not view.models:
        return _("{server} offers no model. Select another device.").format(server=name)
    gone = next((model.id for model in models if model.entry is None), None)
    if gone:
        text = _("{server} does not offer the model {model}. Select one that it offers, or another device.")
        return text.format(server=name, model=shortened(gone, 60))
    return _("No model is selected. Select one that {server} offers.").format(server=name) if gone is not None else ""


def server_need(view: ServerView) -> list[str]:
    """Return where a run is computed, on what, and how many jobs are before it."""
    health = view.health
    if health is None:
        return []
    devices = [*health.devices[:_DEVICES], *(["..."] if len(health.devices) > _DEVICES else [])]
    text = _("{server} computes this run, on {devices}.") if devices else _("{server} computes this run.")
    sentences = [text.format(server=shortened(view.name, 40), devices=", ".join(devices))]
    if health.waiting:
        text = _("One job waits there.") if health.waiting == 1 else _("{count} jobs wait there.")
        sentences.append(text.format(count=health.waiting))
    elif health.running:
        sentences.append(_("No job waits there, and {count} are running.").format(count=health.running))
    else:
        sentences.append(_("It has nothing else to do."))
    return sentences


def server_summary(view: ServerView) -> str:
    """Return what a server is, or why it cannot be used, for people who test it."""
    if view.health is None or view.models is None:
        return panel_words(view.fault)
    facts = {
        _("Version"): view.health.version,
        _("Devices"): ", ".join(view.health.devices) or _("not stated"),
        _("Models"): ", ".join(view.models) or _("none"),
        _("Jobs"): _("{running} running, {waiting} waiting").format(
            running=view.health.running, waiting=view.health.waiting
        ),
    }
    lines = [_("{title}: {value}").format(title=title, value=shortened(value, 300)) for title, value in facts.items()]
    return "\n".join([_("The server answers."), *lines])


def panel_words(fault: str) -> str:
    """Return a sentence of the library in the language of Slicer, which says what to do here, not in a terminal."""
    from ClassScaleSegLib.addresses import INSECURE_HINT
    from ClassScaleSegLib.remote.credentials import TOKEN_HINT

    shown = translated(fault).replace(f" {translated(INSECURE_HINT)}", "")
    shown = shown.replace("(--server-ca)", _('("Servers...")'))
    return shown.replace(translated(TOKEN_HINT), _('Enter it in the list of servers ("Servers...").'))


def token_consent(address: str, name: str) -> str:
    """Return the question before a token is sent for the first time on a way on which others could read it."""
    lines = [
        _("To ask {server} what it offers, its token is sent to:").format(server=name),
        address,
        "",
        _("The connection is NOT encrypted: others in the network could read the token, and use it."),
        "",
        _("Send the token to this address, now and in future?"),
    ]
    return "\n".join(lines)


def consent(address: str, name: str) -> str:
    """Return the question before an image is sent to a server for the first time."""
    from ClassScaleSegLib.addresses import is_encrypted, is_this_machine

    if is_this_machine(address):
        way = _("The address is one of this computer. What answers there may be a tunnel to another computer.")
    elif is_encrypted(address):
        way = _("The connection is encrypted.")
    else:
        way = _("The connection is NOT encrypted: others in the network could read the image and the token.")
    lines = [
        _("To segment it on {server}, the image leaves this program and is sent to:").format(server=name),
        address,
        "",
        way,
        _("Names, dates and what else a patient's record says are not sent, but an image may show a face."),
        "",
        _("Send images to this address, now and in future?"),
    ]
    return "\n".join(lines)
