"""Let a segmentation node with hundreds of segments go at once when it is removed or the scene is closed.

When Slicer destroys a segmentation, it removes one segment after the other, and gives each first a copy of the image
that it shares with the rest. If segments hold no image, there is nothing to copy. Their images are therefore freed when
the node is destroyed, unless something else still holds the segmentation.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

# References to a segmentation that only its node and the observer below hold: VTK counts the node and Python, and
# Python counts the observer's attribute and the argument of sys.getrefcount.
_VTK_REFERENCES, _PYTHON_REFERENCES = 2, 2


_observed: set[str] = set()  # addresses of nodes


class _Freeing:
    """Observer of the end of a node. It holds the segmentation, because VTK does not tell which object ends."""

    def __init__(self, node: vtkMRMLSegmentationNode) -> None:
        self._address, self.segmentation = _address(node), node.GetSegmentation()
        _observed.add(self._address)

    def __call__(self, caller: object, event: str) -> None:
        if not vars(self):  # Python's collector of cycles was here first, so Slicer takes its time
            return
        _observed.discard(self._address)
        unheld = sys.getrefcount(self.segmentation) <= _PYTHON_REFERENCES
        if unheld and self.segmentation.GetReferenceCount() <= _VTK_REFERENCES:
            for identifier in self.segmentation.GetSegmentIDs():
                self.segmentation.GetSegment(identifier).RemoveAllRepresentations()


def free_when_destroyed(node: vtkMRMLSegmentationNode) -> None:
    """Free the images of the node's segments when it is destroyed. Calling it again has no effect.

    >>> import slicer
    >>> node = slicer.vtkMRMLSegmentationNode()
    >>> free_when_destroyed(node)
    """
    import vtk

    if _address(node) not in _observed or not node.HasObserver(vtk.vtkCommand.DeleteEvent):
        node.AddObserver(vtk.vtkCommand.DeleteEvent, _Freeing(node))


def _address(node: vtkMRMLSegmentationNode) -> str:
    return node.GetAddressAsString("")
