"""Estimate the memory that a job takes, before it starts.

No term depends on the number of classes C, with two exceptions: if C is below the number of channels of all folds, the
logits are the smaller basis, and C is its rank. So it is with a stock Primus, which has no other basis. The formula
takes plain numbers, so that the panel can show an estimate without torch and without the model's weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ..models.preprocessing import Auto3DSeg, Conform, Preprocessing
from ..models.summary import ModelSummary
from .auto3dseg import model_length
from .conform import conformed_length
from .image_slabs import ROWS, slices_in_slab
from .memory_plan import Placement
from .tiling import Tiling

if TYPE_CHECKING:
    from ..models.model import Model

# Python with torch, nnunetv2 and SimpleITK loaded, threads, and a tile of logits: measured with
# Testing/Benchmarks/large_scan.py
_INTERPRETER = 620 << 20
_CUDA_CONTEXT = 600 << 20
# Feature maps of the full resolution that exist at once where memory peaks, in units of the first stage's maps, when
# the network runs module by module. Measured on a CPU with TotalSegmentator's network: 5.2 in float32, including
# reordered copies that the library makes.
_PEAK_MAPS = 5.5
# The same slab by slab (`network_slabs`): maps, and bytes of slabs and of what oneDNN needs for them. Measured on a CPU
# with patches of 64^3 to 160^3 and 16 to 64 channels.
_IN_SLABS = {False: (1.35, 85 << 20), True: (2.0, 50 << 20)}  # without and with residual blocks
_SPLINE_REACH = 21  # slices to each side that count for a row of the model grid, see `axis_resize`
_ANISOTROPIC = 3  # nnU-Net's ANISO_THRESHOLD
_SLAB_COPIES = 3  # of a slab of the image, while it is normalised and resized in its plane


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a model that determine how much memory it takes."""

    patch: tuple[int, ...]  # voxels along two or three axes, in the model's axis order
    spacing: tuple[float, ...]  # mm, along the same axes
    features: int  # channels of one fold's basis; of a U-Net, also those of its first stage
    parameters: int  # of all folds together
    rank: int  # channels of the basis, all folds together, and both sides if they are exchanged
    channels: int  # of the input
    residual: bool = False  # the encoder has residual blocks
    transpose: tuple[int, ...] = (0, 1, 2)  # for each axis of the model, the axis (z, y, x) of the image
    peak_channels: int = 0  # of a Primus, numbers for each voxel of the patch where its memory peaks
    grows: bool = False  # the basis is the logits, because the network has no projection
    preprocessing: Preprocessing | None = None  # nnU-Net's

    @classmethod
    def of(cls, model: Model | ModelSummary, mirroring: bool = True) -> ModelSize:
        """Return the size of a model; a summary has the parameters of the last layer too.

        :param mirroring: whether mirrored patches are averaged, which doubles the basis if their sides are exchanged.
        """
        folds = len(model.folds)
        rank = min(model.features * folds, model.classes)
        if mirroring and model.swap_sides and model.projects and model.features * folds <= model.classes:
            rank *= 2
        more: dict = {"peak_channels": model.peak_channels, "grows": not model.projects}
        more["preprocessing"] = model.preprocessing
        if isinstance(model, ModelSummary):
            parameters = folds * model.parameters
            sizes = (model.features, parameters, rank, model.channels, model.residual)
            return cls(model.patch, model.spacing, *sizes, **more)
        parameters = sum(p.numel() for network in model.backbones for p in network.parameters())
        spacing, transpose = tuple(model.configuration.spacing), tuple(model.plans_manager.transpose_forward)
        sizes = (model.features, parameters, rank, model.channels, model.residual)
        return cls(model.patch, spacing, *sizes, transpose, **more)


