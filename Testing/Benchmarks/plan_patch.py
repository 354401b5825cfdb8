"""Compare what nnU-Net's planners and ours plan for 2, 118 and 1001 classes: patch and batch size.

The dataset consists of whole-body CTs at 1.5 mm. Only its fingerprint exists, because planning reads no images. The
results are ``results/plan_patch.json``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from measure import Bar, parse, report

SHAPE, SPACING = (350, 400, 420), (1.5, 1.5, 1.5)
CASES = 1000


def write_dataset(root: Path, dataset_id: int, classes: int) -> None:
    import SimpleITK as sitk

    name = f"Dataset{dataset_id:03d}_Classes{classes}"
    raw, preprocessed = root / "raw" / name, root / "preprocessed" / name
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True)
    image = sitk.GetImageFromArray(np.zeros((2, 2, 2), np.int16))  # planning only chooses a reader for it
    sitk.WriteImage(image, str(raw / "imagesTr" / "case_0000.nii.gz"))
    sitk.WriteImage(image, str(raw / "labelsTr" / "case.nii.gz"))
    labels = {"background": 0, **{f"structure {value}": value for value in range(1, classes)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(dataset))
    fingerprint = {
        "spacings": [SPACING],
        "shapes_after_crop": [SHAPE],
        "foreground_intensity_properties_per_channel": {"0": {}},
        "median_relative_size_after_cropping": 1.0,
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))


def main() -> int:
    options = parse(__doc__, "plan_patch")
    for name in ("raw", "preprocessed"):
        shutil.rmtree(options.root / name, ignore_errors=True)
        os.environ[f"nnUNet_{name}"] = str(options.root / name)
    os.environ["nnUNet_n_proc_DA"] = "1"  # stock's planner needs at least one
    from classscale_training.nnunet.planner import PLANNERS

    counts = {101: 2, 102: 118, 103: 1001}
    for dataset_id, classes in counts.items():
        write_dataset(options.root, dataset_id, classes)
    rows, voxels = [], {}
    for name, ours in list(PLANNERS.items())[: 1 if options.quick else None]:
        stock = next(base for base in ours.__mro__ if base.__name__ == name)
        for side, planner in (("stock", stock), ("ours", ours)):
            for dataset_id, classes in counts.items():
                with contextlib.redirect_stdout(io.StringIO()):
                    plan = planner(dataset_id).plan_experiment()["configurations"]["3d_fullres"]
                patch = [int(size) for size in plan["patch_size"]]
                row = {"planner": name, "side": side, "classes": classes, "patch": patch, "batch": plan["batch_size"]}
                rows.append(row)
                voxels[name, side, classes] = int(np.prod(patch)) * plan["batch_size"]
    default = next(iter(PLANNERS))
    bars = [Bar("voxels of our patch at 1001 classes", voxels[default, "ours", 1001] / 2, 128**3, at_least=True)]
    bars += [
        Bar(
            f"{name}: our voxels a step at 1001 classes, as a share of those at 2",
            voxels[name, "ours", 1001] / voxels[name, "ours", 2],
            1.0,
            at_least=True,
        )
        for name in dict.fromkeys(row["planner"] for row in rows)
    ]
    return report(options, "plan_patch", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
