"""Make the surfaces of a few segments, out of hundreds that share one label map, for the 3D view.

Slicer makes surfaces of all segments or of none, and its joint smoothing gives surfaces without polygons (slicer-core
5.13). Here one surface net is made of the requested labels alone, in the box that encloses them. It is smoothed as one
mesh, so that structures that touch still touch afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..images.occupied import occupied_box
from .hiding import bring_back
from .volume import image_to_world

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode, vtkOrientedImageData
    from vtk import vtkPolyData

SURFACE, LABELMAP = "Closed surface", "Binary labelmap"
# the values that Slicer derives from its smoothing factor 0.5
_ITERATIONS, _PASS_BAND = 40, 0.01


def show_3d(node: vtkMRMLSegmentationNode, segment_ids: Sequence[str]) -> int:
    """Show the given segments of a segmentation node in 3D, and hide all others there.

    Segments that already have a surface keep it. Segments that are not shown get an empty surface, because Slicer
    expects the same representations in every segment; its button "Show 3D" then has nothing left to convert. A node
    that is hidden because differences are shown is shown again.

    :param segment_ids: ids of the segments to show; ids that the node does not have are ignored.
    :returns: how many surfaces were made.
    """
    import slicer
    import vtk

    segmentation, wanted = node.GetSegmentation(), set(segment_ids)
    segments = {i: segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()}
    surfaces = {i: segment.GetRepresentation(SURFACE) for i, segment in segments.items()}
    made = closed_surfaces(
        node, [i for i, surface in surfaces.items() if i in wanted and not (surface and surface.GetNumberOfPoints())]
    )
    display = node.GetDisplayNode()
    with slicer.util.NodeModify(node), slicer.util.NodeModify(display) if display else contextlib.nullcontext():
        for identifier, segment in segments.items():
            if identifier in made:
                segment.AddRepresentation(SURFACE, made[identifier])
            elif surfaces[identifier] is None:
                segment.AddRepresentation(SURFACE, vtk.vtkPolyData())
            if display:
                display.SetSegmentVisibility3D(identifier, identifier in wanted)
        if display:
            display.SetPreferredDisplayRepresentationName3D(SURFACE)
            display.SetPreferredDisplayRepresentationName2D(LABELMAP)
            display.SetVisibility3D(True)
    bring_back(node)
    segmentation.InvokeEvent(segmentation.ContainedRepresentationNamesModified)
    return len(made)


def has_surfaces(node: vtkMRMLSegmentationNode) -> bool:
    """Return whether the segments of a node have surfaces, be they empty."""
    return bool(node.GetSegmentation().ContainsRepresentation(SURFACE))


def hide_3d(node: vtkMRMLSegmentationNode) -> None:
    """Remove the surfaces of all segments, as Slicer's own button does, unless the segments consist of them."""
    import slicer

    segmentation = node.GetSegmentation()
    if segmentation.GetSourceRepresentationName() != SURFACE:
        with slicer.util.NodeModify(node):
            segmentation.RemoveRepresentation(SURFACE)


def take_surfaces(node: vtkMRMLSegmentationNode, segment_ids: Sequence[str]) -> dict[str, bool]:
    """Remove the surfaces of segments whose voxels are about to change, if the node has surfaces.

    Slicer would otherwise make new ones of all segments that share an image with them.

    :returns: for each of these segments whether its surface was more than an empty one, for :func:`give_surfaces`.
    """
    shown = {}
    for identifier in segment_ids if has_surfaces(node) else ():
        segment = node.GetSegmentation().GetSegment(identifier)
        surface = segment.GetRepresentation(SURFACE)
        shown[identifier] = surface is not None and surface.GetNumberOfPolys() > 0
        segment.RemoveRepresentation(SURFACE)
    return shown


def give_surfaces(node: vtkMRMLSegmentationNode, shown: Mapping[str, bool]) -> None:
    """Make new surfaces of segments that have none; empty ones where ``shown`` says so."""
    import vtk

    segmentation = node.GetSegmentation()
    made = closed_surfaces(node, [identifier for identifier, polygons in shown.items() if polygons])
    for identifier in shown:
        segmentation.GetSegment(identifier).AddRepresentation(SURFACE, made.get(identifier, vtk.vtkPolyData()))
    if shown:
        segmentation.InvokeEvent(segmentation.ContainedRepresentationNamesModified)


def closed_surfaces(node: vtkMRMLSegmentationNode, segment_ids: Sequence[str]) -> dict[str, vtkPolyData]:
    """Return the closed surface of each segment, by id, in the coordinates of the node; normals point outwards.

    A segment without voxels has an empty surface. Segments without a label map are left out.
    """
    import slicer

    images: dict[vtkOrientedImageData, dict[str, int]] = {}
    for identifier in segment_ids:
        segment = node.GetSegmentation().GetSegment(identifier)
        image = segment.GetRepresentation(LABELMAP)
        if image is not None:
            images.setdefault(image, {})[identifier] = segment.GetLabelValue()
    surfaces: dict[str, vtkPolyData] = {}
    for image, values in images.items():
        labels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, next(iter(values)))
        surfaces |= _of_image(image, labels, values)
    return surfaces


