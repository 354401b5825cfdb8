"""The bar above Slicer's Segment Editor while it corrects a structure: which one, the lock, and the way back."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from ..state import silent
from ..widgets.texts import Wrapping, tip


class CorrectionBar:
    """The widgets above those of the Segment Editor.

    :ivar widget: contains them.
    :ivar lock_box: whether other structures are locked.
    :ivar back_button: takes the correction over.
    :ivar next_button: takes it over, and corrects the next structure.
    :ivar discard_button: discards it.
    :param layout: of the module Segment Editor.
    :param on_lock: called with whether the others are to be locked.
    """

    def __init__(
        self,
        layout: qt.QVBoxLayout,
        on_lock: Callable[[bool], None],
        on_back: Callable[[], None],
        on_next: Callable[[], None],
        on_discard: Callable[[], None],
    ) -> None:
        self.widget = qt.QGroupBox("ClassScaleSeg")  # who has put it there
        self._line = qt.QLabel()
        self._line.textFormat = qt.Qt.PlainText  # it shows names of nodes
        self._wrapping = Wrapping(self._line)
        self.lock_box = qt.QCheckBox(_("Lock other structures"))
        self.lock_box.toolTip = tip(
            _(
                "Painting stops at the borders of all other structures. If this is unticked, painting takes voxels "
                "away from them."
            )
        )
        self.lock_box.connect("toggled(bool)", on_lock)
        self.back_button, self.discard_button = qt.QPushButton(_("Take over and go back")), qt.QPushButton(_("Discard"))
        self.next_button = qt.QPushButton(_("Take over, correct the next"))
        self.next_button.toolTip = tip(
            _(
                "The structure becomes what you have painted, and is marked as checked, also if you have changed "
                "nothing. Then correct the next one that is not checked, those of which the model was least sure first."
            )
        )
        self.discard_button.toolTip = tip(_("Leave the structure as it was, and go back."))
        self.back_button.connect("clicked(bool)", lambda: on_back())
        self.next_button.connect("clicked(bool)", lambda: on_next())
        self.discard_button.connect("clicked(bool)", lambda: on_discard())
        buttons = qt.QHBoxLayout()
        buttons.addWidget(self.back_button, 1)
        buttons.addWidget(self.discard_button)
        inside = qt.QVBoxLayout(self.widget)
        inside.addWidget(self._line)
        inside.addWidget(self.lock_box)
        inside.addWidget(self.next_button)
        inside.addLayout(buttons)
        self.widget.visible = False
        self.widget.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Maximum)  # the editor gets the height
        layout.insertWidget(0, self.widget)

    @property
    def text(self) -> str:
        """The line."""
        return self._line.text

    def show(self, text: str, locked: bool) -> None:
        """Show a text, and whether other structures are locked."""
        self._line.text = text
        with silent(self.lock_box):
            self.lock_box.checked = locked
        self.widget.visible = True

    def hide(self) -> None:
        """Show nothing."""
        self.widget.visible = False

    def remove(self) -> None:
        """Leave the Segment Editor."""
        self.widget.setParent(None)
        self.widget.deleteLater()
