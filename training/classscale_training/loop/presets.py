"""Presets of the bare loop: the options of the embedded models and of other trainings."""

from __future__ import annotations

from typing import Any

_BRAIN: dict[str, Any] = {
    "data": "brain:.benchmarks/brain/label_maps.npz",
    "deep_supervision": True,
    "half_precision": True,
    "present_only": True,
}
_BRAIN_ON_A_GPU: dict[str, Any] = {
    **_BRAIN,
    "batch": 2,
    "learning_rate": 1.5e-3,
    "warm_up": 3000,
    "balance": 0.3,
    "workers": 14,
    "evaluate_every": 1000,
}
_HEAD_AT_2_MM: dict[str, Any] = {
    "patch": (112, 128, 96),
    "features": (32, 64, 96, 128, 160),
    "convolutions": (1, 2, 2, 2, 3),
    "decoder_convolutions": (2, 2, 2, 1),
    "loss_stride": 4,
    "finest_every": 2,
    "prefetch": 3,
}
PRESETS: dict[str, dict[str, Any]] = {
    # The embedded model with 120 classes. Measured: 77 minutes on one CPU thread, mean Dice 0.979 on unseen volumes.
    "toy-120": {},
    # 1000 classes at 128^3 on one H100 or H200, in slices of ten minutes; a checkpoint has at most 40 MB, so that
    # another machine can continue. Not run yet; the estimate is about 0.15 s per step, 15 minutes in total, and less
    # than 8 GiB of GPU memory. A cell is 9 voxels wide, as in toy-120.
    "toy-1000": {
        "classes": 1000,
        "size": 128,
        "features": (32, 64, 96, 112, 112, 112),  # nnU-Net plans up to 320, and the checkpoint would have 384 MB
        "convolutions": (2, 2, 2, 2, 2, 2),
        "decoder_convolutions": (2, 2, 2, 2, 2),
        "steps": 6000,
        "learning_rate": 1e-3,
        "half_precision": True,
        "prefetch": 4,
        "minutes": 9.0,
        "checkpoint_minutes": 3.0,
        "small_checkpoints": True,
    },
    # 1000 classes on one CPU thread. Measured: 47 minutes, mean Dice 0.952 over all classes. A cell is 4.4 voxels wide.
    "toy-1000-cpu": {
        "classes": 1000,
        "features": (24, 32, 48, 64, 64),
        "steps": 2100,
        "half_precision": True,
        "log_every": 50,
        "evaluate_every": 250,
    },
    # The embedded brain model: 311 structures of a head and the background at 2 mm. A patch holds a whole head.
    # Measured: 18 minutes on one H100 and 14 CPU cores.
    "head-mr-312": {
        **_BRAIN_ON_A_GPU,
        **_HEAD_AT_2_MM,
        "steps": 13730,
        "checkpoint_minutes": 1.0,
    },
    # The embedded brain model trained further, on heads that are mirrored and bent more: the atlas shows one person,
    # whose asymmetry and proportions of the gyri others do not share. Not run on a GPU yet.
    "head-mr-312-further": {
        **_BRAIN_ON_A_GPU,
        **_HEAD_AT_2_MM,
        "weights": "Resources/Models/head-mr-312.zip",
        "deep_supervision": False,  # a bundle lacks the coarser heads; random ones begin with a large loss
        "finest_every": 1,
        "warm_up": 0,
        "atlas_share": 0.6,
        "mirrored": 0.5,
        "deformation": 4.5,
        "steps": 6000,
        "learning_rate": 7e-4,
        "minutes": 9.0,
        "checkpoint_minutes": 3.0,
        "small_checkpoints": True,
    },
    # A smaller network and patch for one CPU thread; a patch holds nearly the whole brain. The predecessor of the
    # embedded model was trained with nearly these options in 81 minutes.
    "head-mr-312-cpu": {
        **_BRAIN,
        "features": (16, 32, 64, 96, 96),
        "steps": 7200,
        "warm_up": 1500,
        "balance": 0.35,
        "loss_stride": 4,
        "finest_every": 4,
        "checkpoint_minutes": 3.0,
        "log_every": 20,
        "evaluate_every": 200,
    },
    # At 1 mm on one GPU, with the coarse scales of head-mr-312. Not run yet, so the time it needs is not known.
    "head-mr-312-1mm": {
        **_BRAIN_ON_A_GPU,
        "patch": (192, 224, 160),
        "spacing": 1.0,
        "features": (16, 32, 64, 96, 128, 160),
        "convolutions": (1, 1, 2, 2, 2, 3),
        "decoder_convolutions": (2, 2, 2, 1, 1),
        "steps": 20000,
        "loss_stride": 8,
        "finest_every": 3,
        "prefetch": 2,
        "minutes": 9.0,
        "checkpoint_minutes": 3.0,
        "small_checkpoints": True,
    },
}
