"""What a report says of volume nodes, whose files in the temporary folder are no names for people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OutputError
from ..process.job import ReportedAs
from .volume import modality_of

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


def check_report(folder: str | Path | None, all_frames: bool) -> None:
    """Check before anything is computed that a report can be written.

    :param folder: of the report; ``None``: there is none.
    :param all_frames: whether a sequence is to be segmented.
    :raises OutputError: if it cannot.
    """
    from ..report.report import Report

    if folder is not None:
        refuse_frames(all_frames)
        Report(folder).check()


def refuse_frames(all_frames: bool) -> None:
    """Refuse the report of a sequence.

    :raises OutputError: if ``all_frames``.
    """
    if all_frames:
        raise OutputError("A report is of single volumes, not of a sequence. Choose no folder for the report.")


def reported_as(volumes: Sequence[vtkMRMLScalarVolumeNode], name: str | None = None) -> ReportedAs:
    """Return what the report says of the case that these volumes are.

    Two cases are of one image if all voxels are the same, whatever the names of the nodes: these change, and the nodes
    of two scenes have the same ids. Region and transforms do not count.

    :param volumes: one per channel.
    :param name: of the case, if it is not that of the first volume.
    """
    import slicer

    checksum = hashlib.sha256()
    for volume in volumes:
        voxels = np.ascontiguousarray(slicer.util.arrayFromVolume(volume))
        checksum.update(f"{voxels.shape} {voxels.dtype.str}\n".encode())
        checksum.update(voxels.data)
    names = tuple(volume.GetName() or "" for volume in volumes)
    return ReportedAs(names[0] if name is None else name, names, checksum.hexdigest(), modality_of(volumes[0]))
