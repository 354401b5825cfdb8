"""Every frame of a sequence, one after the other, and their segmentations as a sequence of the same browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ImageError


def browser_of(volume: Any) -> Any | None:
    """The sequence browser that plays ``volume``, if it belongs to a sequence."""
    scene = volume.GetScene()
    browsers = scene.GetNodesByClass("vtkMRMLSequenceBrowserNode")
    browsers.UnRegister(None)
    found = (browsers.GetItemAsObject(index) for index in range(browsers.GetNumberOfItems()))
    return next((browser for browser in found if browser.GetSequenceNode(volume) is not None), None)


def frames(volume: Any) -> Iterator[int]:
    """Show one frame after the other, so that ``volume`` and its transforms hold it, and go back to where it was.

    :raises ImageError: if the volume belongs to no sequence.
    """
    browser = browser_of(volume)
    if browser is None:
        raise ImageError(f"{volume.GetName()} belongs to no sequence. Segment it as a single volume.")
    before = browser.GetSelectedItemNumber()
    try:
        for frame in range(browser.GetNumberOfItems()):
            _select(browser, frame)
            yield frame
    finally:
        _select(browser, before)


def add_segmentations(volume: Any, nodes: list[Any], name: str) -> Any:
    """Add a sequence of segmentation nodes beside that of ``volume``; returns the node that shows the current frame."""
    browser = browser_of(volume)
    master = browser.GetMasterSequenceNode()
    sequence = volume.GetScene().AddNewNodeByClass("vtkMRMLSequenceNode", name)
    sequence.SetIndexName(master.GetIndexName())
    sequence.SetIndexUnit(master.GetIndexUnit())
    for frame, node in enumerate(nodes):
        sequence.SetDataNodeAtValue(node, master.GetNthIndexValue(frame))
    browser.AddSynchronizedSequenceNode(sequence)
    _select(browser, browser.GetSelectedItemNumber())
    return browser.GetProxyNode(sequence)


def _select(browser: Any, frame: int) -> None:
    import slicer

    browser.SetSelectedItemNumber(frame)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
