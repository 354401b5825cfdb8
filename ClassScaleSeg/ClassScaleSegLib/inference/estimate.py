"""How much memory a job takes, before it starts.

No term has the number of classes in it. Only where C is below the channels of all folds, and the logits themselves are
the smaller basis, does it count in place of those. The formula takes plain numbers, so that the panel can say what a
model will take without torch and without its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .memory import Placement

if TYPE_CHECKING:
    from ..models.model import Model
    from ..models.summary import ModelSummary

_INTERPRETER = 450 << 20  # Python with torch, nnunetv2 and SimpleITK loaded, and a tile of logits: measured
_CUDA_CONTEXT = 600 << 20
# Feature maps of the full resolution that live at once where memory peaks, counted in maps of the first stage. Measured
# on a CPU with TotalSegmentator's network: 5.2 in float32, the library's reordered copies included.
_PEAK_MAPS = 5.5
# At its peak nnU-Net's preprocessing holds the image in float32, a float64 copy of it for the spline, and the result.
_PREPROCESS_BYTES = 16
_USUAL_PARAMETERS = 31_000_000  # of nnU-Net's default network, where a summary could not tell


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a model that decide about memory.

    :ivar patch: voxels, two or three axes, in the model's axis order.
    :ivar spacing: mm, of the same axes.
    :ivar features: of the first stage.
    :ivar parameters: of all folds together.
    :ivar rank: channels of the basis, all folds together.
    :ivar channels: of the input.
    :ivar transpose: for each axis of the model the axis (z, y, x) of the image.
    """

    patch: tuple[int, ...]
    spacing: tuple[float, ...]
    features: int
    parameters: int
    rank: int
    channels: int
    transpose: tuple[int, ...] = (0, 1, 2)

    @classmethod
    def of_model(cls, model: Model) -> ModelSize:
        features = model.configuration.network_arch_init_kwargs["features_per_stage"]
        return cls(
            patch=model.patch,
            spacing=tuple(float(s) for s in model.configuration.spacing),
            features=features if isinstance(features, int) else features[0],
            parameters=sum(p.numel() for network in model.backbones for p in network.parameters()),
            rank=model.rank,
            channels=model.channels,
            transpose=tuple(model.plans_manager.transpose_forward),
        )

    @classmethod
    def of_summary(cls, summary: ModelSummary) -> ModelSize:
        """What `of_model` gives, weights of the last layer apart."""
        folds = len(summary.folds)
        parameters = _USUAL_PARAMETERS if summary.parameters is None else summary.parameters
        return cls(
            patch=tuple(summary.patch),
            spacing=tuple(summary.spacing),
            features=summary.features,
            parameters=parameters * folds,
            rank=min(summary.features * folds, summary.classes),
            channels=summary.channels,
        )


@dataclass(frozen=True)
class Estimate:
    """Bytes, but for the first two.

    :ivar grid: shape on the model grid.
    :ivar windows: their number.
    :ivar network: weights and feature maps of one window.
    :ivar basis: of one window, float32.
    :ivar ring: the rolling basis.
    :ivar preprocess: the most that nnU-Net's preprocessing holds.
    :ivar image: what is left of it, on the model grid.
    :ivar labels: the label map, and confidence.
    """

    grid: tuple[int, int, int]
    windows: int
    network: int
    basis: int
    ring: int
    preprocess: int
    image: int
    labels: int

    def placement(self, compute: str, ring: str) -> Placement:
        held = self.image + (self.ring if ring == "cpu" else 0)
        if compute == "cpu":
            device, held = 0, held + self.network + self.basis
        else:  # autocast halves the feature maps; the basis stays float32
            device = _CUDA_CONTEXT + self.network // 2 + self.basis + (self.ring if ring == compute else 0)
        return Placement(compute, ring, device, _INTERPRETER + self.labels + max(self.preprocess, held))

    def placements(self, device: str) -> list[Placement]:
        """All that a run on ``device`` may use, fastest first: the rolling basis moves away, then the network."""
        pairs = [("cpu", "cpu"), ("cpu", "disk")] if self.ring else [("cpu", "cpu")]
        if device != "cpu":
            pairs = [(device, device), *([(device, "cpu")] if self.ring else []), *pairs]
        return [self.placement(*pair) for pair in pairs]


