"""Give segments back their voxels if a change of several of them fails midway, above all because memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .segmentation_reader import LABELMAP
from .surfaces import SURFACE

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


@contextlib.contextmanager
def undone_on_failure(node: vtkMRMLSegmentationNode, segment_ids: Iterable[str]) -> Iterator[None]:
    """Give segments back their voxels and surfaces if the ``with`` block raises, and remove those that it has added.

    A copy is kept of each image that they share, also with others, which get their voxels back too. If the memory is
    not enough for the copies, the block is not entered.

    :param segment_ids: of the segments that the block may change. Their surfaces are not changed in place.
    """
    import slicer

    segmentation, there = node.GetSegmentation(), node.GetSegmentation().GetSegmentIDs()
    images, before = {}, []
    for identifier in segment_ids:
        segment = segmentation.GetSegment(identifier)
        image = segment.GetRepresentation(LABELMAP)
        if image is not None and image not in images:
            images[image] = slicer.vtkOrientedImageData()
            images[image].DeepCopy(image)
        before.append((segment, image, segment.GetLabelValue(), segment.GetRepresentation(SURFACE)))
    try:
        yield
    except BaseException:
        for identifier in segmentation.GetSegmentIDs():
            if identifier not in there:
                segmentation.RemoveSegment(identifier)
        for image, copy in images.items():
            image.ShallowCopy(copy)  # which takes no memory, of which there is none
        for segment, image, value, surface in before:
            segment.SetLabelValue(value)
            for name, representation in ((LABELMAP, image), (SURFACE, surface)):
                segment.RemoveRepresentation(name)
                if representation is not None:
                    segment.AddRepresentation(name, representation)
        raise
