"""Images of the file system: all below a folder, for the list of several volumes; each is loaded at its turn."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from ..widgets.folders import ask_folder
from ..widgets.texts import tell

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

MOST_IMAGES = 5000
_FILE = "file:"  # keys of rows, and members of cases, begin so
_LOOKED_AT = 10  # files of a folder, whether one of them is DICOM
_CHANNEL = re.compile(r"(.+)_\d{4}$")  # nnU-Net's CASE_0000


def choose_images() -> list[tuple[str, str]]:
    """Ask the user for a folder, and return key and name of each image in it and below it; none if the user cancels."""
    folder, images = _choose()
    return [(_FILE + str(path), _name(path, folder)) for path in images]


def choose_cases() -> list[tuple[tuple[str, ...], str]]:
    """Ask the user for a folder, and return the members of each case in it and below it, and its name.

    The images of a folder are a case, and so are DICOM series whose folders are in one folder. If all images of a
    folder are files that are numbered as nnU-Net does, those that differ in the number alone are a case.
    """
    folder, images = _choose()
    found: dict[tuple[Path, str], list[str]] = {}
    # folders of series often end with the number of the series
    matches = {path: None if path.is_dir() else _CHANNEL.match(_stem(path)) for path in images}
    mixed = {path.parent for path, match in matches.items() if match is None}
    for path, match in matches.items():
        place = folder if path == folder else path.parent
        case = match[1] if match is not None and place not in mixed else ""
        found.setdefault((place, case), []).append(_FILE + str(path))
    return [(tuple(members), _name(place / case, folder)) for (place, case), members in found.items()]


def key_of_file(path: str) -> str:
    """Return the key of an image file, or of a folder with a DICOM series."""
    return _FILE + path


def is_file(key: str) -> bool:
    """Return whether a key, or a member of a case, is an image of the file system."""
    return key.startswith(_FILE)


def title_of_file(key: str) -> str:
    """Return what says which channel an image is: the name of the file, or of the DICOM folder and its series."""
    path = Path(key.removeprefix(_FILE))
    if not path.is_dir():
        return _stem(path)
    return " ".join(filter(None, (path.name, _description(path))))


def load_file(key: str, name: str, on_loaded: Callable[[vtkMRMLScalarVolumeNode], object]) -> vtkMRMLScalarVolumeNode:
    """Load an image into the scene, show it, and return its volume; one that is there already is not loaded again.

    :param key: of the image.
    :param name: of the volume.
    :param on_loaded: called with the volume if it was not there already.
    :raises ImageError: if it cannot be loaded as one volume.
    """
    from ClassScaleSegLib.scene.loading import load_image, loaded_from

    path = Path(key.removeprefix(_FILE))
    if (there := loaded_from(slicer.mrmlScene, path)) is not None:
        return there
    volume = load_image(slicer.mrmlScene, path, name)
    on_loaded(volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


def find_images(folder: Path) -> Iterator[Path]:
    """Yield all image files in a folder and below it, and the folders with DICOM files, in the order of their names.

    Hidden ones are left out, and so are segmentations: those of Slicer, and what is called like one of another image.
    """
    from ClassScaleSegLib.images.suffixes import READ_SUFFIXES, VOXEL_SUFFIXES
    from ClassScaleSegLib.scene.case_pairs import called_like_segmentations

    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = [name for name in sorted(names) if not name.startswith(".") and "\n" not in os.path.join(place, name)]
        images = [name for name in kept if name.lower().endswith(READ_SUFFIXES)]
        stems = {name: _stem(Path(name)) for name in images if not name.lower().endswith(".seg.nrrd")}
        drawn = called_like_segmentations(list(stems.values()))
        yield from (Path(place, name) for name, stem in stems.items() if stem not in drawn)
        others = (Path(place, name) for name in kept if not name.lower().endswith(VOXEL_SUFFIXES))
        if any(map(_is_dicom, itertools.islice(others, _LOOKED_AT))):
            yield Path(place)


def _choose() -> tuple[Path, Sequence[Path]]:
    title = _("Folder of images")
    chosen = ask_folder(title, "ClassScaleSeg/ImageFolder")
    if not chosen:
        return Path(), ()
    folder = Path(chosen)
    slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        images = list(itertools.islice(find_images(folder), MOST_IMAGES + 1))
    finally:
        slicer.app.restoreOverrideCursor()
    if not images:
        text = _("{folder} has no image: neither files such as .nii.gz and .nrrd, nor folders with DICOM series.")
        tell(text.format(folder=folder), title)
    if len(images) > MOST_IMAGES:
        text = _("{folder} has more than {count} images, of which the first are added. Choose folders below it.")
        tell(text.format(folder=folder, count=MOST_IMAGES), title)
    return folder, images[:MOST_IMAGES]


def _is_dicom(path: Path) -> bool:
    from ClassScaleSegLib.images.dicom.headers import is_dicom

    try:
        return path.name.upper() != "DICOMDIR" and is_dicom(path)
    except OSError:
        return False


def _description(folder: Path) -> str:
    """Return the description of the series in a folder, by its first file; empty if that does not tell."""
    from ClassScaleSegLib.errors import ClassScaleError
    from ClassScaleSegLib.images.dicom.deflate import read_header
    from ClassScaleSegLib.labels.label import one_line

    try:
        file = next((file for file in sorted(folder.iterdir()) if file.is_file() and _is_dicom(file)), None)
        return "" if file is None else one_line(str(read_header(file).get("SeriesDescription") or ""))
    except (ClassScaleError, OSError):
        return ""


def _stem(path: Path) -> str:
    from ClassScaleSegLib.files import given_stem
    from ClassScaleSegLib.images.suffixes import READ_SUFFIXES

    return given_stem(path, READ_SUFFIXES)


def _name(path: Path, folder: Path) -> str:
    """Return what people see: the place below the folder, without the suffix of a file."""
    return (path.parent / _stem(path)).relative_to(folder).as_posix() if path != folder else folder.name
