"""What a segmentation node and the header of its file tell each other: who found its structures, who looked at them.

Beside the functions for that, the node has the attributes of :mod:`.corrected` and :mod:`.dicom`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..images.case_notes import CaseNotes
from ..images.dicom.object import UsedModel
from .checked import checked_structures
from .corrected import corrected_structures, remember_corrected
from .dicom import remember_origin, unedited_result_of

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

    from ..images.counts import LabelVolume


def notes_of(
    node: vtkMRMLSegmentationNode, statistics: Iterable[LabelVolume], readers: tuple[str, ...] = ()
) -> CaseNotes:
    """Return what the file of a segmentation node notes.

    :param statistics: of what the node holds.
    :param readers: who has saved the file, as far as they gave a name.
    """
    corrected = corrected_structures(node)
    looked_at = corrected or checked_structures(node)
    models = () if looked_at else unedited_result_of(node, statistics)
    return CaseNotes(corrected, tuple(model.name for model in models), readers)


def remember_notes(node: vtkMRMLSegmentationNode, notes: CaseNotes, statistics: Iterable[LabelVolume]) -> None:
    """Let a segmentation node, filled from a file, know what is noted there.

    :param statistics: of what the file holds.
    """
    if notes.unchecked:
        remember_origin(node, [UsedModel(name) for name in notes.unchecked], statistics)
    remember_corrected(node, notes.corrected)
