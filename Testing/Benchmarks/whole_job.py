"""Bar 4, second half: time whole commands on a real CT and a 118-class network of TotalSegmentator's size, two cores.

    python Testing/Benchmarks/whole_job.py [--root .benchmarks/whole_job] [--quick]

``classscaleseg segment`` is compared with ``nnUNetv2_predict_from_modelfolder --disable_tta``, both from the start of
the interpreter to the written file, on the same image (TotalSegmentator's example CT, resampled to 1.5 mm) and the same
model folder (PlainConvUNet, 6 stages, 32 to 320 features, patch 128^3, 3 mm, random weights). Memory is the largest sum
over the processes of a command.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from measure import DATA, HERE, Bar, mebibytes, parse, report, run_job
from random_model import RandomModel

CT = DATA / "totalsegmentator" / "example_ct.nii.gz"
THREADS = 2
TOTALSEGMENTATOR_SIZE = RandomModel(118, (128, 128, 128), (3.0, 3.0, 3.0), (32, 64, 128, 256, 320, 320))
SMALL = replace(TOTALSEGMENTATOR_SIZE, patch=(64, 64, 64), features=(16, 16, 16), convolutions=1)


def write_resampled(source: Path, target: Path, spacing: float) -> None:
    """Write ``source`` resampled to a grid of ``spacing`` mm that covers the same space, int16."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(source))
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(image)
    resampler.SetSize([round(n * s / spacing) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)])
    resampler.SetOutputSpacing([spacing] * 3)
    shift = [
        (spacing - s) / 2 for s in image.GetSpacing()
    ]  # from the centre of the first voxel to that of the new first voxel
    direction = image.GetDirection()
    resampler.SetOutputOrigin(
        [o + sum(direction[3 * i + j] * shift[j] for j in range(3)) for i, o in enumerate(image.GetOrigin())]
    )
    resampler.SetDefaultPixelValue(-1024)
    sitk.WriteImage(sitk.Cast(resampler.Execute(image), sitk.sitkInt16), str(target))


def main() -> int:
    import numpy as np
    import SimpleITK as sitk

    options = parse(__doc__, "whole_job")
    if not CT.exists():
        raise SystemExit(f"{CT} is missing: the benchmark needs this CT.")
    images, results, file = options.root / "images", options.root / "stock", options.root / "ours.nii.gz"
    for folder in (images, results):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    write_resampled(CT, images / "ct_0000.nii.gz", 2.5 if options.quick else 1.5)
    model = (SMALL if options.quick else TOTALSEGMENTATOR_SIZE).write(options.root / "model")

    cli = [sys.executable, "-m", "ClassScaleSegLib", "segment", str(images / "ct_0000.nii.gz"), "-m", str(model)]
    switches = ["--device", "cpu", "--no-mirroring", "--threads", str(THREADS), "--overwrite"]
    ours = run_job([*cli, "-o", str(file), *switches], THREADS)
    command = [sys.executable, str(HERE / "stock.py"), "nnUNetv2_predict_from_modelfolder", "-i", str(images)]
    switches = ["-f", "0", "--disable_tta", "-device", "cpu", "-npp", "1", "-nps", "1"]
    stock = run_job([*command, "-o", str(results), "-m", str(model), *switches], THREADS)

    labels, theirs = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(f))).astype(np.int64) for f in (file, results / "ct.nii.gz")
    )
    rows = [
        {"engine": name, "image": labels.shape, "threads": THREADS, "seconds": job.seconds, "MiB": mebibytes(job.peak)}
        for name, job in (("ours", ours), ("stock", stock))
    ]
    rows[0]["agreement"] = float((labels == theirs).mean())
    rows[0]["classes_found"] = len(np.unique(labels))
    bars = [
        Bar("seconds of ours / of stock", ours.seconds / stock.seconds, 0.18),
        Bar("peak memory of ours / of stock", ours.peak / stock.peak, 0.2),
    ]
    return report(options, "whole_job", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