def estimate(
    model: Model, shape: tuple[int, int, int], spacing: tuple[float, float, float], step: float, confidence: bool
) -> Estimate:
    """For an image ``shape`` with ``spacing`` mm, both (z, y, x), in the orientation that the model reads."""
    return estimate_from_size(ModelSize.of_model(model), shape, spacing, step, confidence)


def estimate_from_summary(
    summary: ModelSummary,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    step: float = 0.5,
    confidence: bool = False,
) -> Estimate:
    """The same before a model is opened; imports neither torch nor nnunetv2."""
    return estimate_from_size(ModelSize.of_summary(summary), shape, spacing, step, confidence)


def estimate_from_size(
    size: ModelSize, shape: Sequence[int], spacing: Sequence[float], step: float, confidence: bool
) -> Estimate:
    """The formula: ``shape`` and ``spacing`` mm of the image are (z, y, x)."""
    grid = model_grid(size, shape, spacing)
    flat = len(size.patch) == 2
    full = (1, *size.patch) if flat else size.patch
    padded = tuple(max(g, p) for g, p in zip(grid, full, strict=True))
    windows = window_count(padded[-len(size.patch) :], size.patch, step) * (padded[0] if flat else 1)
    voxels = math.prod(full)
    return Estimate(
        grid=grid,
        windows=windows,
        network=4 * size.parameters + int(_PEAK_MAPS * size.features * voxels * 4),
        basis=size.rank * voxels * 4,
        ring=(size.rank + 1) * 4 * full[0] * math.prod(padded[1:]) if windows > 1 else 0,
        preprocess=size.channels * (_PREPROCESS_BYTES * math.prod(shape) + 4 * math.prod(grid)),
        image=4 * size.channels * math.prod(padded),
        labels=math.prod(shape) * (6 if confidence else 2),
    )


def model_grid(size: ModelSize, shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int, int]:
    """Shape on the model grid of an uncropped image, the largest it can get: nnU-Net's ``compute_new_shape``."""
    spacing = [spacing[axis] for axis in size.transpose]
    target = size.spacing if len(size.spacing) == 3 else (spacing[0], *size.spacing)
    shape = [shape[axis] for axis in size.transpose]
    return tuple(round(s / t * n) for s, t, n in zip(spacing, target, shape, strict=True))


def window_count(shape: Sequence[int], patch: Sequence[int], step: float) -> int:
    """How many windows nnU-Net's ``compute_steps_for_sliding_window`` places, at most ``step`` patches apart."""
    counts = (math.ceil((n - p) / (p * step)) + 1 for n, p in zip(shape, patch, strict=True))
    return math.prod(counts)


def largest(estimates: Sequence[Estimate]) -> Estimate:
    """Of several models that run one after the other over the same image: of each entry the most.

    With more than one, the label map of all and that of one part exist together.
    """
    most = {field.name: max(getattr(need, field.name) for need in estimates) for field in fields(Estimate)}
    return Estimate(**{**most, "labels": most["labels"] * min(len(estimates), 2)})


def describe_need(need: Estimate, device: str) -> str:
    """What a run will take, as people are told before it starts.

    :param device: "cpu", "cuda", "cuda:1", "mps"; "auto" names both the GPU and the CPU, since which of them it will
        be is known to torch alone.

    >>> describe_need(need, "cuda")  # doctest: +SKIP
    'about 2.9 GB of GPU memory and 1.1 GB of RAM; does not grow with the number of classes'
    """
    host = f"{need.placement('cpu', 'cpu').host_bytes / 1e9:.1f} GB of RAM"
    if device == "cpu":
        text = f"about {host}"
    else:
        gpu = need.placement("cuda" if device == "auto" else device, "cuda" if device == "auto" else device)
        text = f"about {gpu.device_bytes / 1e9:.1f} GB of GPU memory and {gpu.host_bytes / 1e9:.1f} GB of RAM"
        text += f" (without a GPU {host})" if device == "auto" else ""
    return f"{text}; does not grow with the number of classes"
