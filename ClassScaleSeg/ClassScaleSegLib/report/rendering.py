"""Render all structures in 3D: by VTK in a process of its own, or where that fails, from the front without VTK.

VTK ends the process if a graphics driver is at fault, so it must not run in that of the segmentation.
"""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import reason
from ..images.geometry import Turn

_SIDE = 400  # pixels
_MOST = 160  # voxels along the longest side of what is rendered
_SECONDS = 60
_ROOT = Path(__file__).resolve().parents[2]  # where this package is
_LIGHT = np.array([-0.35, -0.8, 0.5]) / np.linalg.norm([-0.35, -0.8, 0.5])  # from the viewer's upper left; x, y, z
_failed: list[str] = []  # why VTK cannot be used; then it is not tried again


def render(labels: np.ndarray, spacing: Sequence[float], colors: np.ndarray) -> tuple[np.ndarray, str]:
    """Return a picture of all structures, seen from the front, and how it was made if not by VTK.

    :param labels: uint16 ``(z, y, x)``, whose axes point to superior, posterior and left.
    :param spacing: mm along z, y, x.
    :param colors: ``(65536, 3)`` uint8, of each label value.
    :returns: ``(height, width, 3)`` uint8, and a text such as " (without VTK)".
    """
    small, lengths = _reduced(labels, spacing)
    if not small.any():
        return np.zeros((_SIDE, _SIDE, 3), np.uint8), " (there are none)"
    if importlib.util.find_spec("vtkmodules") is None:
        return projection(small, lengths, colors), " (VTK is not installed: a simple view)"
    if not _failed:
        picture = _by_vtk(small, lengths, colors)
        if picture is not None:
            return picture, ""
    return projection(small, lengths, colors), f" (VTK {_failed[0]}: a simple view)"


def _reduced(labels: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, list[float]]:
    """Return the box around the structures, in blocks of voxels so that it has at most ``_MOST`` along each axis.

    A block has the first structure in it. One that is the first in none gets a block nevertheless.
    """
    found = labels > 0
    box = []
    for axis in range(3):
        where = np.flatnonzero(np.any(found, tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 1))
    inside = labels[tuple(box)]
    longest = max(count * length for count, length in zip(inside.shape, spacing, strict=True))
    steps = [max(1, round(longest / _MOST / length)) for length in spacing]
    reduced = np.zeros([-(-count // step) for count, step in zip(inside.shape, steps, strict=True)], np.uint16)
    for starts in np.ndindex(*steps):
        part = inside[tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))]
        places = reduced[tuple(map(slice, part.shape))]
        np.copyto(places, part, where=places == 0)
    lost = np.zeros(65536, bool)
    for plane in Turn.as_stored(inside).apply(inside):
        lost[plane] = True
    for plane in reduced:
        lost[plane] = False
    lost[0] = False
    for z, plane in enumerate(inside if lost.any() else ()):
        y, x = np.nonzero(lost[plane])
        reduced[z // steps[0], y // steps[1], x // steps[2]] = plane[y, x]
    return reduced, [length * step for length, step in zip(spacing, steps, strict=True)]


def projection(labels: np.ndarray, spacing: Sequence[float], colors: np.ndarray) -> np.ndarray:
    """Return the first structure behind each point, lit by the slope of its surface; black where there is none.

    :param labels: as of :func:`render`, like the other parameters.
    """
    extents = [labels.shape[axis] * spacing[axis] for axis in (0, 2)]
    height, width = (max(1, round(_SIDE * extent / max(extents))) for extent in extents)
    rows = (np.arange(height)[::-1] * labels.shape[0]) // height
    columns = (np.arange(width) * labels.shape[2]) // width
    found = labels > 0
    first, hit = found.argmax(1), np.any(found, 1)
    depth = np.where(hit, first, labels.shape[1]) * spacing[1]
    shown = np.take_along_axis(labels, first[:, None], 1)[:, 0]
    up, left = (_slope(depth, axis, step) for axis, step in ((0, spacing[0]), (1, spacing[2])))
    normals = np.stack([left, -np.ones(depth.shape), up], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    light = 0.35 + 0.65 * np.clip(normals @ _LIGHT, 0, 1)
    picture = np.where(hit[..., None], colors[shown] * light[..., None], 0).astype(np.uint8)
    return picture[np.ix_(rows, columns)]


def _slope(depth: np.ndarray, axis: int, step: float) -> np.ndarray:
    return np.gradient(depth, step, axis=axis) if depth.shape[axis] > 1 else np.zeros(depth.shape)


def _by_vtk(labels: np.ndarray, spacing: Sequence[float], colors: np.ndarray) -> np.ndarray | None:
    """Return VTK's picture, which another process makes; ``None``, with the reason in ``_failed``, if it cannot."""
    values = np.unique(labels[labels > 0])
    ranks = np.searchsorted(values, labels).astype(np.uint16) + (labels > 0).astype(np.uint16)
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no console window on Windows
    given = io.BytesIO()  # not a file, which would be left if this process is killed meanwhile
    np.savez(given, labels=ranks, spacing=np.asarray(spacing), colors=colors[values])
    try:
        done = subprocess.run(
            [sys.executable or "python", "-m", __name__],
            input=given.getvalue(),
            capture_output=True,
            timeout=_SECONDS,
            creationflags=hidden,
            # Python looks for modules in the current folder first: not in one with images, and whatever else is there
            cwd=_ROOT,
            env=_path(),
        )
        if done.returncode == 0:
            return np.load(io.BytesIO(done.stdout))
        _failed.append("cannot draw here")
    except subprocess.TimeoutExpired:
        _failed.append(f"took more than {_SECONDS} s")
    except (OSError, ValueError) as error:  # no such program, a full disk
        _failed.append(f"could not be used ({getattr(error, 'strerror', None) or reason(error)})")
    return None


def _path() -> dict[str, str]:
    """Return an environment in which another process finds this package and VTK, but nothing in the current folder."""
    here = os.path.realpath(os.curdir)
    folders = [os.path.abspath(folder) for folder in sys.path if os.path.realpath(folder) != here]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *folders])}


