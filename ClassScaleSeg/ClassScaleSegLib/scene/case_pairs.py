"""Results of many volumes beside those that they should be like: which belong together, and how they differ.

pairs = find_case_pairs(slicer.mrmlScene)
cases = {pair.name: compare_case(pair).rows for pair in pairs if pair.reference is not None}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..images.comparison import Comparison
from ..images.segmentation import Segmentation
from ..labels.table import LabelTable, name_words
from .dicom import is_result
from .results import compare_nodes, owner_of
from .segmentation_reader import Opened, open_segmentation, open_structures

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScene, vtkMRMLSegmentationNode

# words of a name that say that it is a segmentation, not of what
_KINDS = frozenset(
    ("seg", "dseg", "segmentation", "segmentations", "segments", "label", "labels", "labelmap", "mask", "masks", "gt")
    + ("ref", "reference", "manual", "truth", "ground", "groundtruth", "drawn", "rtstruct", "structures")
)


class CasePair(NamedTuple):
    """A result, and what it should be like.

    :ivar name: of the case, that of the volume; no two cases have the same.
    :ivar result: the segmentation that this module has made.
    :ivar reference: the segmentation that counts as right; ``None`` if it is not certain which one that is.
    :ivar latest: whether the volume has no later result.
    """

    name: str
    result: vtkMRMLSegmentationNode
    reference: vtkMRMLSegmentationNode | None
    latest: bool = True


class ComparedCase(NamedTuple):
    """How a result differs from its reference.

    :ivar comparison: of the structures of both.
    :ivar segments: for each of its rows, the node and the id of a segment that shows it.
    """

    comparison: Comparison
    segments: list[tuple[vtkMRMLSegmentationNode, str]]


def find_case_pairs(scene: vtkMRMLScene) -> list[CasePair]:
    """Return all results of a scene whose volumes are in it, with their references.

    The reference is the only other segmentation of the same volume; or else the only one that is called like the
    volume, as :func:`called_like` says. Results are no references.
    """
    results = [(node, volume) for node in segmentations(scene) if is_result(node) and (volume := _volume(node))]
    others = [node for node in segmentations(scene) if not is_result(node) and owner_of(node) is None]
    volumes = list(dict.fromkeys(volume for _node, volume in results))
    named = called_like([volume.GetName() or "" for volume in volumes], [node.GetName() or "" for node in others])
    references: dict[vtkMRMLNode, vtkMRMLSegmentationNode] = {}
    for number, volume in enumerate(volumes):
        own = [node for node in others if _volume(node) is volume]
        found = own or [others[index] for index in named[number]]
        if len(found) == 1:
            references[volume] = found[0]
    latest = {volume: node for node, volume in results}
    pairs, taken = [], set[str]()
    for node, volume in sorted(results, key=lambda one: latest[one[1]] is not one[0]):  # the latest get the short names
        name = _free(volume.GetName() or "Volume", node.GetName() or "Segmentation", taken)
        pairs.append(CasePair(name, node, references.get(volume), latest[volume] is node))
    return pairs


def called_like(volumes: Sequence[str], references: Sequence[str]) -> list[list[int]]:
    """Return for the name of each volume which segmentations are called like it, by number.

    That is so if a segmentation's name, without words such as "segmentation", begins the name of the volume: ``sub-01
    seg`` belongs to ``sub-01_T1w``. It belongs to the volume alone of whose name it is the largest part.

    >>> called_like(["CT 1", "CT 10", "sub-01_T1w"], ["CT 1 drawn", "ct_10.seg.nrrd", "sub-01_dseg", "CT"])
    [[0], [1], [2]]
    """
    found: list[list[int]] = [[] for _volume in volumes]
    words = [_words(name) for name in volumes]
    for number, name in enumerate(references):
        own = [word for word in _words(name) if word not in _KINDS]
        beside = [index for index, others in enumerate(words) if own and others[: len(own)] == own]
        least = min((len(words[index]) for index in beside), default=0)
        closest = [index for index in beside if len(words[index]) == least]
        if len(closest) == 1:
            found[closest[0]].append(number)
    return found


def compare_case(pair: CasePair) -> ComparedCase:
    """Compare a result with its reference. A result without a structure has missed all.

    :raises ImageError: if one of them cannot be read, or the reference has no structure.
    """
    assert pair.reference is not None
    drawn = open_structures(pair.reference)
    found = open_segmentation(pair.result) or _nothing(drawn)
    comparison = compare_nodes(drawn, found)
    segments = [
        (pair.result, found.ids[row.other_value or 0]) if row.value is None else (pair.reference, drawn.ids[row.value])
        for row in comparison.rows
    ]
    return ComparedCase(comparison, segments)


def called_like_segmentations(names: Sequence[str]) -> set[str]:
    """Return the names that say of what other name they are the segmentation.

    >>> called_like_segmentations(["sub-01_T1w", "sub-01_FLAIR", "sub-01_dseg", "label", "CT mask"])
    {'sub-01_dseg'}
    """
    words = {name: _words(name) for name in names}
    drawn = {name: own for name, own in words.items() if own and own[-1] in _KINDS}
    begins = {
        tuple(own[:length]) for name, own in words.items() if name not in drawn for length in range(1, len(own) + 1)
    }
    return {name for name, own in drawn.items() if tuple(word for word in own if word not in _KINDS) in begins}


def _nothing(like: Opened) -> Opened:
    """Return what an empty node holds, on the grid of another one."""
    labels = np.zeros(like.segmentation.labels.shape, np.uint16)
    return Opened(Segmentation(labels, LabelTable(()), like.segmentation.geometry), [], {})


def segmentations(scene: vtkMRMLScene) -> list[vtkMRMLSegmentationNode]:
    """Return the segmentation nodes that users see."""
    nodes = [node for node in scene.GetNodes() if node.GetClassName() == "vtkMRMLSegmentationNode"]
    return [node for node in nodes if not node.GetHideFromEditors()]


def _volume(node: vtkMRMLSegmentationNode) -> vtkMRMLNode | None:
    return node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())


def _words(name: str) -> list[str]:
    return name_words(name.removesuffix(".seg.nrrd").removesuffix(".nii.gz").replace(".", " "))


def _free(name: str, result: str, taken: set[str]) -> str:
    """Return a name that no other case has."""
    tries = [name, f"{name} ({result})", *(f"{name} ({result}, {number})" for number in range(2, len(taken) + 3))]
    free = next(one for one in tries if one not in taken)
    taken.add(free)
    return free
