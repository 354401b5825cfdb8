"""The list of devices: this computer's, which are looked for when the list gets the focus, and the user's servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from ..state import PanelState, silent
from ..widgets.texts import shortened, tip

if TYPE_CHECKING:
    from ClassScaleSegLib.remote.servers import KnownServer

_LENGTH = 60  # of a name in the list


class DeviceList:
    """Fills the row "Device" of the .ui file, and reports the user's choice.

    :ivar focus: event filter that sees when the list gets the focus.
    :param on_chosen: called with the selected device, such as "cuda:0".
    :param on_again: called without arguments to ask the server again.
    """

    def __init__(
        self, ui: Any, state: PanelState, on_chosen: Callable[[str], None], on_again: Callable[[], None]
    ) -> None:
        self._ui, self._state, self._box = ui, state, ui.deviceComboBox
        self._servers: tuple[KnownServer, ...] = ()
        self._list("auto", _("Automatic"))
        self._list("cpu", _("CPU"))
        self._box.connect("currentIndexChanged(int)", lambda index: on_chosen(self._box.itemData(index)))
        ui.retryButton.visible = False
        ui.retryButton.connect("clicked(bool)", lambda: self._again(on_again))
        self.focus = FirstFocus(self._box, self.find)

    def _again(self, on_again: Callable[[], None]) -> None:
        self._box.setFocus()  # the button goes
        on_again()

    def find(self) -> None:
        """List the devices of this computer, which takes a moment."""
        from ClassScaleSegLib.inference.devices import find_devices

        for device, name in find_devices().items():
            shown = _("CPU") if device == "cpu" else _("{device} ({name})").format(device=device, name=name)
            self._list(device, shown)

    def set_servers(self, servers: tuple[KnownServer, ...]) -> None:
        """List the user's servers."""
        self._servers = servers
        names = {f"server:{server.address}": server.name for server in servers}
        with silent(self._box):
            for index in reversed(range(self._box.count)):
                device = self._box.itemData(index)
                if device.startswith("server:") and device not in names:
                    self._box.removeItem(index)
            for device, name in names.items():
                self._list(device, device_text(device, name), tip(name))

    def render(self, device: str) -> None:
        """Show a device, also if this computer does not have it, because the scene may come from another computer."""
        with silent(self._box):
            if self._box.findData(device) < 0:
                self._list(device, device_text(device), tip(device.removeprefix("server:")))
            self._box.setCurrentIndex(self._box.findData(device))
        server, idle = self._state.server, self._state.run is None
        self._ui.retryButton.visible = server is not None and server.server is not None and bool(server.fault) and idle
        for widget in (self._ui.memoryLimitSpinBox, self._ui.threadsSpinBox):
            widget.enabled = server is None  # which decides that itself

    def _list(self, device: str, text: str, whole: str = "") -> None:
        index = self._box.findData(device)
        if index < 0:
            self._box.addItem(text, device)
        else:
            self._box.setItemText(index, text)
        if whole and len(whole) > _LENGTH:
            self._box.setItemData(self._box.findData(device), whole, qt.Qt.ToolTipRole)


def device_text(device: str, name: str = "") -> str:
    """Return what users see of a device that this computer may not have.

    :param name: of a server; by default its address.
    """
    address = device.removeprefix("server:")
    return device if address == device else _("Server: {name}").format(name=shortened(name or address, _LENGTH))


class FirstFocus(qt.QObject):
    """Event filter of a widget: does something once, when the widget first gets the focus or is pressed."""

    def __init__(self, widget: qt.QWidget, on_focus: Callable[[], None]) -> None:
        qt.QObject.__init__(self)
        self._widget, self._on_focus = widget, on_focus
        widget.installEventFilter(self)

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Handle the first such event; it goes on to the widget."""
        if event.type() in (qt.QEvent.FocusIn, qt.QEvent.MouseButtonPress):
            self._widget.removeEventFilter(self)
            self._on_focus()
        return False
