"""The fields that say what is searched for in an archive."""

from __future__ import annotations

from datetime import datetime

import qt
from ClassScaleSegLib.errors import ArchiveError
from slicer.i18n import tr as _

from ..widgets.forms import add_row
from ..widgets.texts import tip

_MODALITIES = ("", "CT", "MR", "PT", "NM", "US", "XA")  # others can be typed
_DAYS = ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y")  # how days are typed


class CriteriaFields:
    """Rows of a form: name and ID of the patient, days of the study, modality, description.

    :param form: gets the rows.
    """

    def __init__(self, form: qt.QFormLayout) -> None:
        self.name, self.patient, self.first, self.last, self.description = (qt.QLineEdit() for _field in range(5))
        self.modality = qt.QComboBox()
        self.modality.editable = True
        self.modality.addItems(list(_MODALITIES))
        self.name.toolTip = tip(_("Parts of the name, in the order of the name: first the family name."))
        self.patient.toolTip = tip(_("Letter by letter; * stands for any letters."))
        self.description.toolTip = tip(_("A part of the description of the study."))
        for field in (self.first, self.last):
            field.placeholderText = "2026-01-31"
        add_row(form, _("Patient's &name:"), self.name)
        add_row(form, _("Patient's &ID:"), self.patient)
        add_row(form, _("Study f&rom:"), self.first)
        add_row(form, _("Study un&til:"), self.last)
        add_row(form, _("&Modality:"), self.modality)
        add_row(form, _("&Description:"), self.description)

    @property
    def lines(self) -> tuple[qt.QLineEdit, ...]:
        """Those in which a text is typed."""
        return self.name, self.patient, self.first, self.last, self.description

    @property
    def fields(self) -> tuple[qt.QWidget, ...]:
        """All of them."""
        return (*self.lines, self.modality)

    def wanted(self) -> dict[str, str]:
        """Return what is searched for, as ``classscaleseg dicom find --criteria`` reads it.

        :raises ArchiveError: if a day is none.
        """
        first, last = _day(self.first.text), _day(self.last.text)
        if first and last and first > last:
            raise ArchiveError(_("The search ends before it begins. Enter the earlier day first."))
        texts = {
            "name": self.name.text,
            "patient": self.patient.text,
            "date": f"{first}-{last}" if first or last else "",
            "modality": self.modality.currentText,
            "description": self.description.text,
        }
        return {name: text.strip() for name, text in texts.items() if text.strip()}


def _day(text: str) -> str:
    """Return a day as DICOM writes it; empty if there is none.

    :raises ArchiveError: if it is none.
    """
    typed = text.strip()
    for form in _DAYS:
        try:
            return datetime.strptime(typed, form).strftime("%Y%m%d") if typed else ""
        except ValueError:
            continue
    raise ArchiveError(_("{text} is not a day. Write it as 2026-01-31, or leave it out.").format(text=typed[:40]))
