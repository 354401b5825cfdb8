"""Bring an input image to the model grid, with nnU-Net's own preprocessing, and describe the way back."""

from __future__ import annotations

from collections.abc import Sequence
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
    """A preprocessed image, and how its segmentation maps back to the input.

    :ivar image: ``(channels, X, Y, Z)`` float32 on the model grid.
    :ivar axes: sampling of the three axes from the model grid to the cropped input grid.
    :ivar shape: shape ``(X', Y', Z')`` of the uncropped input in the model's axis order.
    :ivar box: the crop in ``shape``.
    :ivar backward: for each axis (z, y, x) of the input, the axis of the model.
    """

    image: np.ndarray
    axes: tuple[AxisSampling, AxisSampling, AxisSampling]
    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    backward: tuple[int, int, int]

    @classmethod
    def of_case(cls, image: np.ndarray, properties: dict, manager: Any, configuration: Any) -> Prepared:
        """Describe the image ``(channels, X, Y, Z)`` and the properties that nnU-Net's preprocessing has returned.

        :param manager: nnU-Net's plans manager; ``configuration`` is its configuration manager, of checked plans.
        """
        spacing = [properties["spacing"][axis] for axis in manager.transpose_forward]
        crop = properties["shape_after_cropping_and_before_resampling"]
        x, y, z = (slice(low, high) for low, high in properties["bbox_used_for_cropping"])
        return cls(
            np.ascontiguousarray(image, np.float32),
            resampling(configuration, image.shape[1:], crop, spacing),
            tuple(properties["shape_before_cropping"]),
            (x, y, z),
            tuple(manager.transpose_backward),
        )

    def empty(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return an array of zeros for the result, and a view of its crop to fill row by row.

        :returns: ``(z, y, x)`` for the whole input, and the view in the model's axis order.
        """
        full = np.zeros([self.shape[i] for i in self.backward], dtype)
        return full, full.transpose(np.argsort(self.backward))[self.box]


def prepare(image: InputImage, model: Model) -> Prepared:
    """Crop to the non-zero region, normalise and resample, as ``nnUNetv2_predict`` does.

    :param image: as :func:`~ClassScaleSegLib.images.reading.read_image` returns it, with its voxels.
    :param model: as :func:`~ClassScaleSegLib.models.model.open_model` returns it.
    :raises ImageError: if all voxels are zero.
    """
    assert image.voxels is not None  # they are dropped only after this function
    if not image.voxels.any():
        raise ImageError(f"{image.name} is zero everywhere, so there is nothing to segment. Check the image.")
    preprocessor = model.configuration.preprocessor_class(verbose=False)
    properties: dict[str, Any] = {"spacing": list(image.spacing)}
    configuration = _without_mask_resampling(model.configuration)
    array, _, properties = preprocessor.run_case_npy(
        image.voxels, None, properties, model.plans_manager, configuration, model.dataset
    )
    return Prepared.of_case(array, properties, model.plans_manager, model.configuration)


def resampling(
    configuration: Any, shape: Sequence[int], new_shape: Sequence[int], spacing: Sequence[float]
) -> tuple[AxisSampling, AxisSampling, AxisSampling]:
    """Return the sampling of the three axes with which the plans resample logits to the cropped input grid.

    nnU-Net's ``determine_do_sep_z_and_axis`` says whether an anisotropic axis is sampled on its own.

    :param configuration: nnU-Net's configuration manager, of checked plans.
    :param shape: voxels on the model grid, in the model's axis order.
    :param new_shape: voxels of the cropped input; ``spacing`` is its spacing in mm.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    options = resampling_options(configuration.configuration)
    current = configuration.spacing if len(configuration.spacing) == 3 else [spacing[0], *configuration.spacing]
    limits = [options[key] for key in ("separate_z_anisotropy_threshold",) if key in options]
    separate, axis = determine_do_sep_z_and_axis(options["force_separate_z"], current, spacing, *limits)
    axes = [AxisSampling.linear(a, b) for a, b in zip(shape, new_shape, strict=True)]
    if separate and not (options.get("order_z") == 1 or options.get("aniso_axis_mode") == "linear"):
        axes[axis] = AxisSampling.nearest(shape[axis], new_shape[axis])
    return axes[0], axes[1], axes[2]


def _without_mask_resampling(configuration: Any) -> Any:
    """Return the configuration without resampling of the mask of non-zero voxels.

    nnU-Net resamples this mask along with the image, which takes seconds, and then does not use it.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    class ImageOnly(ConfigurationManager):
        resampling_fn_seg = property(lambda self: lambda mask, *_: mask)

    return ImageOnly(configuration.configuration)
