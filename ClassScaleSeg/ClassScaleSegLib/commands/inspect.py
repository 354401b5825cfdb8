"""What a model is, and what a job with it would take, as plain facts for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..images.reading import ImageSource

if TYPE_CHECKING:
    from ..models.model import Model


def describe(model: Model) -> dict[str, Any]:
    """JSON-ready facts; ``classes`` maps label values to names."""
    return {
        "name": model.name,
        "configuration": model.configuration_name,
        "folds": list(model.folds),
        "number of classes": model.classes,
        "rank": model.rank,
        "patch": list(model.patch),
        "spacing (mm)": [round(float(s), 4) for s in model.configuration.spacing],
        "input channels": model.channels,
        "modality": model.modality or "unknown",
        "orientation": model.orientation or "as stored",
        "mirrored axes": list(model.mirror_axes),
        "licence": model.licence or "unknown",
        "notice": model.notice or "",
        "parameters": sum(p.numel() for network in model.backbones for p in network.parameters()),
        "classes": {label.value: label.name for label in model.table},
    }


def describe_job(model: Model, image: ImageSource, step: float) -> dict[str, Any]:
    """Windows and memory for one image."""
    from ..images.reading import read_image
    from ..inference.estimate import estimate

    source = read_image(image, model.channels, model.orientation, flat=len(model.patch) == 2)
    need = estimate(model, source.voxels.shape[1:], source.spacing, step, confidence=False)
    gpu, cpu = need.placement("cuda", "cuda"), need.placement("cpu", "cpu")
    return {
        "image (z, y, x)": list(source.voxels.shape[1:]),
        "model grid": list(need.grid),
        "windows": need.windows,
        "memory on a CPU (GiB)": round(cpu.host_bytes / 2**30, 1),
        "memory with a GPU (GiB)": f"{gpu.device_bytes / 2**30:.1f} on it, {gpu.host_bytes / 2**30:.1f} beside it",
    }
