"""Bring the files of one case into the merged dataset: link or copy images, write label maps with the new values."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ImageError, LabelTableError, reason
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.images.nifti import check_nifti, is_nifti

from ..volumes import labels_of, read_volume, write_volume


def place_image(source: Path, target: Path, ending: str) -> str:
    """Let ``target`` be an image: link it if possible, else copy it; convert it if its format changes."""
    if not source.name.endswith(ending) or _is_detached(source):
        if not target.is_file():
            _convert(source, target)
        return "converted"
    if target.is_file():
        return "linked" if target.is_symlink() or target.samefile(source) else "copied"
    real = Path(os.path.realpath(source))
    for link in (os.link, os.symlink):
        with contextlib.suppress(OSError, NotImplementedError):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink():  # to a file that is gone
                target.unlink()
            link(real, target)
            return "linked"
    with replacing(target, overwrite=True) as temporary:
        shutil.copyfile(real, temporary)
    return "copied"


def _is_detached(file: Path) -> bool:
    """Tell whether the voxels of an ``.nrrd`` or ``.mha`` file are in another file, which a link would leave behind."""
    if not file.name.endswith((".nrrd", ".mha")):
        return False
    with open(file, "rb") as stream:
        header = stream.read(1 << 16).partition(b"\n\n")[0].lower()
    local = b"elementdatafile = local"
    return bool(re.search(rb"^data ?file:", header, re.M)) or (b"elementdatafile" in header and local not in header)


def _convert(source: Path, target: Path) -> None:
    import SimpleITK

    if is_nifti(source):
        check_nifti(source)
    try:
        image = SimpleITK.ReadImage(str(source))
    except RuntimeError as error:
        raise ImageError(f"{source} cannot be read as an image ({reason(error, -1)}). Export it again.") from error
    write_volume(image, target)


def write_label(source: Path, target: Path, new: np.ndarray, dataset: str) -> None:
    """Write a label map with other values on the same grid.

    :param new: the new value of each value.
    """
    if is_nifti(source) and is_nifti(target):
        _write_nifti(source, target, new, dataset)
        return
    import SimpleITK

    volume = read_volume(source)
    image = volume.owner
    assert image is not None  # only NIfTI is read without ITK
    labels = labels_of(volume, source).reshape(image.GetSize()[::-1])  # of two axes too
    written = SimpleITK.GetImageFromArray(_mapped(labels, new, source, dataset))
    written.CopyInformation(image)
    write_volume(written, target)


def _write_nifti(source: Path, target: Path, new: np.ndarray, dataset: str) -> None:
    """Keep the header, which ITK would write anew, and might refuse."""
    import nibabel

    check_nifti(source)
    try:
        image: Any = nibabel.load(source)
        labels = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise ImageError(f"{source} cannot be read as a NIfTI image ({reason(error)}). Export it again.") from error
    written = type(image)(_mapped(labels, new, source, dataset), None, image.header)
    written.header.set_data_dtype(new.dtype)
    written.header.set_slope_inter(1, 0)
    with replacing(target, overwrite=True) as temporary:
        nibabel.save(written, temporary)


def _mapped(labels: np.ndarray, new: np.ndarray, file: Path, dataset: str) -> np.ndarray:
    """Return the new values.

    :raises LabelTableError: if there are others than those of the dataset.
    """
    whole = labels if labels.dtype.kind in "iu" else np.asarray(labels.astype(np.int64))
    low, high = int(whole.min()), int(whole.max())
    if low < 0 or high >= len(new) or (whole is not labels and not np.array_equal(whole, labels)):
        found = f"{labels.min():g} to {labels.max():g}"
        raise LabelTableError(
            f"{file} does not hold the labels of {dataset}: whole numbers from 0 to {len(new) - 1} were expected, but "
            f"it has {found}. Correct the label map or dataset.json, and run the command again."
        )
    return new[whole]
