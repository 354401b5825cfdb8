"""Step through the frames of a sequence, and add their segmentations as a sequence to the same browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ImageError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLSequenceBrowserNode


def browser_of(volume: vtkMRMLScalarVolumeNode | vtkMRMLSegmentationNode) -> vtkMRMLSequenceBrowserNode | None:
    """Return the sequence browser that plays a node of a scene, or ``None`` if it is not part of a sequence."""
    scene, kind = volume.GetScene(), "vtkMRMLSequenceBrowserNode"
    browsers = (scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind)))
    return next((browser for browser in browsers if browser.GetSequenceNode(volume) is not None), None)


def frames(volume: vtkMRMLScalarVolumeNode) -> Iterator[int]:
    """Yield the index of each frame while ``volume`` and its transforms hold that frame.

    The browser returns to the frame that was selected before, also if the caller stops early.

    :raises ImageError: if the volume is not part of a sequence.
    """
    browser = _browser(volume)
    before = browser.GetSelectedItemNumber()
    try:
        for frame in range(browser.GetNumberOfItems()):
            _select(browser, frame)
            yield frame
    finally:
        _select(browser, before)


def add_segmentations(
    volume: vtkMRMLScalarVolumeNode, nodes: list[vtkMRMLSegmentationNode], name: str
) -> vtkMRMLSegmentationNode:
    """Add a sequence with copies of ``nodes``, one per frame, to the browser of ``volume``.

    :returns: the node of the scene that shows the segmentation of the current frame.
    :raises ImageError: if the volume is not part of a sequence.
    """
    browser = _browser(volume)
    master = browser.GetMasterSequenceNode()
    sequence = volume.GetScene().AddNewNodeByClass("vtkMRMLSequenceNode", name)
    sequence.SetIndexName(master.GetIndexName())
    sequence.SetIndexUnit(master.GetIndexUnit())
    for frame, node in enumerate(nodes):
        sequence.SetDataNodeAtValue(node, master.GetNthIndexValue(frame))
    browser.AddSynchronizedSequenceNode(sequence)
    _select(browser, browser.GetSelectedItemNumber())
    return browser.GetProxyNode(sequence)


def _browser(volume: vtkMRMLScalarVolumeNode) -> vtkMRMLSequenceBrowserNode:
    browser = browser_of(volume)
    if browser is None:
        raise ImageError(f"{volume.GetName()} is not part of a sequence. Segment it as a single volume.")
    return browser


def _select(browser: vtkMRMLSequenceBrowserNode, frame: int) -> None:
    import slicer

    browser.SetSelectedItemNumber(frame)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
