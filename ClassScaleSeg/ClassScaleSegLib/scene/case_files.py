"""Cases in two folders, images and their segmentations: one after the other is loaded, looked at, and saved again.

cases, left_out = find_cases(Path("scans"), Path("results"))
opened = open_case(slicer.mrmlScene, cases[0])
...  # somebody corrects opened.segmentation
opened = save_case(opened)
close_case(slicer.mrmlScene, opened)
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ImageError, OutputError, reason
from ..files import given_stem, stamp_of
from ..images.case_notes import read_notes
from ..images.paired_cases import find_images
from ..images.review_state import segment_tags
from ..images.segmentation import Segmentation
from .confidence_volume import remember_confidence
from .loading import load_image
from .results import KEPT_TAGS, removed_on_failure, save_segmentation, show_confidence_window
from .saved_notes import remember_notes
from .segmentation_node import fill_segmentation_node
from .source_volumes import remember_volumes
from .training_folder import SUFFIX
from .volume import is_cut_from, is_on_grid

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

    from ..images.geometry import Geometry

_MOST_NAMES = 3  # that a sentence names


class CaseFiles(NamedTuple):
    """The files of a case.

    :ivar name: of the segmentation, without its suffix.
    :ivar images: one for each channel: files, or folders with a DICOM series.
    :ivar segmentation: a ``.seg.nrrd``.
    :ivar confidence: the confidence of each voxel; ``None`` if there is none.
    :ivar other: a ``.seg.nrrd`` to compare it with, such as that of another reader; ``None`` if there is none.
    """

    name: str
    images: tuple[Path, ...]
    segmentation: Path
    confidence: Path | None = None
    other: Path | None = None

    def is_same(self, other: CaseFiles) -> bool:
        """Return whether another case has the same segmentation, also if its folder is given by another path."""
        first, second = self.segmentation, other.segmentation
        with suppress(OSError):  # a folder is gone
            return first == second or (first.name == second.name and first.parent.samefile(second.parent))
        return False


class OpenedCase(NamedTuple):
    """A case in the scene.

    :ivar files: of which it was loaded.
    :ivar volumes: one for each channel, and the confidence of each voxel, if the case has it.
    :ivar notice: a sentence, if the image is on another grid; otherwise "".
    :ivar other: the segmentation to compare it with, which is not shown in the views; ``None`` if there is none.
    :ivar segmentation: has names, codes and colours of the segments in the file, confidences, and what was checked.
    :ivar grid: of the file when it was loaded.
    :ivar stamp: size in bytes and time in ns of the file when it was loaded or saved; ``None``: it was not there.
    """

    files: CaseFiles
    volumes: tuple[vtkMRMLScalarVolumeNode, ...]
    segmentation: vtkMRMLSegmentationNode
    grid: Geometry
    stamp: tuple[int, int] | None
    notice: str = ""
    other: vtkMRMLSegmentationNode | None = None


def find_cases(
    images: Path, segmentations: Path, confidences: Path | None = None, others: Path | None = None
) -> tuple[list[CaseFiles], str]:
    """Find the segmentations in a folder that have their images in another one, or the same.

    The image of ``NAME.seg.nrrd`` is called ``NAME``, whatever its format, or ``NAME_0000`` as in nnU-Net, and then
    ``NAME_0001`` is its second channel.

    :param confidences: a folder with the confidence of each voxel as ``NAME``, as ``segment --confidence`` writes it.
    :param others: a folder with a ``NAME.seg.nrrd`` to compare each with, such as those of another reader.
    :returns: the cases in the order of their names, and sentences on segmentations without an image, or with several of
        which nobody knows which one it is; or "".
    :raises ImageError: if a folder is missing, or no segmentation has an image.
    """
    for folder in (images, segmentations, confidences, others):
        if folder is not None and not folder.is_dir():
            raise ImageError(f"{folder} is no folder. Choose the folder of the images, and that of the segmentations.")
    if others is not None and others.samefile(segmentations):
        raise ImageError(f"{others} is the folder of the segmentations themselves. Compare them with those of another.")
    there, sure = find_images(images), {} if confidences is None else find_images(confidences)
    beside = {} if others is None else {given_stem(file, (SUFFIX,)): file for file in _segmentations(others)}
    files = _segmentations(segmentations)
    if not files:
        raise ImageError(f"{segmentations} has no segmentation: none of its files ends with {SUFFIX}.")
    numbered = _numbered(there)
    cases, alone, unclear = list[CaseFiles](), list[str](), list[str]()
    for file in files:
        name = given_stem(file, (SUFFIX,))
        channels = [there[name]] if name in there else numbered.get(name, [])
        if any(len(same) > 1 for same in channels):
            unclear.append(name)
        elif channels:
            known, own = sure.get(name, []), tuple(image for (image,) in channels)
            cases.append(CaseFiles(name, own, file, known[0] if known else None, beside.get(name)))
        else:
            alone.append(name)
    if not cases and not unclear:
        raise ImageError(f"{images} has no image of a segmentation in {segmentations}, such as {alone[0]}.nii.gz.")
    told = [f"{images} has no image of {_listed(alone)}."] if alone else []
    if unclear:
        told.append(f"{images} has several images of {_listed(unclear)}. Leave one of each there.")
    return cases, " ".join(told)


def open_case(scene: vtkMRMLScene, files: CaseFiles) -> OpenedCase:
    """Load images and segmentation of a case, and show the first image in the slice views.

    :raises ImageError: if one of them cannot be read. The scene is not changed.
    """
    import slicer

    stamp = stamp_of(files.segmentation)  # before it is read: somebody may write it meanwhile
    with removed_on_failure(scene):
        numbered = [files.name] if len(files.images) == 1 else [f"{files.name}_{n}" for n in range(len(files.images))]
        pairs = zip(files.images, numbered, strict=True)
        volumes = tuple(load_image(scene, image, name) for image, name in pairs)
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{files.name} segmentation")
        # not by Slicer's own reader: a damaged file can end Slicer
        found = Segmentation.from_image(files.segmentation)
        rows, notes = found.statistics(), read_notes(files.segmentation)
        fill_segmentation_node(node, found, keep_empty=True, volume=volumes[0], statistics=rows)
        for identifier, tags in segment_tags(files.segmentation).items():
            segment = node.GetSegmentation().GetSegment(identifier)
            for name in KEPT_TAGS if segment is not None else ():
                if name in tags:
                    segment.SetTag(name, tags[name])
        remember_notes(node, notes, rows)
        node.AddDefaultStorageNode(str(files.segmentation))
        node.GetStorageNode().SetFileName(str(files.segmentation))
        remember_volumes(node, volumes)
        loaded = volumes
        if files.confidence is not None:
            loaded += (load_image(scene, files.confidence, f"{files.name} confidence"),)
            show_confidence_window(loaded[-1])
            remember_confidence(node, loaded[-1])
        other = None if files.other is None else _load_other(scene, files.name, files.other, volumes)
    slicer.util.setSliceViewerLayers(background=volumes[0], fit=True)
    names = files.segmentation.name, files.images[0].name
    apart = not (is_on_grid(volumes[0], found.geometry) or is_cut_from(volumes[0], found.geometry))
    notice = f"{names[0]} is on another grid than {names[1]}. Do they belong together?" if apart else ""
    return OpenedCase(files, loaded, node, found.geometry, stamp, notice, other)


def _load_other(
    scene: vtkMRMLScene, name: str, file: Path, volumes: tuple[vtkMRMLScalarVolumeNode, ...]
) -> vtkMRMLSegmentationNode:
    """Load the segmentation to compare a case with. The views do not show it."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} other segmentation")
    fill_segmentation_node(node, Segmentation.from_image(file), keep_empty=True, volume=volumes[0])
    node.GetDisplayNode().SetVisibility(False)
    remember_volumes(node, volumes)
    return node


