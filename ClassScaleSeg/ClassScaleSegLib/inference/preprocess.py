"""An input image on the model grid, by nnU-Net's own preprocessing, and the way back to the input grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError
from ..images.reading import InputImage
from ..models.plans import resampling_options
from .interpolation import AxisSampling

if TYPE_CHECKING:
    from ..models.model import Model


@dataclass(frozen=True)
class Prepared:
    """What the windows run over, and where their result belongs.

    :ivar image: ``(channels, X, Y, Z)`` float32 on the model grid.
    :ivar axes: sampling from the model grid to the cropped input grid.
    :ivar shape: of the input ``(X', Y', Z')`` in the model's axis order.
    :ivar box: the crop in it.
    :ivar backward: axis order that leads back to (z, y, x).
    """

    image: np.ndarray
    axes: tuple[AxisSampling, AxisSampling, AxisSampling]
    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    backward: tuple[int, int, int]

    def empty(self, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A zero array of the whole input as ``(z, y, x)``, and a view of the crop in the model's axis order."""
        full = np.zeros([self.shape[i] for i in self.backward], dtype)
        return full, full.transpose(np.argsort(self.backward))[self.box]


def prepare(image: InputImage, model: Model) -> Prepared:
    """Crop to non-zero, normalise and resample, as ``nnUNetv2_predict`` does.

    :raises ImageError: if there is nothing in the image.
    """
    manager = model.plans_manager
    if not image.voxels.any():
        raise ImageError(f"{image.name} is zero everywhere: there is nothing to segment.")
    preprocessor = model.configuration.preprocessor_class(verbose=False)
    properties: dict[str, Any] = {"spacing": list(image.spacing)}
    configuration = _without_mask_resampling(model.configuration)
    array, _, properties = preprocessor.run_case_npy(
        image.voxels, None, properties, manager, configuration, model.dataset
    )
    crop = properties["shape_after_cropping_and_before_resampling"]
    spacing = [image.spacing[i] for i in manager.transpose_forward]
    return Prepared(
        np.ascontiguousarray(array, np.float32),
        resampling(model.configuration, array.shape[1:], crop, spacing),
        tuple(properties["shape_before_cropping"]),
        tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"]),
        tuple(manager.transpose_backward),
    )


def resampling(configuration: Any, shape, new_shape, spacing) -> tuple[AxisSampling, AxisSampling, AxisSampling]:
    """Sampling of the three axes from the model grid to the cropped input grid, as the plans resample logits."""
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    options = resampling_options(configuration.configuration)
    current = configuration.spacing if len(configuration.spacing) == 3 else [spacing[0], *configuration.spacing]
    limits = [options[key] for key in ("separate_z_anisotropy_threshold",) if key in options]
    separate, axis = determine_do_sep_z_and_axis(options["force_separate_z"], current, spacing, *limits)
    axes = [AxisSampling.linear(a, b) for a, b in zip(shape, new_shape, strict=True)]
    if separate and not (options.get("order_z") == 1 or options.get("aniso_axis_mode") == "linear"):
        axes[axis] = AxisSampling.nearest(shape[axis], new_shape[axis])
    return tuple(axes)


def _without_mask_resampling(configuration: Any) -> Any:
    """nnU-Net resamples the mask of non-zero voxels along with the image and then drops it; that takes seconds."""
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    class ImageOnly(ConfigurationManager):
        resampling_fn_seg = property(lambda self: lambda mask, *_: mask)

    return ImageOnly(configuration.configuration)