@dataclass(frozen=True)
class Estimate:
    """What a job takes; everything but ``grid`` and ``windows`` is in bytes.

    :ivar grid: shape of the image on the model grid, in the model's axis order.
    :ivar windows: number of windows.
    :ivar network: weights, and feature maps of one window, float32, on an accelerator.
    :ivar network_in_slabs: the same on a CPU, where the network runs slab by slab.
    :ivar basis: basis of one window, float32.
    :ivar ring: the rolling basis; 0 if there is only one window.
    :ivar stored: the image as stored.
    :ivar slabs: slabs of all its channels in float64, normalised and resampled along two axes.
    :ivar image: the preprocessed image on the model grid.
    :ivar rows: its rows that windows need at a time; all, if another axis than the first is resampled separately.
    :ivar labels: the label map, and the confidence if wanted, on the input grid.
    :ivar read: the most that reading holds: the image as stored, and one channel more while it is copied to the others.
    :ivar grows: some of this grows with the number of classes, because the network has no projection.
    """

    grid: tuple[int, int, int]
    windows: int
    network: int
    network_in_slabs: int
    basis: int
    ring: int
    stored: int
    slabs: int
    image: int
    rows: int
    labels: int
    read: int = 0
    grows: bool = False

    def rolls(self, compute: str) -> bool:
        """Return whether the image is preprocessed as windows need its rows, instead of before the first window.

        On a CPU this takes as long, so it is done where it takes less memory. Beside a GPU it takes less time.

        :param compute: torch device of the network.
        """
        return compute != "cpu" or self.stored + self.slabs + self.rows < self.image

    def placement(self, compute: str, ring: str) -> Placement:
        """Return the placement with its memory.

        :param compute: torch device of the network.
        :param ring: torch device of the rolling basis, or "disk".
        """
        held = self.labels + (self.ring if ring == "cpu" else 0)
        if compute == "cpu":
            device, held = 0, held + self.network_in_slabs + self.basis
        else:  # autocast halves the feature maps; the basis stays float32
            device = _CUDA_CONTEXT + self.network // 2 + self.basis + self.slabs + (self.ring if ring == compute else 0)
        if self.rolls(compute):
            host = max(self.read, self.stored + self.slabs + self.rows + held)
        else:
            host = max(self.read, self.stored + self.slabs + self.image, self.image + held)
        return Placement(compute, ring, device, _INTERPRETER + host)

    def placements(self, device: str) -> list[Placement]:
        """Return what a job on ``device`` may use, fastest first: first the rolling basis moves off, then the network.

        :param device: a torch device.

        >>> network = {"network": 400 << 20, "network_in_slabs": 200 << 20, "basis": 20 << 20, "ring": 60 << 20}
        >>> image = {"stored": 2 << 20, "slabs": 9 << 20, "image": 4 << 20, "rows": 2 << 20, "labels": 2 << 20}
        >>> need = Estimate((96, 96, 96), 8, **network, **image)
        >>> for placement in need.placements("cuda"):
        ...     print(placement)
        network on the GPU, rolling basis on the GPU
        network on the GPU, rolling basis in main memory
        network on the CPU, rolling basis in main memory
        network on the CPU, rolling basis in a temporary file
        """
        pairs = [("cpu", "cpu"), ("cpu", "disk")] if self.ring else [("cpu", "cpu")]
        if device != "cpu":
            pairs = [(device, device), *([(device, "cpu")] if self.ring else []), *pairs]
        return [self.placement(*pair) for pair in pairs]