def changed_elsewhere(case: OpenedCase) -> bool:
    """Return whether somebody else has written the file of a case since it was loaded or saved here."""
    return stamp_of(case.files.segmentation) not in (case.stamp, None)


def save_case(case: OpenedCase, reader: str = "") -> OpenedCase:
    """Save the segmentation of a case to its file, with what was checked and corrected.

    What somebody else has written there meanwhile is replaced: see :func:`changed_elsewhere`.

    :param reader: who has checked and corrected it, which the header of the file then names; "": it does not say.
    :returns: the case as it is saved.
    :raises OutputError: if it cannot be written, or the segmentation is under a transform. The file is as it was.
    """
    node, file = case.segmentation, case.files.segmentation
    if node.GetParentTransformNode() is not None:
        raise OutputError(
            f"{node.GetName()} is under a transform, and its file would lack that. Harden the transform, or take the "
            "segmentation out of it (in Slicer's Data module, right-click the transform icon)."
        )
    try:
        before = read_notes(file).readers if file.is_file() else ()
    except OSError as error:
        why = error.strerror or reason(error)
        raise OutputError(f"{file} cannot be read ({why}). Save the case again when it can be.") from error
    readers = (*(each for each in before if each != reader), reader) if reader else before
    save_segmentation(node, file, readers=readers, empty_grid=case.grid)
    return case._replace(stamp=stamp_of(file))


def close_case(scene: vtkMRMLScene, case: OpenedCase) -> None:
    """Remove the nodes of a case from the scene, as far as they are there."""
    for node in (case.segmentation, *case.volumes, *([] if case.other is None else [case.other])):
        more = [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
        for each in (node, node.GetStorageNode(), *more):
            if each is not None and scene.IsNodePresent(each):
                scene.RemoveNode(each)


def _segmentations(folder: Path) -> list[Path]:
    """Return the files of a folder that are segmentations, in the order of their names."""
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted(file for file in files if file.name.lower().endswith(SUFFIX) and file.is_file())


def _numbered(there: dict[str, list[Path]]) -> dict[str, list[list[Path]]]:
    """Return the images called ``NAME_0000``, ``NAME_0001`` and so on: for each ``NAME`` those of each channel."""
    found: dict[str, list[list[Path]]] = {}
    for key in sorted(there):
        if numbered := re.fullmatch(r"(.+)_\d{4}", key, re.DOTALL):
            found.setdefault(numbered[1], []).append(there[key])
    return found


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (" and others" if len(names) > _MOST_NAMES else "")
