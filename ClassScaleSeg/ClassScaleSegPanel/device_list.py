"""The list of devices, filled when the section "Advanced" is first opened, because finding GPUs takes a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .state import silent


class DeviceList:
    """Fills the device list of the .ui file, and reports the user's choice.

    :param on_chosen: called with the selected device, such as "cuda:0".
    """

    def __init__(self, ui: Any, on_chosen: Callable[[str], None]) -> None:
        self._box, self._section = ui.deviceComboBox, ui.advancedCollapsibleButton
        self._list("auto", _("Automatic"))
        self._list("cpu", _("CPU"))
        self._box.connect("currentIndexChanged(int)", lambda index: on_chosen(self._box.itemData(index)))
        self._section.connect("contentsCollapsed(bool)", self._opened)

    def render(self, device: str) -> None:
        """Show a device, also if this computer does not have it, because the scene may come from another computer."""
        with silent(self._box):
            if self._box.findData(device) < 0:
                self._list(device, device)
            self._box.setCurrentIndex(self._box.findData(device))

    def _list(self, device: str, text: str) -> None:
        index = self._box.findData(device)
        if index < 0:
            self._box.addItem(text, device)
        else:
            self._box.setItemText(index, text)

    def _opened(self, collapsed: bool) -> None:
        if not collapsed:
            from ClassScaleSegLib.inference.devices import find_devices

            self._section.disconnect("contentsCollapsed(bool)", self._opened)
            for device, name in find_devices().items():
                shown = _("CPU") if device == "cpu" else _("{device} ({name})").format(device=device, name=name)
                self._list(device, shown)
