"""Write the sample volume of the brain model, ``Resources/SampleData/head-mr.nrrd``, which shows no real person.

    python training/embedded_models/write_brain_sample.py

It is case 6 of the unseen heads of the atlas subject, deformed at random, with the skull of an individual that training
never sees and grey values like those of a T1-weighted image. Its spacing of 1.6 mm is finer than that of the model. The
image is stored as uint8 to keep the file small. Its label map is not written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from classscale_training.data.brain import BrainCases, BrainOptions
from ClassScaleSegLib.errors import ClassScaleError

OUTPUT = Path(__file__).resolve().parents[2] / "Resources" / "SampleData" / "head-mr.nrrd"
CASE, SPACING, FIELD_OF_VIEW = 6, 1.6, (208.0, 232.0, 176.0)  # mm, z y x


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--label-maps",
        type=Path,
        default=Path(".benchmarks/brain/label_maps.npz"),
        help="file that prepare_brain_data.py wrote (default: %(default)s)",
    )
    parser.add_argument("--case", type=int, default=CASE, help="number of the unseen head (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="image to write (default: head-mr.nrrd in Resources/SampleData)"
    )
    options = parser.parse_args(arguments)
    try:
        cases = BrainCases.read(options.label_maps, BrainOptions(spacing=SPACING), 0)
    except ClassScaleError as error:
        print(error, file=sys.stderr)
        return 1
    shape = tuple(round(side / SPACING) for side in FIELD_OF_VIEW)
    image, _ = cases.unseen(options.case, 0, shape)
    grey = np.clip(np.rint(image.numpy() * 255 / np.quantile(image.numpy(), 0.9995)), 0, 255).astype(np.uint8)
    picture = sitk.GetImageFromArray(grey)
    picture.SetSpacing([SPACING] * 3)
    picture.SetOrigin([-(n - 1) / 2 * SPACING for n in reversed(shape)])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(picture, str(options.output), True)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
