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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Bar, in_own_process, mebibytes, parse, peak_bytes, report, reset_peak

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


def agreement(one: np.ndarray, other: np.ndarray, classes: int) -> dict[str, float]:
    """Return the share of voxels with another label, and the mean Dice of the classes between two label maps."""
    from classscale_training.evaluation.dice import case_dice, foreground_mean
    from ClassScaleSegLib.images.counts import overlap_counts

    dice = case_dice(overlap_counts(one.astype(np.int64), other.astype(np.int64), classes)[None])
    return {"differ": float((one != other).mean()), "dice": round(foreground_mean(dice[0]), 4)}


def samples(quick: bool) -> list[dict[str, Any]]:
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.resources import resource

    rows = []
    for name, sample in list(SAMPLES.items())[: 1 if quick else None]:
        model = open_model(resource("Models", f"{name}.zip"))
        exact, found = (
            segment(resource("SampleData", f"{sample}.nrrd"), model, device="cpu", bfloat16=reduced).labels
            for reduced in (False, True)
        )
        rows.append({"what": f"sample of {name}", **agreement(exact, found, model.classes)})
    return rows


def real_heads(quick: bool) -> list[dict[str, Any]]:
    from ClassScaleSegLib import open_model, segment
    from miccai2012 import EMBEDDED
    from real_heads import two_ways

    def segmented(file: Path, reduced: bool) -> np.ndarray:
        return segment(file, open_model(EMBEDDED), device="cpu", bfloat16=reduced).labels

    ways = {name: partial(segmented, reduced=name == "bfloat16") for name in ENGINES[1:]}
    return two_ways(ways, 1 if quick else None)


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
