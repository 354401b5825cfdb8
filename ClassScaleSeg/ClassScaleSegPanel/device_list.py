"""The list of devices, filled when the section "Advanced" is first opened, because finding GPUs takes a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _


class DeviceList:
    """Fills the device list of the .ui file, and reports the user's choice.

    :param ui: the widgets of the panel, by name.
    :param on_changed: called with the selected device, such as "cuda:0".
    """

    def __init__(self, ui: Any, on_changed: Callable[[str], None]) -> None:
        self._box, self._on_changed, self._filled = ui.deviceComboBox, on_changed, False
        self._box.addItem(_("Automatic"), "auto")
        self._box.addItem(_("CPU"), "cpu")
        self._box.connect("currentIndexChanged(int)", self._changed)
        ui.advancedCollapsibleButton.connect("contentsCollapsed(bool)", self._opened)

    def select(self, device: str) -> None:
        """Show a device, also if this computer does not have it, because the scene may come from another computer."""
        index = self._box.findData(device)
        if index < 0:
            self._box.addItem(device, device)
            index = self._box.findData(device)
        self._box.setCurrentIndex(index)

    def _opened(self, collapsed: bool) -> None:
        if collapsed or self._filled:
            return
        from ClassScaleSegLib.inference.devices import find_devices

        self._filled = True
        for device, name in find_devices().items():
            text = _("{device} ({name})").format(device=device, name=name) if device != "cpu" else _("CPU")
            index = self._box.findData(device)
            if index < 0:
                self._box.addItem(text, device)
            else:
                self._box.setItemText(index, text)

    def _changed(self, index: int) -> None:
        self._on_changed(self._box.itemData(index))
