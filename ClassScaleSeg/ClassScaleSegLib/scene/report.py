"""What a report says of volume nodes, whose files in the temporary folder are no names for people."""

from __future__ import annotations

import threading
import uuid
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


def reported_as(volumes: Sequence[vtkMRMLScalarVolumeNode], name: str | None = None) -> ReportedAs:
    """Return what the report says of the case that these volumes are.

    Two cases are of one image if all voxels are the same, whatever the names of the nodes: these change, and the nodes
    of two scenes have the same ids. Region and transforms do not count. The child process compares the voxels of its
    files; if these have the voxels of a region alone, :class:`OriginOfVolumes` finds the origin.

    :param volumes: one per channel.
    :param name: of the case, if it is not that of the first volume.
    """
    names = tuple(volume.GetName() or "" for volume in volumes)
    return ReportedAs(names[0] if name is None else name, names, None, modality_of(volumes[0]))


class OriginOfVolumes:
    """By what the image is known, computed in a thread: 1 GB takes a second or two, for which Slicer would stand still.

    :param volumes: one per channel. If their voxels are changed meanwhile, the image is one that nobody knows.
    """

    def __init__(self, volumes: Sequence[vtkMRMLScalarVolumeNode]) -> None:
        import slicer

        from ..report.case_files import origin_of_voxels

        voxels = [slicer.util.arrayFromVolume(volume) for volume in volumes]
        self._found = uuid.uuid4().hex  # unless it is computed, the case is one of its own

        def compute() -> None:
            self._found = origin_of_voxels(voxels)

        self._thread = threading.Thread(target=compute, daemon=True)
        self._thread.start()

    def get(self, seconds: float | None = 0.001) -> str | None:
        """Return the origin, or ``None`` if it is not known yet.

        :param seconds: to wait for; ``None``: for as long as it takes. In Slicer the thread ends only while something
            waits for it: the event loop keeps the interpreter.
        """
        self._thread.join(seconds)
        return None if self._thread.is_alive() else self._found
