"""The dialog with the card of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from ..widgets.texts import open_link, safe_markdown, tell

if TYPE_CHECKING:
    from ..state import PanelModel


class ModelCard:
    """The card of one model at a time: training data, licences, accuracy, and known failures.

    :ivar dialog: ``None`` if it is closed.
    """

    def __init__(self) -> None:
        self.dialog: qt.QDialog | None = None

    def show(self, model: PanelModel | None) -> None:
        """Show the card of a model, or say that it has none."""
        cards = [summary.card for summary in model.summaries if summary.card] if model is not None else []
        if not cards:
            tell(_("This model has no model card, or it is not downloaded yet."), _("Model card"))
            return
        self.close()
        self.dialog = dialog = qt.QDialog(slicer.util.mainWindow())  # not modal, so that the panel stays usable
        dialog.windowTitle = _("Model card")
        browser = qt.QTextBrowser()
        browser.openLinks = False
        browser.connect("anchorClicked(QUrl)", open_link)
        browser.setMarkdown(safe_markdown("\n\n".join(cards)))
        qt.QVBoxLayout(dialog).addWidget(browser)
        dialog.resize(760, 640)
        dialog.show()

    def close(self) -> None:
        """Close the card if it is open."""
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None
