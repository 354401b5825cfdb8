"""Write the sample volume of ``classscaleseg demo`` and its known labels into ``Resources/SampleData``.

    python training/write_demo_sample.py

Case 100 of seed 1 of the toy atlas, 120 classes, 96^3 voxels of 4/3 mm: never trained on, and finer than the model's
own grid. Grey values are stored as uint8 to keep the file small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from classscale_training.toy import atlas_case

FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "SampleData"
CLASSES, SIZE, EXTENT = 120, 96, 128.0  # EXTENT in mm


def main() -> None:
    image, labels = atlas_case(100, CLASSES, SIZE, seed=1)
    grey = np.clip(np.rint(image.numpy() * 160), 1, 255).astype(np.uint8)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, array in (("toy-120.nrrd", grey), ("toy-120-labels.nrrd", labels.numpy().astype(np.uint8))):
        picture = sitk.GetImageFromArray(array)
        picture.SetSpacing([EXTENT / SIZE] * 3)
        picture.SetOrigin([-EXTENT / 2] * 3)
        sitk.WriteImage(picture, str(FOLDER / name), True)


if __name__ == "__main__":
    main()