def _of_image(image: vtkOrientedImageData, labels: np.ndarray, values: dict[str, int]) -> dict[str, vtkPolyData]:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    order = {value: index for index, value in enumerate(sorted(set(values.values())), start=1)}
    net = _net(labels, image.GetExtent()[::2], list(order))
    if net is None:
        return {identifier: vtk.vtkPolyData() for identifier in values}
    sides = vtk_to_numpy(net.GetCellData().GetArray("BoundaryLabels"))
    corners = vtk_to_numpy(net.GetPolys().GetConnectivityArray()).reshape(len(sides), -1)
    points = vtk_to_numpy(net.GetPoints().GetData())
    matrix = image_to_world(image)
    points = points @ matrix[:3, :3].T.astype(points.dtype) + matrix[:3, 3].astype(points.dtype)
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirror turns every face inside out
        corners = corners[:, ::-1]
    faces = _faces(corners, sides)
    return {identifier: _surface(points, faces(order[value])) for identifier, value in values.items()}


def _faces(corners: np.ndarray, sides: np.ndarray) -> Callable[[int], np.ndarray]:
    """Return a function that gives the faces of a label, ``(n, 3)``: those that have it behind are turned outwards.

    :param corners: ``(faces, 3)`` indices of points.
    :param sides: ``(faces, 2)`` labels in front of and behind each face.
    """
    orders = [np.argsort(sides[:, side], kind="stable") for side in (0, 1)]
    sorted_labels = [sides[order, side] for side, order in enumerate(orders)]

    def of(label: int) -> np.ndarray:
        near, far = (
            corners[order[slice(*np.searchsorted(labels, (label, label + 1)))]]
            for order, labels in zip(orders, sorted_labels, strict=True)
        )
        return np.concatenate([near, far[:, ::-1]])

    return of


def _net(labels: np.ndarray, first: Sequence[int], values: list[int]) -> vtkPolyData | None:
    """Return the smoothed net of some label values in voxel coordinates; ``None`` if no voxel has any of them.

    They are numbered 1, 2, ... in it, in the order of ``values``. ``first`` is the index x, y, z of the first voxel.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    lookup = np.zeros(max(int(labels.max(initial=0)), max(values)) + 1, np.uint8 if len(values) < 256 else np.uint16)
    lookup[values] = np.arange(1, len(values) + 1)
    chosen = lookup[labels]
    box = occupied_box(chosen)
    if not box:
        return None
    padded = np.pad(chosen[tuple(box)], 1)  # otherwise surfaces would stay open at the border of the box
    grid = vtk.vtkImageData()
    grid.SetDimensions(*padded.shape[::-1])
    grid.SetOrigin(*(float(start + part.start - 1) for start, part in zip(first, reversed(box), strict=True)))
    scalars = numpy_to_vtk(padded.ravel(), deep=False)  # must live as long as the filters read its memory
    grid.GetPointData().SetScalars(scalars)
    nets = vtk.vtkSurfaceNets3D()
    nets.SetInputData(grid)
    nets.SmoothingOff()
    nets.SetOutputMeshTypeToTriangles()
    for index in range(len(values)):
        nets.SetValue(index, index + 1)
    smoother = vtk.vtkWindowedSincPolyDataFilter()
    smoother.SetInputConnection(nets.GetOutputPort())
    smoother.SetNumberOfIterations(_ITERATIONS)
    smoother.SetPassBand(_PASS_BAND)
    smoother.BoundarySmoothingOff()
    smoother.FeatureEdgeSmoothingOff()
    smoother.NonManifoldSmoothingOn()  # edges where three structures meet
    smoother.NormalizeCoordinatesOn()
    smoother.Update()
    return smoother.GetOutput()


def _surface(points: np.ndarray, faces: np.ndarray) -> vtkPolyData:
    """Return a surface with normals, of the triangles ``faces`` ``(n, 3)`` of ``points`` ``(N, 3)`` in mm."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    used, flat = np.unique(faces, return_inverse=True)
    vtk_points = vtk.vtkPoints()
    vtk_points.SetData(numpy_to_vtk(np.ascontiguousarray(points[used], np.float32), deep=True))
    cells = vtk.vtkCellArray()
    offsets = numpy_to_vtk(np.arange(0, faces.size + 1, 3, dtype=np.int64), deep=True, array_type=vtk.VTK_ID_TYPE)
    connectivity = numpy_to_vtk(flat.reshape(-1).astype(np.int64), deep=True, array_type=vtk.VTK_ID_TYPE)
    cells.SetData(offsets, connectivity)
    surface = vtk.vtkPolyData()
    surface.SetPoints(vtk_points)
    surface.SetPolys(cells)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(surface)
    normals.SplittingOff()
    normals.ConsistencyOff()
    normals.Update()
    return normals.GetOutput()