def estimate(
    model: Model | ModelSummary,
    shape: Sequence[int],
    spacing: Sequence[float],
    step: float | None = None,
    confidence: bool = False,
    voxel_bytes: int = 2,
    mirroring: bool = True,
    part: Sequence[int] | None = None,
) -> Estimate:
    """Estimate what a model takes for one image. With a summary, neither torch nor nnunetv2 is imported.

    :param model: as `open_model` or `summarize` returns it.
    :param shape: voxels of the image (z, y, x), in the orientation that the model reads.
    :param spacing: mm, in the same order.
    :param step: distance between windows, as a fraction of the patch; ``None``: that of the model.
    :param confidence: whether the confidence is computed as well.
    :param voxel_bytes: bytes of a voxel as stored, 2 for int16.
    :param mirroring: whether mirrored patches are averaged.
    :param part: voxels of a box (z, y, x) to which the result is limited; ``None``: the whole image.

    >>> from ClassScaleSegLib.models.summary import summarize
    >>> from ClassScaleSegLib.resources import resource
    >>> toy = summarize(resource("Models", "toy-120.zip"))
    >>> need = estimate(toy, shape=(96, 96, 96), spacing=(1.5, 1.0, 1.0))
    >>> need.grid, need.windows
    ((72, 48, 48), 2)
    """
    size = ModelSize.of(model, mirroring)
    grid = whole = model_grid(size, shape, spacing)
    flat, patch = len(size.patch) == 2, size.patch
    if isinstance(size.preprocessing, Conform):  # the network sees the whole grid at once
        patch = whole
    full = (1, *patch) if flat else patch
    at_once = _separate_axis(size, spacing) in (None, 0)
    if part is not None:  # up to three voxels more than it has, because it begins and ends between voxels of the grid
        x, y, z = (min(n, max(b + 3, p)) for n, b, p in zip(whole, model_grid(size, part, spacing), full, strict=True))
        grid = (x, y, z)
    padded = tuple(max(g, p) for g, p in zip(grid, full, strict=True))
    tiling = Tiling(patch, model.usual_step if step is None else step, model.even_windows)
    windows = math.prod(tiling.counts(padded[-len(patch) :])) * (padded[0] if flat else 1)
    voxels, parameters = math.prod(full), 4 * size.parameters
    maps, basis = 4 * size.features * voxels, 4 * size.rank * voxels
    stored = size.channels * math.prod(shape) * voxel_bytes
    image = 4 * size.channels * math.prod(grid if at_once else whole)  # of which a box is copied
    share, beside = _IN_SLABS[size.residual]
    peak, in_slabs = int(_PEAK_MAPS * maps), int(share * maps) + min(beside, 2 * maps)
    if size.peak_channels:  # a Primus is not run slab by slab
        peak = in_slabs = 4 * size.peak_channels * voxels
    return Estimate(
        grid=grid,
        windows=windows,
        network=parameters + peak,
        network_in_slabs=parameters + in_slabs,
        # the last feature map of a single fold is its basis
        basis=basis if mirroring or size.rank != size.features else 0,
        ring=(size.rank + 1) * 4 * full[0] * math.prod(padded[1:]) if windows > 1 else 0,
        stored=stored,
        slabs=size.channels * _slab_bytes(size, shape, whole),
        image=image,
        rows=min(image, 2 * image * full[0] // max(grid[0], 1)) if at_once else image,
        labels=math.prod(shape) * (6 if confidence else 2),
        read=stored + (stored // size.channels if size.channels > 1 else 0),
        grows=size.grows,
    )


def _slab_bytes(size: ModelSize, shape: Sequence[int], grid: Sequence[int]) -> int:
    """Return the bytes of one channel's slices that are held while it is resampled."""
    length, height, width = (shape[axis] for axis in size.transpose)
    slab = slices_in_slab((height, width))
    kept = min(length, round(ROWS * length / max(grid[0], 1)) + 2 * _SPLINE_REACH + slab)
    return 8 * (kept * grid[1] * grid[2] + _SLAB_COPIES * min(length, slab) * height * width)


def _separate_axis(size: ModelSize, spacing: Sequence[float]) -> int | None:
    """Return the axis of the model that nnU-Net's default resamples separately, because voxels are long along it."""
    if size.preprocessing is not None:
        return None
    spacing = [spacing[axis] for axis in size.transpose]
    target = size.spacing if len(size.spacing) == 3 else (spacing[0], *size.spacing)
    for values in (spacing, target):
        if max(values) > _ANISOTROPIC * min(values):
            return list(values).index(max(values))
    return None


def model_grid(size: ModelSize, shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int, int]:
    """Return the shape of the uncropped image on the model grid, which is the largest it can get.

    It is that of nnU-Net's ``compute_new_shape``, or of the model's own preprocessing.

    :param shape: voxels of the image (z, y, x); ``spacing`` in mm, in the same order.
    :returns: voxels on the model grid, in the model's axis order.
    """
    spacing = [spacing[axis] for axis in size.transpose]
    target = size.spacing if len(size.spacing) == 3 else (spacing[0], *size.spacing)
    shape = [shape[axis] for axis in size.transpose]
    if isinstance(size.preprocessing, Auto3DSeg):
        x, y, z = (model_length(n, s, t) for n, s, t in zip(shape, spacing, target, strict=True))
        return x, y, z
    if isinstance(size.preprocessing, Conform):
        sides = zip(shape, spacing, target, size.patch, strict=True)
        x, y, z = (conformed_length(*side) for side in sides)
        return x, y, z
    x, y, z = (round(s / t * n) for s, t, n in zip(spacing, target, shape, strict=True))
    return x, y, z


def largest(estimates: Sequence[Estimate]) -> Estimate:
    """Return the estimate for several models that segment the same image in turn: the largest value of each field.

    With more than one model, the merged label map and that of the current model exist together.
    """
    most = {field.name: max(getattr(need, field.name) for need in estimates) for field in fields(Estimate)}
    return Estimate(**{**most, "labels": most["labels"] * min(len(estimates), 2)})


def describe_need(need: Estimate, device: str) -> str:
    """Describe what a job takes, in words that users see before it starts.

    :param need: the estimate.
    :param device: "cpu", "cuda", "cuda:1" or "mps". For "auto" both the GPU and the CPU are described, because only
        torch knows which of them it will be.

    >>> gib = 1 << 30
    >>> network = {"network": 3 * gib, "network_in_slabs": gib, "basis": gib, "ring": 2 * gib}
    >>> image = {"stored": gib // 2, "slabs": 0, "image": gib, "rows": gib // 2, "labels": 0}
    >>> describe_need(Estimate((400, 300, 300), 75, **network, **image), "cuda")
    'about 5.5 GB of GPU memory and 1.7 GB of RAM; this does not grow with the number of classes'
    """
    host = f"{need.placement('cpu', 'cpu').host_bytes / 1e9:.1f} GB of RAM"
    if device == "cpu":
        text = f"about {host}"
    else:
        where = "cuda" if device == "auto" else device
        gpu = need.placement(where, where)
        text = f"about {gpu.device_bytes / 1e9:.1f} GB of GPU memory and {gpu.host_bytes / 1e9:.1f} GB of RAM"
        text += f" (without a GPU {host})" if device == "auto" else ""
    return f"{text}; this {'grows' if need.grows else 'does not grow'} with the number of classes"
