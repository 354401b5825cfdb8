"""Sentences on channels whose volume is not certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ClassScaleSegLib.images.channel_names import ChannelMatch, looks_like, match_channels
from slicer.i18n import tr as _

from ..widgets.texts import shortened

_NAMES = 3  # of volumes that a sentence lists


def hints(channels: Sequence[str], candidates: Sequence[str], chosen: Mapping[int, int]) -> list[str]:
    """Return what the user should know before all volumes are chosen, and of those that may be chosen wrongly.

    :param channels: the names of the model's channels.
    :param candidates: the names of the volumes.
    :param chosen: the candidates that are chosen, by number of the channel.
    """
    matches = match_channels(channels, candidates, chosen)
    found = [sentence(match, candidates) for match in matches if match.index is None and match.known]
    for number, index in chosen.items():
        other = looks_like(channels, candidates[index])
        if other is not None and other != number:
            text = _("{volume} is called like {other}, but it is selected for {channel}.")
            words = [shortened(name, 40) for name in (candidates[index], channels[other], channels[number])]
            found.append(text.format(volume=words[0], other=words[1], channel=words[2]))
    return found


def sentence(match: ChannelMatch, candidates: Sequence[str]) -> str:
    """Return why it is not certain which volume a channel is."""
    channel, names = shortened(match.channel, 40), [shortened(candidates[index], 40) for index in match.possible]
    if not match.known:
        text = _("The name {channel} does not say which volume the channel is. Select its volumes by hand.")
        return text.format(channel=channel)
    if not names:
        return _("No volume is called {channel}.").format(channel=channel)
    if len(names) == 1:
        return _("{volume} could be {channel}. Choose it if it is.").format(volume=names[0], channel=channel)
    if len(names) == 2:
        text = _("Two volumes could be {channel}: {first} and {second}. Choose one.")
        return text.format(channel=channel, first=names[0], second=names[1])
    listed = ", ".join(names[:_NAMES] + ["..."] * (len(names) > _NAMES))
    text = _("{count} volumes could be {channel}: {names}. Choose one.")
    return text.format(count=len(names), channel=channel, names=listed)
