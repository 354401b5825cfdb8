"""Load an image of the file system into the scene: a file as Slicer itself does, a DICOM folder as the command does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError
from ..images.reading import read_image, refuse_missing
from ..images.seg_nrrd import index_to_ras
from .dicom import remember_folder

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene

_VOLUME = "vtkMRMLScalarVolumeNode"


def load_image(scene: vtkMRMLScene, path: Path, name: str) -> vtkMRMLScalarVolumeNode:
    """Return the volume of an image file, or of the only DICOM series in a folder, as a new node.

    :param name: of the node.
    :raises ImageError: if it is missing or cannot be read as one volume. The scene is not changed.
    """
    refuse_missing(path)
    return _load_series(scene, path, name) if path.is_dir() else _load_file(scene, path, name)


def loaded_from(scene: vtkMRMLScene, path: Path) -> vtkMRMLScalarVolumeNode | None:
    """Return the volume that was loaded from a file and was not changed since; ``None`` if there is none."""
    for node in scene.GetNodes():
        storage = node.GetStorageNode() if node.GetClassName() == _VOLUME else None
        if storage is not None and storage.GetFileName() == str(path) and not node.GetModifiedSinceRead():
            return node
    return None


def _load_file(scene: vtkMRMLScene, path: Path, name: str) -> vtkMRMLScalarVolumeNode:
    import slicer

    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetSingleFile(True)  # not what else is called so in the folder
    node = scene.AddNewNodeByClass(_VOLUME, name)
    if not storage.ReadData(node):
        scene.RemoveNode(node)
        raise ImageError(
            f"{path} could not be loaded as a volume. The reason is in Slicer's error log (View > Error Log)."
        )
    scene.AddNode(storage)
    node.SetAndObserveStorageNodeID(storage.GetID())
    node.CreateDefaultDisplayNodes()
    return node


def _load_series(scene: vtkMRMLScene, path: Path, name: str) -> vtkMRMLScalarVolumeNode:
    import slicer

    image = read_image(path, channels=1)
    assert image.voxels is not None  # it was just read
    for notice in image.notices:
        logging.warning(notice)
    node = scene.AddNewNodeByClass(_VOLUME, name)
    with slicer.util.NodeModify(node):
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(index_to_ras(image.geometry)))
        slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(image.voxels[0]))
    remember_folder(node, path)  # its segmentation can be saved as DICOM
    node.CreateDefaultDisplayNodes()
    return node
