"""Compare the engine in bfloat16 with the engine in float32, on a processor that has instructions for it.

    python Testing/Benchmarks/bfloat16.py [--root .benchmarks/bfloat16] [--quick]

* Seconds and peak memory of one patch of 128^3 voxels through two networks of nnU-Net's usual size (six stages, 32 to
  320 channels, random weights), beside the modules of stock nnU-Net called as its predictor calls them.
* The embedded models on their samples: which share of the voxels gets another label, and the mean Dice of the classes
  between both results.
* head-mr-312 on the fifteen real heads of MICCAI 2012: the mean Dice to the structures drawn by hand, of both results.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from measure import DATA, Bar, in_own_process, mebibytes, parse, peak_bytes, report, reset_peak

ENGINES = ("stock", "float32", "bfloat16")
SAMPLES = {"toy-120": "toy-120", "toy-1000": "toy-1000", "head-mr-312": "head-mr"}
STAGES, DEPTHS = (32, 64, 128, 256, 320, 320), {"PlainConvUNet": [2] * 6, "ResidualEncoderUNet": [1, 3, 4, 6, 6, 6]}


def one_patch(kind: str, engine: str, side: int, stages: int) -> dict[str, float]:
    """Return the seconds, the best of three, and the peak memory beyond weights and patch, in MiB."""
    import torch
    from ClassScaleSegLib.inference.network_slabs import SlabNetwork
    from dynamic_network_architectures.architectures import unet

    torch.manual_seed(0)
    depth = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    network = getattr(unet, kind)(
        input_channels=1,
        n_stages=stages,
        features_per_stage=STAGES[:stages],
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=[1] + [2] * (stages - 1),
        num_classes=32,
        n_conv_per_stage_decoder=(2 if kind == "PlainConvUNet" else 1),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **{depth: DEPTHS[kind][:stages]},
    ).eval()
    run = network if engine == "stock" else SlabNetwork(network, dtype=getattr(torch, engine))
    patch = torch.randn(1, 1, side, side, side)
    seconds = []
    with torch.inference_mode():
        run(patch[..., : side // 2, : side // 2, : side // 2])  # what is done once
        before = peak_bytes()
        reset_peak()
        before = min(before, peak_bytes())
        for _ in range(3):
            begin = time.perf_counter()
            run(patch)
            seconds.append(time.perf_counter() - begin)
    return {"seconds": round(min(seconds), 2), "MiB": mebibytes(peak_bytes() - before)}


def networks(quick: bool) -> list[dict[str, Any]]:
    side, stages = (32, 3) if quick else (128, 6)
    rows = []
    for kind in DEPTHS:
        for threads in (1,) if quick else (2,):
            for engine in ENGINES:
                figures = in_own_process(__file__, threads, kind=kind, engine=engine, side=side, stages=stages)
                rows.append({"what": kind, "threads": threads, "engine": engine, **figures})
    return rows


def samples(quick: bool) -> list[dict[str, Any]]:
    from classscale_training.evaluation.dice import case_dice, foreground_mean
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.images.counts import overlap_counts
    from ClassScaleSegLib.resources import resource

    rows = []
    for name, sample in list(SAMPLES.items())[: 1 if quick else None]:
        model = open_model(resource("Models", f"{name}.zip"))
        exact, found = (
            segment(resource("SampleData", f"{sample}.nrrd"), model, device="cpu", bfloat16=reduced).labels
            for reduced in (False, True)
        )
        dice = case_dice(overlap_counts(exact.astype(np.int64), found.astype(np.int64), model.classes)[None])
        agreement = {"differ": float((exact != found).mean()), "dice": round(foreground_mean(dice[0]), 4)}
        rows.append({"what": f"sample of {name}", **agreement})
    return rows


def real_heads(quick: bool) -> list[dict[str, Any]]:
    from classscale_training.evaluation.dice import case_dice, mean_over_cases
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.images.counts import overlap_counts
    from miccai2012 import EMBEDDED, shared_structures
    from raw_datasets import labels_of, people

    folder = DATA / "miccai2012"
    names, _cases = people(folder, 1)
    table, theirs, ours = shared_structures({name: value for value, name in names.items()}, EMBEDDED)
    theirs = np.pad(theirs, (0, 1000))  # labels that are not scored belong to no structure
    counts: dict[bool, list[np.ndarray]] = {False: [], True: []}
    differ = []
    for file in sorted(folder.glob("*_t1.nii.gz"))[: 1 if quick else None]:
        reference, model = (
            theirs[labels_of(file.with_name(file.name.replace("_t1", "_labels")))[0]],
            open_model(EMBEDDED),
        )
        both = {reduced: segment(file, model, device="cpu", bfloat16=reduced).labels for reduced in counts}
        differ.append((both[False] != both[True]).mean())
        for reduced, labels in both.items():
            counts[reduced].append(overlap_counts(reference, ours[labels], len(table) + 1)[:, 1:])
    dice = {reduced: mean_over_cases(case_dice(np.array(counted))) for reduced, counted in counts.items()}
    kinds = np.array([row["kind"] for row in table])
    return [
        {
            "what": f"{len(differ)} real heads, {(kinds == kind).sum()} {kind} structures",
            "differ": float(np.mean(differ)),
            "dice of float32": round(float(dice[False][kinds == kind].mean()), 4),
            "dice of bfloat16": round(float(dice[True][kinds == kind].mean()), 4),
            "largest change of a structure": round(float(abs(dice[True] - dice[False])[kinds == kind].max()), 4),
        }
        for kind in ("deep", "cortex")
    ]


def main() -> int:
    options = parse(__doc__, "bfloat16")
    if options.task:
        import json

        print(json.dumps(one_patch(**options.task)))
        return 0
    heads = real_heads(options.quick)
    rows = [*networks(options.quick), *samples(options.quick), *heads]
    lost = max(row["dice of float32"] - row["dice of bfloat16"] for row in heads)
    return report(options, "bfloat16", rows, [Bar("mean Dice by hand that bfloat16 loses on real heads", lost, 0.002)])


if __name__ == "__main__":
    sys.exit(main())
