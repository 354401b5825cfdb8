"""Measure the Dice on the toy atlas for different numbers of classes, and for different ranks of the basis.

    python Testing/Benchmarks/toy_sweep.py [--quick] [--root FOLDER]

Each point is a separate training. All have the same schedule: 800 volumes, one per step, one thread, bfloat16. The
result is the mean Dice over eight unseen volumes by both rules.

* classes: 10 to 1000 at 48^3, with 16 channels in the finest stage of the network, rank 16. The volume always has the
  same size, so with 1000 classes a cell has about 36 voxels and is 3.3 voxels wide. A border error of a tenth of a
  voxel costs such cells more than the cells of 10 classes, which are 15 voxels wide.
* rank: 4 to 64, for 100 classes at 32^3, with 64 channels in the finest stage of the network. For ranks below 64, a
  1x1x1 convolution in front of the projection reduces the channels to the rank (:class:`LowRankUNet`).

Results of finished trainings are kept in the root folder, so the same command continues a stopped sweep. The results
are ``results/toy_sweep.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from classscale_training import CrossEntropyDiceLoss
from classscale_training.loop.options import LoopOptions
from classscale_training.network.plain_unet import PlainUNet
from measure import Bar, in_own_process, parse, report
from torch import nn
from toy_training import train_on_toy

RANK = 16
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "classes": [
        {"classes": classes, "rank": RANK, "size": 48, "features": [RANK, 24, 32, 48]}
        for classes in (10, 50, 100, 200, 500, 1000)
    ],
    "rank": [
        {"classes": 100, "rank": rank, "size": 32, "features": [64, 32, 32, 48]}  # 64, the largest rank
        for rank in (4, 8, 16, 32, 64)
    ],
}


class LowRankUNet(PlainUNet):
    """A network whose basis has fewer channels than its finest stage."""

    def __init__(self, arch_kwargs: dict[str, Any], classes: int, rank: int) -> None:
        super().__init__(arch_kwargs, 1, classes)
        self.basis = nn.Conv3d(arch_kwargs["features_per_stage"][0], rank, 1)
        self.projection = nn.Conv3d(rank, classes, 1)
        for layer in (self.basis, self.projection):
            nn.init.kaiming_normal_(layer.weight, a=1e-2)
            nn.init.zeros_(layer.bias)

    @property
    def head(self) -> nn.Conv3d:
        return self.projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the basis ``(B, rank, X, Y, Z)``."""
        return self.basis(super().forward(x))


def train(classes: int, rank: int, size: int, features: list[int], steps: int, folder: str) -> dict[str, float]:
    """Train; return seconds, last loss and both mean Dice scores over unseen volumes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = LoopOptions(
        Path(folder), classes=classes, size=size, features=tuple(features), convolutions=(1, 1, 2, 2),
        decoder_convolutions=(1, 1, 1), steps=steps, evaluation_cases=8, half_precision=True, device="cpu",
    )  # fmt: skip
    whole = rank == features[0]  # an additional layer would change nothing
    arch_kwargs = options.arch_kwargs()
    network = PlainUNet(arch_kwargs, 1, classes + 1) if whole else LowRankUNet(arch_kwargs, classes + 1, rank)
    loss = CrossEntropyDiceLoss()

    def loss_of_step(step: int, image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            basis = network(image[None])
        return loss(basis, network.head.weight.flatten(1), network.head.bias, labels[None])

    return train_on_toy(options, network, loss_of_step)


def main() -> int:
    options = parse(__doc__, "toy_sweep")
    if options.task:
        print(json.dumps(train(**options.task)))
        return 0
    rows = []
    for sweep, points in SWEEPS.items():
        for point in points[:2] if options.quick else points:
            task = point | ({"size": 32, "steps": 10} if options.quick else {"steps": 800})
            kept = options.root / f"{sweep}-{point[sweep]}{'-quick' * options.quick}.json"
            if not kept.exists():
                found = in_own_process(__file__, folder=str(options.root), **task)
                kept.write_text(json.dumps(found))
                print(sweep, point[sweep], found, flush=True)
            rows.append({"sweep": sweep, **task, **json.loads(kept.read_text())})
    dice = {(row["sweep"], row[row["sweep"]]): row["dice"] for row in rows}
    bars = []
    if not options.quick:
        lost = dice["rank", 64] - dice["rank", RANK]
        bars = [Bar(f"Dice that rank {RANK} loses against rank 64, at 100 classes", lost, 0.02)]
    return report(options, "toy_sweep", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
