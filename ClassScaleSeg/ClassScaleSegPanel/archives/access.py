"""The fields that say which archive is meant, and who asks it. All dialogs with archives have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ArchiveError, ClassScaleError
from slicer.i18n import tr as _

from ..state import silent
from ..widgets.forms import add_row, browse_button, dialog_button
from ..widgets.texts import ask, tell_error, tip
from .known import (
    KnownArchive,
    forget,
    forget_secret,
    keep_secret,
    known_archives,
    may_be_asked,
    remember,
    same_address,
    secret_of,
)

if TYPE_CHECKING:
    from ClassScaleSegLib.process import Access


class AccessFields:
    """Rows of a form: address, user, password or token, certificate.

    :param form: gets the rows.
    """

    def __init__(self, form: qt.QFormLayout) -> None:
        self._known: list[KnownArchive] = []
        self._used: tuple[KnownArchive, str] | None = None
        self._on = True  # the fields can be changed
        self.address, self.keep = qt.QComboBox(), qt.QCheckBox()
        self.user, self.secret, self.certificate = (qt.QLineEdit() for _field in range(3))
        self.address.editable = True
        self.address.setInsertPolicy(qt.QComboBox.NoInsert)
        self.address.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        self.address.minimumContentsLength = 24
        self.address.lineEdit().placeholderText = "https://pacs.example.org/dicom-web"
        self.address.toolTip = tip(_("The root of the archive's DICOMweb service. Its administrator knows it."))
        self.user.placeholderText = _("empty with a token")
        self.secret.setEchoMode(qt.QLineEdit.Password)
        self.keep.text = _("Keep it on this computer")
        self.keep.toolTip = tip(
            _("In the keyring of the system; without one, in a file that only you can read. Not in the scene.")
        )
        self.certificate.placeholderText = _("if this computer does not trust it")
        self.forget_button = dialog_button(_("Forget"), self._forget)
        self.forget_button.toolTip = tip(_("Forget this address and its password or token."))
        self._browse = browse_button(_("Choose the certificate file"), self._choose_certificate)
        add_row(form, _("&Address:"), self.address, self.forget_button)
        add_row(form, _("&User:"), self.user)
        add_row(form, _("Pass&word or token:"), self.secret)
        form.addRow(qt.QLabel(), self.keep)
        add_row(form, _("Certi&ficate:"), self.certificate, self._browse)
        self.address.connect("editTextChanged(QString)", lambda text: self._follow())
        self.user.connect("textChanged(QString)", lambda text: self._show_secret())
        self._list()
        self._follow()

    def archive(self) -> KnownArchive:
        """Return what the fields say."""
        certificate = self.certificate.text.strip()
        return KnownArchive(same_address(self.address.currentText), self.user.text.strip(), certificate)

    def show(self, archive: KnownArchive) -> None:
        """Show an archive, whether it is remembered or not."""
        self.address.setEditText(archive.address)
        with silent(self.user):
            self.user.text, self.certificate.text = archive.user, archive.certificate
        self._show_secret()

    def access(self) -> Access | None:
        """Return how the archive is asked; ``None`` if the user does not want that.

        :raises ClassScaleError: if the address is missing, or the secret that is kept cannot be read.
        """
        from ClassScaleSegLib.process import Access

        archive = self.archive()
        if not archive.address:
            raise ArchiveError(_("Enter the address of the archive."))
        if "@" in archive.address:  # other programs could see it
            raise ArchiveError(_("Enter user and password in their own fields, not in the address."))
        if not may_be_asked(archive):
            return None
        secret = self.secret.text or (secret_of(archive) if self._is_known(archive) else "")
        self._used = archive, secret
        # whether others may read it, the user was asked before
        return Access(archive.address, archive.user, secret, archive.certificate, insecure=True)

    def remember(self) -> str:
        """Remember the archive that was asked, as it has answered, and return why its secret cannot be kept, if so."""
        if self._used is None:
            return ""
        archive, secret = self._used
        was_known, fault = self._is_known(archive), ""
        try:
            if self.keep.checked and secret:
                keep_secret(archive, secret)
            elif was_known and not self.keep.checked:
                forget_secret(archive)
        except ClassScaleError as error:
            fault = str(error)
        remember(archive)
        self._list(self.address.currentText)
        if self.keep.checked and not fault and self.archive() == archive:
            self.secret.text = ""
            self.secret.placeholderText = _kept(True)
        return fault

    def enable(self, on: bool) -> None:
        """Let the fields be changed or not."""
        fields: tuple[Any, ...] = (self.address, self.user, self.secret, self.keep, self.certificate)
        for widget in (*fields, self._browse):
            widget.enabled = on
        self._on = on
        self._allow_forgetting()

    def _is_known(self, archive: KnownArchive) -> bool:
        """Return whether this user has asked this archive before; of others no keyring is asked for a secret."""
        return any((archive.address, archive.user) == (each.address, each.user) for each in self._known)

    def _list(self, typed: str | None = None) -> None:
        """List the archives that are remembered.

        :param typed: stays the address; ``None``: the last archive is shown.
        """
        self._known = known_archives()
        with silent(self.address):
            self.address.clear()
            self.address.addItems([archive.address for archive in self._known])
            if typed is not None:
                self.address.setEditText(typed)
        self._allow_forgetting()

    def _follow(self) -> None:
        """Show who has asked this address before, if it is one that is remembered."""
        address = same_address(self.address.currentText)
        with silent(self.user):
            for archive in self._known:
                if archive.address == address:
                    self.user.text, self.certificate.text = archive.user, archive.certificate
        self._show_secret()
        self._allow_forgetting()

    def _show_secret(self) -> None:
        """Say whether a secret is kept for this user and address, without showing it; one of another is removed."""
        archive = self.archive()
        try:
            kept = self._is_known(archive) and bool(secret_of(archive))
        except ClassScaleError:
            kept = False  # told when it is needed
        self.secret.text, self.secret.placeholderText = "", _kept(kept)
        self.keep.checked = kept

    def _allow_forgetting(self) -> None:
        address = same_address(self.address.currentText)
        self.forget_button.enabled = self._on and any(address == archive.address for archive in self._known)

    def _forget(self) -> None:
        address = same_address(self.address.currentText)
        question = _("Forget {address}, and its password or token?")
        if not ask(question.format(address=address), _("Forget archive")):
            return
        try:
            forget(address)
        except ClassScaleError as error:
            tell_error(str(error), _("Forget archive"))
        for field in (self.user, self.certificate):
            field.text = ""
        self._list()
        self._follow()

    def _choose_certificate(self) -> None:
        chosen = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Certificate file"), "", "")
        if chosen:
            self.certificate.text = chosen


def _kept(kept: bool) -> str:
    """Return what the empty field of the password says."""
    return _("as before") if kept else _("if the archive asks for one")
