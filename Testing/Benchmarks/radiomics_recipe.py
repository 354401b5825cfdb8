"""Time and check the recipe for pyradiomics in docs/how-to/radiomics.md against the extractor on whole images.

    python Testing/Benchmarks/radiomics_recipe.py IMAGE LABELS

pyradiomics must be installed as that page says. Prints seconds for all classes, and the largest relative difference of
a feature.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "radiomics.md"


def recipe() -> dict:
    """Run the code of the page up to its example, and return what it defines."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    names: dict = {}
    exec(code.partition("\n\n\nimage = ")[0], names)
    return names


def main(image_file: str, label_file: str) -> None:
    import SimpleITK as sitk
    from ClassScaleSegLib import Segmentation

    names = recipe()
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    image, labels = sitk.ReadImage(image_file), sitk.Cast(sitk.ReadImage(label_file), sitk.sitkUInt16)
    segmentation = Segmentation.from_image(labels)
    labels.CopyInformation(image)
    extractor = names["RadiomicsFeatureExtractor"](binCount=32)
    start = time.perf_counter()
    ours = names["radiomic_features"](image, segmentation, extractor)
    cropped = time.perf_counter() - start
    start, whole = time.perf_counter(), {}
    for label in segmentation.table.foreground:
        try:
            whole[label.name] = extractor.execute(image, labels, label=label.value)
        except ValueError:
            whole[label.name] = None
    seconds = time.perf_counter() - start
    apart, compared = 0.0, 0
    for name, features in ours.items():
        assert (features is None) == (whole[name] is None), name
        for key, value in (features or {}).items():
            if key.startswith("original_"):
                other = float(whole[name][key])
                apart, compared = max(apart, abs(float(value) - other) / max(abs(other), 1e-12)), compared + 1
    print(f"{np.prod(image.GetSize()):,} voxels, {len(ours)} classes, {compared} features")
    print(f"boxes {cropped:.1f} s, whole images {seconds:.1f} s, factor {seconds / cropped:.1f}")
    print(f"largest relative difference {apart:.2g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
