"""Convert the label maps for the training of the brain model to one file that the training loop reads.

    python training/embedded_models/prepare_brain_data.py --atlas .../spl_brain --individuals .../synthseg_labels

All label maps get the same orientation (LPS) and are cropped to their labelled part. Each individual gets an affine
map: the one that best maps the centres of the sets of structures in the atlas to those in the individual. The script
needs SimpleITK. Reading its result (``.benchmarks/brain/label_maps.npz``, about 15 MB, not part of the project) needs
only NumPy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from classscale_training.data.brain import BrainTables, LabelMaps
from classscale_training.data.brain.label_maps import affine_map, set_centres
from ClassScaleSegLib.errors import ClassScaleError
from embedded_models import LABEL_MAPS, run

OPTIONS = {
    "--atlas": {"type": Path, "required": True, "help": "folder with hncma-atlas.nrrd"},
    "--individuals": {
        "type": Path,
        "required": True,
        "help": "folder with the files training_seg_01.nii.gz to training_seg_14.nii.gz",
    },
    "--output": {**LABEL_MAPS, "help": "file to write (default: %(default)s)"},
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    return run(__doc__, OPTIONS, _prepare, arguments, RuntimeError)  # SimpleITK's, when it cannot read a file


def _prepare(options: argparse.Namespace) -> str:
    tables, individuals = BrainTables.read(), sorted(options.individuals.glob("training_seg_*.nii.gz"))
    maps = label_maps(options.atlas / "hncma-atlas.nrrd", individuals, tables)
    maps.write(options.output, tables)
    return f"{options.output}: the atlas and {len(individuals)} individuals."


def label_maps(atlas: Path, individuals: list[Path], tables: BrainTables) -> LabelMaps:
    """Read the label maps of the atlas and the individuals.

    :raises ClassScaleError: if a file has labels that its table lacks, or another spacing than the first file.
    """
    values = [0, *(row.atlas_value for row in tables.structures)]
    subjects, spacing = [], None
    for path in (atlas, *individuals):
        # Label 1 of the atlas is one stray voxel without a name.
        volume, width = _read(path, values if path == atlas else [row.value for row in tables.coarse], path == atlas)
        if spacing not in (None, width):
            raise ClassScaleError(
                f"{path} has a spacing of {width} mm, the files before it {spacing} mm: resample it first."
            )
        subjects.append(volume)
        spacing = width
    sets = tables.set_of_class.numpy(), tables.label_of_coarse.numpy()
    centres = [set_centres(sets[n > 0][volume], len(tables.set_names)) for n, volume in enumerate(subjects)]
    maps = [affine_map(centres[0], other) for other in centres]
    middle = [np.nanmean(rows, 0) for rows in centres]
    types = [np.int16 if n == 0 else np.uint8 for n in range(len(subjects))]
    volumes = tuple(volume.astype(kind) for volume, kind in zip(subjects, types, strict=True))
    return LabelMaps(spacing, volumes, np.stack(middle), np.stack(maps))


def _read(path: Path, values: list[int], stray: bool) -> tuple[np.ndarray, float]:
    """Return the label map as rows of ``values`` ``(Z, Y, X)``, cropped to its labelled part, and the spacing in mm.

    :param stray: whether voxels of label 1 are removed.
    """
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    if np.ptp(image.GetSpacing()) > 1e-3:
        raise ClassScaleError(
            f"{path} has the spacing {image.GetSpacing()}; the same spacing along all axes was expected."
        )
    array = np.rint(sitk.GetArrayFromImage(image)).astype(int)
    if stray:
        array[array == 1] = 0
    row = np.full(array.max() + 1, -1)
    row[[value for value in values if value < len(row)]] = [n for n, v in enumerate(values) if v < len(row)]
    array = row[array]
    if array.min() < 0:
        unknown = np.flatnonzero(row < 0)
        raise ClassScaleError(f"{path} has labels that its table lacks; some of {unknown[:5].tolist()}... occur")
    where = [np.flatnonzero((array > 0).any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return array[tuple(slice(w[0], w[-1] + 1) for w in where)], round(image.GetSpacing()[0], 3)


if __name__ == "__main__":
    sys.exit(main())
