"""Write the sample volumes of the embedded toy models and their known labels into ``Resources/SampleData``.

    python training/embedded_models/write_demo_sample.py

Both samples are case 100 of seed 1 of the toy atlas, which the trainings never use: the same subject, divided into 120
or 1000 classes. The sample with 120 classes has a spacing of 4/3 mm, finer than that of the model; the sample with 1000
classes has the 2 mm of the model. Grey values are stored as uint8 to keep the files small.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from classscale_training.data.toy.atlas import atlas_case
from embedded_models import RESOURCES, picture

FOLDER = RESOURCES / "SampleData"
CASE, EXTENT = 100, 128.0  # EXTENT in mm
# number of classes: (voxels along each side, type of the labels)
SAMPLES = {120: (96, np.uint8), 1000: (64, np.uint16)}


def main() -> None:
    """Write the image and the label map of both samples."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for classes, (size, kind) in SAMPLES.items():
        image, labels = atlas_case(CASE, classes, size, seed=1)
        grey = np.clip(np.rint(image.numpy() * 160), 1, 255).astype(np.uint8)
        for name, array in ((f"toy-{classes}", grey), (f"toy-{classes}-labels", labels.numpy().astype(kind))):
            sample = picture(array, EXTENT / size)
            sample.SetOrigin([-EXTENT / 2] * 3)
            sitk.WriteImage(sample, str(FOLDER / f"{name}.nrrd"), True)


if __name__ == "__main__":
    main()
