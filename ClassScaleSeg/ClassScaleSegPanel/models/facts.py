"""The line below the list of models."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from ..state import PanelModel


def facts_of(model: PanelModel) -> str:
    """Return what is known of a model, as rich text: classes, modality, voxel size, licence, notice."""
    entry, summary = model.entry, model.summaries[0] if model.summaries else None
    if entry is None:
        return ""
    names = {label.name for each in model.summaries for label in each.table.foreground}
    count = len(names) or entry.classes
    facts = [_("{count} classes").format(count=count)] if count else []
    modality = entry.modality or (summary.modality if summary else None)
    facts += [modality] if modality else []
    if summary is not None:
        sides = summary.spacing[:1] if len(set(summary.spacing)) == 1 else reversed(summary.spacing)
        facts.append(_("{spacing} mm").format(spacing=" x ".join(f"{side:.3g}" for side in sides)))
    licence = escape(entry.licence or (summary.licence if summary else None) or _("not stated"))
    if entry.licence_address:
        licence = f'<a href="{escape(entry.licence_address)}">{licence}</a>'
    facts = [*(escape(fact) for fact in facts), _("licence {licence}").format(licence=licence)]
    notice = entry.notice or (summary.notice if summary else None)
    return ", ".join(facts) + "." + (f"<br><b>{escape(notice)}</b>" if notice else "")
