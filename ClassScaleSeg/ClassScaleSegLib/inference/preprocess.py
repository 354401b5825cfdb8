"""Bring an input image to the model grid, with nnU-Net's own preprocessing, and describe the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ClassScaleError, ImageError, reason
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
    :raises ImageError: if all voxels are zero, none is left on the model grid, or they do not suit the normalisation.
    """
    assert image.voxels is not None  # they are dropped only after this function
    if not image.voxels.any():
        raise ImageError(f"{image.name} is zero everywhere, so there is nothing to segment. Check the image.")
    preprocessor = model.configuration.preprocessor_class(verbose=False)
    properties: dict[str, Any] = {"spacing": list(image.spacing)}
    configuration = _image_only(model.configuration, image, model.plans_manager.transpose_backward)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            array, _, properties = preprocessor.run_case_npy(
                image.voxels, None, properties, model.plans_manager, configuration, model.dataset
            )
    except (ClassScaleError, MemoryError):
        raise
    except Exception as error:  # nnU-Net asserts, and its functions raise what they like
        raise ImageError(_unsuitable(image, model, reason(error))) from error
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise ImageError(_unsuitable(image, model, "the result is not finite"))
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


def _image_only(configuration: Any, image: InputImage, backward: Sequence[int]) -> Any:
    """Return the configuration without resampling of the mask of non-zero voxels, and with a check of the model grid.

    nnU-Net resamples this mask along with the image, which takes seconds, and then does not use it.

    :param backward: for each axis (z, y, x) of the image, the axis of the model.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    def resample_image(data: np.ndarray, grid: Any, spacing: Sequence[float], target: Sequence[float]) -> Any:
        if min(grid) == 0:
            cropped, left, wanted = (np.take(values, backward) for values in (data.shape[1:], grid, target))
            raise ImageError(_empty_grid(image, cropped, left, wanted))
        return configuration.resampling_fn_data(data, grid, spacing, target)

    class ImageOnly(ConfigurationManager):
        resampling_fn_data = property(lambda self: resample_image)
        resampling_fn_seg = property(lambda self: lambda mask, *_: mask)

    return ImageOnly(configuration.configuration)


def _empty_grid(image: InputImage, cropped: Any, grid: Any, target: Any) -> str:
    """Say why no voxel is left on the model grid; everything along z, y, x."""
    assert image.voxels is not None
    shape = image.voxels.shape[1:]
    whole = [round(s / t * n) for s, t, n in zip(image.spacing, target, shape, strict=True)]
    found = f"{image.name} has {_by(shape)} voxels of {_by(image.spacing)} mm (x, y, z)"
    if min(whole) > 0:
        found += f", but only {_by(cropped)} of them are not zero"
    return (
        f"{found}. At the model's spacing, {_by(target)} mm, this is a grid of {_by(grid)} voxels: nothing is left to "
        "segment. Is the unit right? A header in metres or micrometres must be changed to millimetres."
    )


def _by(values: Any) -> str:
    """Write values along z, y, x as ``x x y x z``."""
    return " x ".join(f"{value:g}" for value in reversed(values))


def _unsuitable(image: InputImage, model: Model, why: str) -> str:
    assert image.voxels is not None
    schemes = ", ".join(dict.fromkeys(model.configuration.normalization_schemes))
    return (
        f"{image.name}, with intensities from {image.voxels.min():g} to {image.voxels.max():g}, does not suit the "
        f"preprocessing of the model, {schemes} ({why}). Give an image of the kind that the model was trained on."
    )
