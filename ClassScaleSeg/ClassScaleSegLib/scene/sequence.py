"""Step through the frames of a sequence, add their segmentations as a sequence to the same browser, change one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ImageError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLSequenceBrowserNode


def browser_of(volume: vtkMRMLScalarVolumeNode | vtkMRMLSegmentationNode) -> vtkMRMLSequenceBrowserNode | None:
    """Return the sequence browser that plays a node of a scene, or ``None`` if it is not part of a sequence."""
    scene, kind = volume.GetScene(), "vtkMRMLSequenceBrowserNode"
    browsers = (scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind)))
    return next((browser for browser in browsers if browser.GetSequenceNode(volume) is not None), None)


def shown_item(node: vtkMRMLSegmentationNode) -> str:
    """Return the index value of the frame that a node shows; an empty text if it is not part of a sequence.

    :raises ImageError: if the sequence has no frame of its own there.
    """
    browser = browser_of(node)
    if browser is None:
        return ""
    value = browser.GetMasterSequenceNode().GetNthIndexValue(browser.GetSelectedItemNumber())
    sequence = browser.GetSequenceNode(node)
    number = sequence.GetItemNumberFromIndexValue(value)
    if number < 0:
        raise ImageError(f"{node.GetName()} has no frame at {value}. Select another frame.")
    return str(sequence.GetNthIndexValue(number))


def shown_frame(node: vtkMRMLSegmentationNode) -> vtkMRMLSegmentationNode | None:
    """Return the node in a sequence that another one shows now; ``None`` if that shows no frame of its own.

    What is changed on the shown node alone is gone as soon as another frame is shown.
    """
    browser = browser_of(node)
    try:
        item = shown_item(node)
    except ImageError:
        return None
    return browser.GetSequenceNode(node).GetDataNodeAtValue(item) if browser is not None else None


@contextmanager
def item_to_change(node: vtkMRMLSegmentationNode, item: str) -> Iterator[vtkMRMLSegmentationNode]:
    """Yield a node with the contents of a frame. What the ``with`` block changes there is put into that frame alone.

    It is a copy in a scene of its own, in which everything is as the node shows it, if that shows this frame.
    Afterwards the browser shows the frame. Nothing is put there after an error.

    :param node: that shows the frames.
    :param item: the index value of the frame. If it is empty, the node is part of no sequence, and is yielded itself.
    :raises ImageError: if there is no such frame, or the node has become part of a sequence.
    """
    import slicer

    browser = browser_of(node)
    if browser is None and not item:
        yield node
        return
    sequence = None if browser is None else browser.GetSequenceNode(node)
    held = None if sequence is None or not item else sequence.GetDataNodeAtValue(item)
    if browser is None or sequence is None or held is None:
        raise ImageError(f"The frame of {node.GetName()} that was corrected is not in its sequence any more.")
    scene, copy = slicer.vtkMRMLScene(), slicer.vtkMRMLSegmentationNode()
    copy.CopyContent(node if _shows(node, item) else held)
    copy.SetName(node.GetName())
    scene.AddNode(copy)
    yield copy
    with slicer.util.NodeModify(node):  # a sequence that keeps changes would take the node back before it is complete
        sequence.UpdateDataNodeAtValue(copy, item)
        number = browser.GetMasterSequenceNode().GetItemNumberFromIndexValue(item)
        _select(browser, browser.GetSelectedItemNumber() if number < 0 else number)


def _shows(node: vtkMRMLSegmentationNode, item: str) -> bool:
    try:
        return shown_item(node) == item
    except ImageError:
        return False


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
