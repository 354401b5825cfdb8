"""What a report says of volume nodes, whose files in the temporary folder are no names for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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


def reported_as(
    volumes: Sequence[vtkMRMLScalarVolumeNode], name: str | None = None, in_part: bool = False
) -> ReportedAs:
    """Return what the report says of the case that these volumes are.

    Two cases are of one image if all voxels are the same, whatever the names of the nodes: these change, and the nodes
    of two scenes have the same ids. Region and transforms do not count. The child process compares the voxels of its
    files, because 1 GB takes a second or two, for which Slicer would stand still.

    :param volumes: one per channel.
    :param name: of the case, if it is not that of the first volume.
    :param in_part: the files have the voxels of a region alone, so that all are compared here.
    """
    import slicer

    from ..report.case_files import origin_of_voxels

    origin = origin_of_voxels(map(slicer.util.arrayFromVolume, volumes)) if in_part else None
    names = tuple(volume.GetName() or "" for volume in volumes)
    return ReportedAs(names[0] if name is None else name, names, origin, modality_of(volumes[0]))
