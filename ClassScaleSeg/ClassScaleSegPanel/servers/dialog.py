"""The dialog "Servers": add, test and remove servers, whose tokens the system's keyring keeps where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from ..widgets.forms import add_row, browse_button, dialog_button
from ..widgets.texts import ask, shortened, tell, tell_error
from ..widgets.whole_texts import WholeTexts
from .consent import agree_to_token, withdraw
from .texts import panel_words, server_summary
from .watch import ASKING_MILLISECONDS, Asking

if TYPE_CHECKING:
    from ClassScaleSegLib.remote.servers import KnownServer, Servers


class ServerDialog:
    """Opened by a button; not modal, so that the panel stays usable.

    :ivar dialog: the window, or ``None`` while it is closed.
    :param button: opens the dialog.
    :param servers: the user's servers.
    :param on_changed: called with all servers when the list was read, and has perhaps changed.
    """

    def __init__(
        self, button: qt.QPushButton, servers: Servers, on_changed: Callable[[tuple[KnownServer, ...]], None]
    ) -> None:
        self._servers, self._on_changed = servers, on_changed
        self._listed: tuple[KnownServer, ...] = ()
        self._asking: Asking | None = None
        self._told = ""  # why the list cannot be read, which is told once
        self.dialog: qt.QDialog | None = None
        self._whole_texts = WholeTexts()
        self._timer = qt.QTimer()
        self._timer.setInterval(ASKING_MILLISECONDS)
        self._timer.connect("timeout()", self._look)
        button.connect("clicked(bool)", lambda: self.open())

    def read(self) -> None:
        """Read the list of servers again, which the command may have changed."""
        before, selected, fault = self._listed, self._selected if self.dialog is not None else None, ""
        try:
            self._listed = self._servers.all
        except ClassScaleError as error:
            self._listed, fault = (), str(error)
        if self.dialog is not None and self._listed != before:  # its rows must be those of the list
            self._show(selected.name if selected is not None else "")
        if fault and fault != self._told:
            tell_error(fault, _("Servers"))
        self._told = fault
        self._on_changed(self._listed)

    def open(self) -> None:
        """Show the dialog."""
        self.close()
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Servers")
        layout, form = qt.QVBoxLayout(self.dialog), qt.QFormLayout()
        intro = qt.QLabel(_("Servers of ClassScaleSeg segment for computers without a GPU. Images are sent there."))
        intro.wordWrap = True
        self.list, self.result = qt.QListWidget(), qt.QLabel()
        self.list.accessibleName = _("Servers")
        self.list.connect("currentRowChanged(int)", lambda row: self._select(row))
        self.name, self.address, self.token, self.ca = (qt.QLineEdit() for _field in range(4))
        self.address.placeholderText = "https://lab-gpu:8471"
        self.token.setEchoMode(qt.QLineEdit.Password)
        self.ca.placeholderText = _("if this computer does not trust it")
        browse = browse_button(_("Choose the certificate file"), self._browse)
        add_row(form, _("&Name:"), self.name)
        add_row(form, _("&Address:"), self.address)
        add_row(form, _("&Token:"), self.token)
        add_row(form, _("Certi&ficate:"), self.ca, browse)
        self.add_button = dialog_button(_("Add"), self.add)
        self.test_button = dialog_button(_("Test"), self.test)
        self.remove_button = dialog_button(_("Remove"), self.remove)
        buttons = qt.QHBoxLayout()
        for button in (self.add_button, self.test_button, self.remove_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addWidget(dialog_button(_("Close"), self.close))
        self.result.wordWrap, self.result.textFormat = True, qt.Qt.PlainText
        self.result.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        for widget in (intro, self.list):
            layout.addWidget(widget)
        layout.addLayout(form)
        layout.addLayout(buttons)
        layout.addWidget(self.result)
        self._whole_texts.watch(self.dialog)
        self.read()
        self._show()
        self.dialog.resize(460, 420)
        self.dialog.show()

    def close(self) -> None:
        """Close the dialog if it is open."""
        self._stop()
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None

    def add(self) -> None:
        """Add the server of the fields, or change that of the same name."""
        name, address, token, ca = (field.text.strip() for field in (self.name, self.address, self.token, self.ca))
        try:
            kept = self._servers.add(name, address, token or None, ca or None)
        except ClassScaleError as error:
            tell_error(panel_words(str(error)), _("This server cannot be added"))
            return
        self.token.text = ""
        self.read()
        self._show(name)
        if kept is not None:
            self.result.text = panel_words(kept)

    def remove(self) -> None:
        """Remove the selected server and its token, after asking."""
        server = self._selected
        question = _("Remove {name} from the list, and its token?")
        if server is None or not ask(question.format(name=server.name), _("Remove server")):
            return
        try:
            self._servers.remove(server.name)
        except ClassScaleError as error:
            tell_error(panel_words(str(error)), _("Servers"))
        withdraw(server.address)
        self.read()
        self._show()

    def test(self) -> None:
        """Ask the selected server what it is, and show that."""
        server = self._selected
        if server is None:
            tell(_("Select a server of the list."), _("Servers"))
            return
        self._stop()
        self.result.text = _("Asking {server}...").format(server=shortened(server.name, 40))
        self._asking = Asking(self._servers, server)
        self._timer.start()

    def _look(self) -> None:
        found = self._asking.answer() if self._asking is not None else None
        if found is not None:
            self._stop()
            self.result.text = server_summary(found)
            if found.unasked and agree_to_token(found):
                self.test()

    def _stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = None
        self._timer.stop()

    @property
    def _selected(self) -> KnownServer | None:
        row = self.list.currentRow
        return self._listed[row] if 0 <= row < len(self._listed) else None

    def _show(self, name: str = "") -> None:
        """List the servers, and select the one of a name."""
        self._stop()
        self.list.clear()
        self.list.addItems([f"{server.name}: {server.address}" for server in self._listed])
        names = [server.name.casefold() for server in self._listed]
        self.list.setCurrentRow(names.index(name.casefold()) if name.casefold() in names else -1)
        self._select(self.list.currentRow)

    def _select(self, row: int) -> None:
        server = self._selected
        self.test_button.enabled = self.remove_button.enabled = server is not None
        self.result.text = ""
        if server is not None:
            self.name.text, self.address.text, self.ca.text = server.name, server.address, server.ca or ""
        self.token.text = ""
        self.token.placeholderText = _("if the server asks for one") if server is None else _("as before")

    def _browse(self) -> None:
        chosen = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Certificate file"), "", "")
        if chosen:
            self.ca.text = chosen
