"""What can be chosen for a pretraining, said once; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

RATES = {"sgd": 0.01, "adamw": 0.001}  # learning rate at the beginning, by optimiser


@dataclass(frozen=True)
class PretrainingOptions:
    """What can be chosen.

    :ivar epochs: number of epochs.
    :ivar steps: of an epoch; nnU-Net has 250.
    :ivar optimizer: "sgd" as in nnU-Net and nnssl, or "adamw", which learns faster in a short pretraining.
    :ivar learning_rate: at the beginning; it falls to 0 as nnU-Net's does.
    :ivar mask_ratio: share of the blocks that are hidden.
    :ivar block: side of the blocks in voxels; None for a voxel of the bottleneck.
    :ivar sparse: whether the encoder sees visible voxels alone (:class:`.MaskedAutoencoder`).
    :ivar seed: of the weights, the patches, and what is hidden of them.
    """

    epochs: int = 1000
    steps: int = 250
    optimizer: str = "sgd"
    learning_rate: float = RATES["sgd"]
    mask_ratio: float = 0.75
    block: int | None = None
    sparse: bool = False
    seed: int = 0
