"""Facts about a model, and about the memory that a job with it takes, for people and programs."""

from __future__ import annotations

from typing import Any

from ..images.reading import ImageSource, read_image
from ..inference.memory_estimate import estimate
from ..models.advice import advise
from ..models.model import Model
from ..models.summary import ModelSummary


def describe(model: Model) -> dict[str, Any]:
    """Return facts about a model that can be written as JSON.

    :returns: names and values of the facts, among them ``classes``, which maps label values to names.

    >>> from ClassScaleSegLib import open_model
    >>> from ClassScaleSegLib.resources import resource
    >>> facts = describe(open_model(resource("Models", "toy-120.zip")))
    >>> facts["number of classes"], facts["rank"], facts["patch"]
    (120, 16, [64, 64, 64])
    """
    return {
        "name": model.name,
        "configuration": model.configuration_name,
        "folds": list(model.folds),
        "number of classes": len(model.table.foreground),  # as everywhere, without the background
        "rank": model.rank,
        "patch": list(model.patch),
        "spacing (mm)": [round(float(s), 4) for s in model.configuration.spacing],
        "input channels": model.channels,
        "modality": model.modality or "unknown",
        "orientation": model.orientation or "as stored",
        "mirrored axes": list(model.mirror_axes),
        "mirrored with sides exchanged": model.swap_sides,
        "licence": model.licence or "unknown",
        "notice": model.notice or "",
        "parameters": sum(p.numel() for network in model.backbones for p in network.parameters()),
        "classes": {label.value: label.name for label in model.table},
    }


def describe_job(
    model: Model, summary: ModelSummary, image: ImageSource, step: float, modality: str | None
) -> dict[str, Any]:
    """Return facts about a job, with warnings, the number of windows and the memory, that can be written as JSON.

    Among the warnings is how the header of the image was understood where it is ambiguous.

    :param summary: of the model.
    :param modality: of the image, as in DICOM; ``None`` if it is not known.

    The other parameters and the exceptions are those of :func:`~ClassScaleSegLib.inference.segmenter.segment`.
    """
    flat, nibabel = len(model.patch) == 2, model.reads_with_nibabel
    source = read_image(image, model.channels, model.orientation, flat=flat, nibabel=nibabel)
    assert source.voxels is not None  # an image that was just read has its voxels
    shape, size = source.voxels.shape[1:], source.voxels.itemsize
    mirrored = bool(model.mirror_axes) or model.swap_sides
    need = estimate(model, shape, source.spacing, step, voxel_bytes=size, mirroring=mirrored)
    gpu, cpu = need.placement("cuda", "cuda"), need.placement("cpu", "cpu")
    return {
        "image (z, y, x)": list(source.voxels.shape[1:]),
        "model grid": list(need.grid),
        "windows": need.windows,
        "warnings": [*source.notices, *advise(summary, source.spacing, modality)],
        "memory on a CPU (GiB)": round(cpu.host_bytes / 2**30, 1),
        "memory with a GPU (GiB)": f"{gpu.device_bytes / 2**30:.1f} on it, {gpu.host_bytes / 2**30:.1f} of RAM",
    }
