"""Load an RT Structure Set, the contours of a planning system, as a segmentation node on the grid of another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError, named
from ..images.comparison import onto_grid
from ..images.dicom.rtstruct_reader import read_structure_set
from ..images.segmentation import Segmentation
from ..images.structures_on_grid import structures_on_grid
from .dicom import frame_of_reference
from .results import put_beside, removed_on_failure
from .segmentation_node import fill_segmentation_node
from .segmentation_reader import open_structures
from .volume import grid

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def add_structure_set(
    like: vtkMRMLSegmentationNode, path: str | Path, tell: Callable[[str], object]
) -> vtkMRMLSegmentationNode:
    """Add a segmentation node of what a structure set encloses, on the grid of the volume of another segmentation.

    If that has no volume in the scene, on the grid of the segmentation. Contours are in the coordinates of the patient,
    so where the volume is under a transform, the new node is too.

    :param tell: called with each sentence on how contours were understood, and what of them was left out.
    :raises ImageError: if the file cannot be read, its contours do not lie in slices of the grid, or they are of
        another image; naming the file. The scene is not changed.
    """
    import slicer
    import vtk

    file, scene = Path(path), like.GetScene()
    volume = like.GetNodeReference(like.GetReferenceImageGeometryReferenceRole())
    if volume is not None and volume.GetImageData() is not None:
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        geometry = grid(slicer.util.arrayFromVTKMatrix(matrix), volume.GetImageData().GetDimensions())
        name = volume.GetName()
        frame, transform = frame_of_reference(volume), volume.GetTransformNodeID()
    else:
        geometry, name, frame, transform = open_structures(like).segmentation.geometry, like.GetName(), "", None
    found = read_structure_set(file)
    with named(file):
        frames = {structure.frame_of_reference for structure in found.structures if structure.contours} - {""}
        if not frame and len(frames) > 1:
            raise ImageError(
                f"It has structures of {len(frames)} frames of reference (FrameOfReferenceUID), and {name} was not "
                "loaded from Slicer's DICOM database, which would say which is its own. Load it from there."
            )
        layers, table, own, said = structures_on_grid(found, geometry, name, frame)
        result = Segmentation(layers[0], table, own, more_layers=layers[1:])
        place = onto_grid(own, geometry)  # contours may reach beyond the grid
        if not any((layer if place is None else place(layer)).any() for layer in layers):
            raise ImageError(f"Its contours enclose no voxel of {name}. Choose the structure set of this image.")
    with removed_on_failure(scene):
        title = scene.GenerateUniqueName(file.name.removesuffix(".dcm").removesuffix(".rtstruct"))
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", title)
        fill_segmentation_node(node, result, volume=volume if place is None else None)
        if volume is not None:
            node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume.GetID())
        node.SetAndObserveTransformNodeID(transform)
        put_beside(node, like)
    for sentence in (*found.notices, *said):
        tell(f"{file.name}: {sentence}")
    return node
