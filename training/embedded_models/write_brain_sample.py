"""Write the sample volume of the brain model, ``Resources/SampleData/head-mr.nrrd``, which shows no real person.

    python training/embedded_models/write_brain_sample.py

It is case 6 of the unseen heads of the atlas subject, deformed at random, with the skull of an individual that training
never sees and grey values like those of a T1-weighted image. Its spacing of 1.6 mm is finer than that of the model. The
image is stored as uint8 to keep the file small. Its label map is not written.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import SimpleITK as sitk
from classscale_training.data.brain import BrainCases, BrainOptions
from embedded_models import LABEL_MAPS, RESOURCES, option, picture, run

OUTPUT = RESOURCES / "SampleData" / "head-mr.nrrd"
SPACING, FIELD_OF_VIEW = 1.6, (208.0, 232.0, 176.0)  # mm, z y x
OPTIONS = {
    "--label-maps": LABEL_MAPS,
    "--case": option("number of the unseen head", 6),
    "--output": option("image to write", OUTPUT, "head-mr.nrrd in Resources/SampleData"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    return run(__doc__, OPTIONS, _write, arguments)


def _write(options: argparse.Namespace) -> str:
    cases = BrainCases.read(options.label_maps, BrainOptions(spacing=SPACING), 0)
    shape = tuple(round(side / SPACING) for side in FIELD_OF_VIEW)
    image = cases.unseen(options.case, 0, shape)[0].numpy()
    grey = np.clip(np.rint(image * 255 / np.quantile(image, 0.9995)), 0, 255).astype(np.uint8)
    sample = picture(grey, SPACING)
    sample.SetOrigin([-(n - 1) / 2 * SPACING for n in reversed(shape)])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sample, str(options.output), True)
    return f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB"


if __name__ == "__main__":
    sys.exit(main())
