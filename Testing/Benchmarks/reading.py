"""Time and memory of reading an image, beside SimpleITK's own reader in the same run.

    python Testing/Benchmarks/reading.py [--quick]

The image has 300 slices of 512 x 512 voxels, as a DICOM series, a compressed and an uncompressed NIfTI file, and NRRD.
Each is read by a process of its own: once by SimpleITK alone, which checks nothing, and once by `read_image`, as stored
and turned to RAS. Times are the best of five. To compare two versions, run this script in each.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import Bar, in_own_process, parse, peak_bytes, report, reset_peak, resident_bytes

FORMATS = ("dicom", "packed.nii.gz", "plain.nii", "plain.nrrd")  # ITK reads ct.nii for ct.nii.gz if both are there
LIMIT = 1.5  # of time and memory of SimpleITK, which checks nothing


def write(root: Path, slices: int, size: int) -> None:
    """Write the image in all formats, unless it is there."""
    import SimpleITK as sitk

    folder = root / "dicom"
    if folder.is_dir():
        return
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(slices), np.add.outer(np.arange(size), np.arange(size))) % 1500
    image = sitk.GetImageFromArray((smooth + random.integers(0, 40, smooth.shape)).astype(np.int16))
    image.SetSpacing((0.7, 0.7, 1.5))
    for name in FORMATS[1:]:
        sitk.WriteImage(image, str(root / name), useCompression=name.endswith(".gz"))
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(slices):
        plane = image[:, :, z]
        tags = {"0020|000e": "1.2.3.4", "0020|000d": "1.2.3", "0008|0060": "CT", "0020|0013": str(z)}
        tags |= {"0020|0032": f"0\\0\\{1.5 * z}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{z:04}.dcm"))
        writer.Execute(plane)


def read_once(task: dict[str, Any]) -> dict[str, float]:
    """Read in this process.

    :returns: ``seconds``, and ``mebibytes`` above what the process held before.
    """
    import SimpleITK as sitk
    from ClassScaleSegLib.images.reading import read_image

    path = task["path"]
    read_image(sitk.Image([2, 2, 2], sitk.sitkInt16), 1)  # imports
    seconds, memory = [], 0
    for _ in range(task["repeats"]):
        before = resident_bytes()
        reset_peak()
        begin = time.perf_counter()
        if task["by"] != "SimpleITK":
            held: Any = read_image(path, 1, task["orientation"])
        elif Path(path).is_dir():
            held = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(path))
        else:
            held = sitk.ReadImage(path)
        seconds.append(time.perf_counter() - begin)
        memory = max(memory, peak_bytes() - before)
        del held
    return {"seconds": min(seconds), "mebibytes": memory / 2**20}


def main() -> int:
    options = parse(__doc__, "reading")
    if options.task:
        import json

        print(json.dumps(read_once(options.task)))
        return 0
    slices, size, repeats = (20, 64, 2) if options.quick else (300, 512, 5)
    root = options.root / f"{slices}x{size}"
    root.mkdir(exist_ok=True)
    write(root, slices, size)
    rows, bars = [], []
    for name in FORMATS:
        task = {"path": str(root / name), "repeats": repeats, "orientation": None}
        stock = in_own_process(__file__, by="SimpleITK", **task)
        ours = in_own_process(__file__, by="read_image", **task)
        turned = in_own_process(__file__, by="read_image", **{**task, "orientation": "RAS"})
        rows.append(
            {
                "format": name,
                **{f"SimpleITK_{key}": round(value, 3) for key, value in stock.items()},
                **{f"ours_{key}": round(value, 3) for key, value in ours.items()},
                **{f"ours_RAS_{key}": round(value, 3) for key, value in turned.items()},
            }
        )
        if not options.quick:  # small files are all overhead
            bars.append(Bar(f"{name}: time of SimpleITK's", ours["seconds"] / stock["seconds"], LIMIT))
            bars.append(Bar(f"{name}: memory of SimpleITK's", ours["mebibytes"] / stock["mebibytes"], LIMIT))
    return report(options, "reading", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
