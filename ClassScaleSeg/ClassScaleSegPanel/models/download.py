"""Download a model: ask for the user's consent, then show a dialog with progress and a Cancel button."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from ..widgets.texts import ask, shortened, tell_error, tip

if TYPE_CHECKING:
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.catalog.entries import Entry


def download(catalog: Catalog, entry: Entry) -> bool:
    """Download a model if the user agrees, and return whether the user did. Errors are shown in a message box."""
    from ClassScaleSegLib.errors import Cancelled, ClassScaleError

    if not ask(consent(catalog, entry), _("Download model")):
        return False
    text = tip(_("Downloading {name}").format(name=shortened(entry.name, 60)))
    dialog = qt.QProgressDialog(text, _("Cancel"), 0, 1000)
    dialog.windowModality = qt.Qt.ApplicationModal
    dialog.minimumDuration = 0
    dialog.show()
    try:
        shown = _Shown(dialog)
        catalog.download(entry, progress=shown, cancel=shown)
    except Cancelled:
        pass  # the part that has arrived is kept, and the next download continues from it
    except ClassScaleError as error:
        tell_error(str(error), _("Download failed"))
    finally:
        dialog.close()
        dialog.deleteLater()
    return True


def consent(catalog: Catalog, entry: Entry) -> str:
    """Return the text that the user agrees to: addresses, size, licence, and where the files will be kept."""
    size = _("unknown size") if entry.download_size is None else megabytes(entry.download_size)
    lines = [
        _("{name} will be downloaded ({size}) from:").format(name=entry.name, size=size),
        *(address for part in entry.parts for address in part.addresses),
        "",
        _("Licence: {licence}").format(licence=entry.licence or _("not stated")),
    ]
    lines += [text for text in (entry.licence_address, entry.notice) if text]
    lines += [
        _("It will be kept in {folder} until you remove it.").format(folder=catalog.folder / entry.id),
        _("No information about your images is sent."),
    ]
    return "\n".join(lines)


class _Shown:
    """Shows the progress of a download, says whether it was cancelled, and keeps the application responsive."""

    def __init__(self, dialog: qt.QProgressDialog) -> None:
        self._dialog = dialog

    def __call__(self, done: int, total: int | None) -> None:
        self._dialog.maximum = 1000 if total else 0
        self._dialog.value = min(999, 1000 * done // total) if total else 0
        slicer.app.processEvents()

    def is_set(self) -> bool:
        slicer.app.processEvents()
        return bool(self._dialog.wasCanceled)


def megabytes(count: int) -> str:
    """Return a number of bytes as text in MB (10^6 bytes)."""
    return _("{size} MB").format(size=f"{count / 1e6:,.0f}" if count > 1e7 else f"{count / 1e6:.1f}")
