"""Compare both engines on real mouse brains with 37 structures: stock nnU-Net trains on four, both segment the fifth.

    python Testing/Benchmarks/mouse.py prepare|train|compare [--root FOLDER] [--data FOLDER]

The images and labels (DAMA mouse brain atlas, FVB_NCrl) are under GPL-3. They are used for measurements only; the
project contains neither them nor the model. ``train`` continues from the last checkpoint if there is one. The
environment variable ``BENCHMARK_EPOCHS`` is the total number of epochs of 200 steps (default 5, about half an hour on
two threads). ``compare`` writes ``results/mouse.json``. Its seconds have little meaning, because nnU-Net is limited to
one process and one thread outside the network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATASET = "Dataset901_MouseFVB"
CONFIGURATION = "small"
TRAINER = "nnUNetTrainer_benchmark"


def environment(root: Path, threads: int) -> dict[str, str]:
    """Return the environment variables of nnU-Net, with values for small machines."""
    return {
        **os.environ,
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
        "nnUNet_extTrainer": str(HERE / "nnunet_trainers"),
        "nnUNet_n_proc_DA": "0",
        "nnUNet_def_n_proc": "1",
        "nnUNet_compile": "f",
        "OMP_NUM_THREADS": str(threads),
        "OMP_THREAD_LIMIT": str(threads),  # without a GPU, nnUNetv2_train uses every core
    }


def stock(root: Path, threads: int, *arguments: str) -> None:
    variables = environment(root, threads)
    if arguments[0] == "nnUNetv2_plan_and_preprocess":  # nnU-Net's planner needs at least one worker
        variables["nnUNet_n_proc_DA"] = "1"
    subprocess.run([sys.executable, str(HERE / "stock.py"), *arguments], env=variables, check=True)


def prepare(root: Path, data: Path, threads: int) -> None:
    """Write the raw dataset (labels renumbered to 1..37, cases 1 to 4 for training), plan and preprocess."""
    import numpy as np
    import SimpleITK as sitk

    raw = root / "raw" / DATASET
    for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    labels = [sitk.ReadImage(str(data / f"label_{i}.nii.gz"), sitk.sitkUInt8) for i in range(1, 6)]
    values = np.unique(np.concatenate([np.unique(sitk.GetArrayViewFromImage(x)) for x in labels]))
    for i, label in enumerate(labels, start=1):
        part = "Tr" if i < 5 else "Ts"
        renumbered = sitk.GetImageFromArray(np.searchsorted(values, sitk.GetArrayFromImage(label)).astype(np.uint8))
        renumbered.CopyInformation(label)
        sitk.WriteImage(renumbered, str(raw / f"labels{part}" / f"mouse_{i}.nii.gz"), True)
        image = sitk.ReadImage(str(data / f"image_{i}.nii.gz"))
        image.CopyInformation(label)
        sitk.WriteImage(image, str(raw / f"images{part}" / f"mouse_{i}_0000.nii.gz"), True)
    (raw / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "MR"},
                "labels": {"background": 0, **{f"structure {v}": i for i, v in enumerate(values) if i}},
                "numTraining": 4,
                "file_ending": ".nii.gz",
            }
        )
    )
    stock(root, threads, "nnUNetv2_plan_and_preprocess", "-d", "901", "--no_pp", "-npfp", "1")
    plans_file = root / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    architecture = json.loads(json.dumps(plans["configurations"]["3d_fullres"]["architecture"]))
    architecture["arch_kwargs"].update(
        n_stages=5,
        features_per_stage=[12, 24, 48, 96, 96],
        kernel_sizes=[[3, 3, 3]] * 5,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * 4,
        n_conv_per_stage=[1, 2, 2, 2, 2],
        n_conv_per_stage_decoder=[1] * 4,
    )
    plans["configurations"][CONFIGURATION] = {
        "inherits_from": "3d_fullres",
        "data_identifier": "nnUNetPlans_small",
        "patch_size": [48, 80, 64],
        "batch_size": 2,
        "architecture": architecture,
    }
    plans_file.write_text(json.dumps(plans, indent=2))
    stock(root, threads, "nnUNetv2_preprocess", "-d", "901", "-c", CONFIGURATION, "-np", "1")
    splits = [{"train": [f"mouse_{i}" for i in range(1, 5)], "val": ["mouse_4"]}]
    (root / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(splits))


def train(root: Path, threads: int) -> None:
    fold = root / "results" / DATASET / f"{TRAINER}__nnUNetPlans__{CONFIGURATION}" / "fold_0"
    found = any((fold / f"checkpoint_{name}.pth").exists() for name in ("latest", "final"))
    resume = ["--c"] if found else []  # after the last epoch, a larger BENCHMARK_EPOCHS continues from there
    stock(root, threads, "nnUNetv2_train", "901", CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu", *resume)


def compare(root: Path, threads: int, checkpoint: str) -> int:
    """Segment the fifth brain with both engines; write agreement, Dice and seconds to ``results/mouse.json``."""
    import time

    import numpy as np
    import SimpleITK as sitk
    from measure import Bar, report

    raw, stock_folder = root / "raw" / DATASET, root / "stock"
    begin = time.perf_counter()
    inputs = ["-i", str(raw / "imagesTs"), "-o", str(stock_folder), "-d", "901", "-c", CONFIGURATION, "-f", "0"]
    workers = ["-tr", TRAINER, "-device", "cpu", "-npp", "1", "-nps", "1", "-chk", f"checkpoint_{checkpoint}.pth"]
    stock(root, threads, "nnUNetv2_predict", *inputs, *workers)
    stock_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    ours_file = root / "ours" / "mouse_5.nii.gz"
    command = ["segment", str(raw / "imagesTs" / "mouse_5_0000.nii.gz"), "-o", str(ours_file), "--overwrite"]
    command += ["-m", str(root / "results" / DATASET / f"{TRAINER}__nnUNetPlans__{CONFIGURATION}")]
    command += ["--device", "cpu", "--threads", str(threads), "--checkpoint", checkpoint]
    subprocess.run([sys.executable, "-m", "ClassScaleSegLib", *command], env=environment(root, threads), check=True)
    seconds = time.perf_counter() - begin

    def read(file: Path) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(np.int64)

    def dice(labels: np.ndarray) -> float:
        both = np.bincount(truth[labels == truth], minlength=38)
        total = np.bincount(labels.ravel(), minlength=38) + np.bincount(truth.ravel(), minlength=38)
        return float((2 * both / total)[1:].mean())

    truth, theirs = read(raw / "labelsTs" / "mouse_5.nii.gz"), read(stock_folder / "mouse_5.nii.gz")
    ours = read(ours_file)
    agreement, both = float((ours == theirs).mean()), {"ours": dice(ours), "stock": dice(theirs)}
    rows = [
        {"engine": engine, "dice": both[engine], "seconds, whole command": round(duration, 2), "threads": threads}
        for engine, duration in (("ours", seconds), ("stock", stock_seconds))
    ]
    bars = [
        Bar("share of voxels in which the label maps agree", agreement, 0.995, at_least=True),
        Bar("difference of mean Dice", abs(both["ours"] - both["stock"]), 0.002),
        Bar("mean Dice of stock on the brain that was not trained on", both["stock"], 0.6, at_least=True),
    ]
    return report(argparse.Namespace(quick=False, root=root), "mouse", rows, bars)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "train", "compare"])
    parser.add_argument("--root", type=Path, default=Path(".benchmarks/mouse"))
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data" / "mouse_fvb")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--checkpoint", choices=("final", "best"), default="final", help="checkpoint to compare")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    if arguments.step == "prepare":
        prepare(root, arguments.data, arguments.threads)
    elif arguments.step == "train":
        train(root, arguments.threads)
    else:
        sys.exit(compare(root, arguments.threads, arguments.checkpoint))


if __name__ == "__main__":
    main()
