"""The rows of the panel that choose a volume for each channel of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _

CHANNELS = 4  # rows that the .ui file has


def show_channels(ui: Any, names: Sequence[str]) -> None:
    """A row for each channel, called as the model calls it; a single one is just the volume."""
    ui.inputLabel.text = _("Volume:") if len(names) < 2 else _("{channel}:").format(channel=names[0])
    for number in range(2, CHANNELS + 1):
        label, selector = (getattr(ui, f"channel{kind}{number}") for kind in ("Label", "Selector"))
        label.visible = selector.visible = number <= len(names)
        if number <= len(names):
            label.text = _("{channel}:").format(channel=names[number - 1])