def draw(given: BinaryIO, made: BinaryIO) -> None:
    """Render what :func:`render` has sent, and send the picture: what the other process does."""
    import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  registers the renderer
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkLookupTable, vtkObject
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkPolyDataNormals, vtkSurfaceNets3D
    from vtkmodules.vtkRenderingCore import (
        vtkActor,
        vtkPolyDataMapper,
        vtkRenderer,
        vtkRenderWindow,
        vtkWindowToImageFilter,
    )

    vtkObject.GlobalWarningDisplayOff()
    with np.load(io.BytesIO(given.read())) as saved:
        labels, spacing, colors = np.pad(saved["labels"], 1), saved["spacing"], saved["colors"]
    image = vtkImageData()
    image.SetDimensions(*labels.shape[::-1])
    image.SetSpacing(*spacing[::-1].tolist())
    image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel(), deep=True))
    net = vtkSurfaceNets3D()
    net.SetInputData(image)
    net.GenerateLabels(len(colors), 1, len(colors))
    net.SetOutputMeshTypeToTriangles()
    net.SmoothingOn()
    net.SetNumberOfIterations(12)
    net.Update()
    surface = net.GetOutput()
    sides = vtk_to_numpy(surface.GetCellData().GetArray("BoundaryLabels"))
    # a face between two structures is inside; of one between a structure and the outside, that structure's colour
    seen = sides.max(1).astype(np.int64) - 1
    paint = numpy_to_vtk(np.ascontiguousarray(colors[seen.clip(0, len(colors) - 1)]), deep=True)
    paint.SetName("paint")
    surface.GetCellData().SetScalars(paint)
    normals = vtkPolyDataNormals()
    normals.SetInputData(surface)
    normals.SplittingOff()
    normals.ConsistencyOff()
    mapper, actor = vtkPolyDataMapper(), vtkActor()
    mapper.SetInputConnection(normals.GetOutputPort())
    mapper.SetLookupTable(vtkLookupTable())
    mapper.SetScalarModeToUseCellData()
    actor.SetMapper(mapper)
    look = actor.GetProperty()
    look.SetAmbient(0.15)
    look.SetDiffuse(0.85)
    look.SetSpecular(0.12)
    look.SetSpecularPower(20)
    renderer, window = vtkRenderer(), vtkRenderWindow()
    renderer.AddActor(actor)
    renderer.SetBackground(0, 0, 0)
    renderer.TwoSidedLightingOn()
    camera = renderer.GetActiveCamera()
    centre = np.array(actor.GetCenter())
    # from the front, a little from the patient's left and from above; left is on the right of the picture
    camera.SetFocalPoint(*centre)
    camera.SetPosition(*(centre + np.array([0.35, -1.0, 0.25])))
    camera.SetViewUp(0, 0, 1)
    camera.SetViewAngle(20)
    renderer.ResetCamera()
    camera.Zoom(1.3)
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(8)
    window.SetSize(_SIDE, _SIDE)
    window.AddRenderer(renderer)
    window.Render()
    grab = vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(_SIDE, _SIDE, -1)
    written = io.BytesIO()
    np.save(written, pixels[::-1, :, :3])  # which cannot write into a pipe
    made.write(written.getvalue())


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as picture:
        os.dup2(2, 1)  # what a graphics driver prints is no part of the picture
        draw(sys.stdin.buffer, picture)
