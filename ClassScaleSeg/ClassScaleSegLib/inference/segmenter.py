"""Image file -> label map on the input grid: nnU-Net's preprocessing, rolling basis, decoding by rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..model import Model


def segment_array(
    data: np.ndarray,
    spacing: tuple[float, float, float],
    model: Model,
    device: str = "cpu",
    step: float = 0.5,
    mirroring: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Label map uint16 ``(z, y, x)`` of an image ``(channels, z, y, x)`` with ``spacing`` (z, y, x) in mm.

    The same voxels, preprocessing and arithmetic as ``nnUNetv2_predict``, in float32.
    """
    import torch

    from .decode import RowDecoder
    from .windows import predict_rows

    manager, configuration = model.plans_manager, model.configuration
    preprocessor = configuration.preprocessor_class(verbose=False)
    properties = {"spacing": list(spacing)}
    image, _, properties = preprocessor.run_case_npy(data, None, properties, manager, configuration, model.dataset)
    crop = properties["shape_after_cropping_and_before_resampling"]
    original = [spacing[i] for i in manager.transpose_forward]
    axes = resampling(configuration, image.shape[1:], crop, original)
    networks = [network.to(device) for network in model.backbones]

    def backbone(patch: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(patch) for network in networks], 1)

    labels = np.zeros(properties["shape_before_cropping"], np.uint16)
    box = tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])
    target = labels[box]
    with torch.inference_mode():
        decoder = RowDecoder(model.projection, axes)
        rows = predict_rows(
            torch.from_numpy(np.ascontiguousarray(image, np.float32)),
            backbone,
            model.patch,
            step,
            model.mirror_axes if mirroring else (),
            device,
            progress,
        )
        for basis in rows:
            for index, row in decoder.push(basis):
                target[index] = row.numpy()
    return np.ascontiguousarray(labels.transpose(manager.transpose_backward))


def resampling(configuration, shape, new_shape, spacing) -> tuple:
    """Sampling of the three axes from the model grid to the cropped input grid, as the plans resample logits.

    :raises ValueError: if the plans resample probabilities in a way that is not linear (order 3 clips).
    """
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    from .interpolation import AxisSampling

    function = configuration.configuration["resampling_fn_probabilities"]
    options = configuration.configuration["resampling_fn_probabilities_kwargs"]
    order = options.get("order", 3) if function == "resample_data_or_seg_to_shape" else 1
    if function not in ("resample_data_or_seg_to_shape", "resample_torch_fornnunet") or order != 1:
        raise ValueError(f"The plans resample logits with {function}, order {order}; only order 1 can be streamed.")
    current = configuration.spacing if len(configuration.spacing) == 3 else [spacing[0], *configuration.spacing]
    separate, axis = determine_do_sep_z_and_axis(options.get("force_separate_z"), current, spacing)
    axes = [AxisSampling.linear(a, b) for a, b in zip(shape, new_shape, strict=True)]
    if separate and not (function == "resample_data_or_seg_to_shape" and options.get("order_z", 0) == 1):
        axes[axis] = AxisSampling.nearest(shape[axis], new_shape[axis])
    return tuple(axes)


def segment(image_file: str | Path, model: Model, **options) -> tuple[np.ndarray, object]:
    """Segment one scalar 3D image file; returns the labels ``(z, y, x)`` and the SimpleITK image they lie on.

    :raises ValueError: if the model reads its images in another voxel order, or wants another kind of image.
    """
    import SimpleITK as sitk

    reader = model.plans_manager.plans["image_reader_writer"]
    if reader not in ("SimpleITKIO", "NibabelIO"):  # both keep the voxel order of the file
        raise ValueError(f"This model reads its images with {reader}, which reorders voxels: not supported yet.")
    image = sitk.ReadImage(str(image_file))
    channels = model.channels
    if channels != 1 or image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(
            f"{image_file} is a {image.GetDimension()}D image with {image.GetNumberOfComponentsPerPixel()} "
            f"component(s) a voxel and the model wants {channels} channel(s); segment takes one scalar 3D image."
        )
    return segment_array(sitk.GetArrayFromImage(image)[None], tuple(image.GetSpacing()[::-1]), model, **options), image
