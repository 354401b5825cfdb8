"""Bring an input image to the model grid, as nnU-Net's preprocessing does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ClassScaleError, ImageError, reason
from ..images.reading import InputImage
from ..models.plans import resampling_options
from .axis_resize import AxisResize
from .image_slabs import ROWS, SlabAxes, rows_in_slabs, slices_in_slab
from .interpolation import AxisSampling
from .memory_plan import is_out_of_memory
from .normalization import SCHEMES, Normalized, nonzero_mask, passes, unsuitable
from .prepared import Prepared, enclosing_box, whole_box
from .progress import Monitor, Steps

if TYPE_CHECKING:
    import torch

    from ..models.model import Model
    from .image_rows import ImageRows


def prepare(
    image: InputImage, model: Model, device: Callable[[], str] = lambda: "cpu", monitor: Monitor | None = None
) -> Prepared:
    """Crop to the non-zero region, normalise and resample, as ``nnUNetv2_predict`` does.

    The image stays as it is stored, and is worked on slab by slab when its rows are read, if the preprocessing is what
    nnU-Net plans by default. Any other is left to nnU-Net itself, which holds several copies of the whole image. If an
    axis other than the first is resampled separately, all rows are made here.

    :param image: as :func:`~ClassScaleSegLib.images.reading.read_image` returns it, with its voxels.
    :param model: as :func:`~ClassScaleSegLib.models.model.open_model` returns it.
    :param device: returns the torch device for the arithmetic, which is float64, whenever the rows are begun or
        restarted.
    :param monitor: is told of the rows that the first windows need.
    :raises ImageError: if all voxels are zero, none is left on the model grid, or they do not suit the normalisation;
        reading the rows raises it too.
    :raises Cancelled: if the monitor's token is set; reading the rows raises it too.
    """
    assert image.voxels is not None  # they are dropped only after this function
    manager, configuration = model.plans_manager, model.configuration
    voxels = image.voxels.transpose([0, *(axis + 1 for axis in manager.transpose_forward)])
    box = nonzero_box(voxels, monitor)
    if box is None:
        raise ImageError(f"{image.name} is zero everywhere, so there is nothing to segment. Check the image.")
    crop = [part.stop - part.start for part in box]
    spacing = [image.spacing[axis] for axis in manager.transpose_forward]
    target = [*spacing[: 3 - len(configuration.spacing)], *configuration.spacing]
    grid = [int(round(s / t * n)) for s, t, n in zip(spacing, target, crop, strict=True)]  # nnU-Net's compute_new_shape
    if min(grid) == 0:
        cropped, left, wanted = (np.take(values, manager.transpose_backward) for values in (crop, grid, target))
        raise ImageError(_empty_grid(image, cropped, left, wanted))
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            axes = slab_axes(configuration, crop, grid, spacing, target)
            if axes is None:
                rows = (monitor or Monitor()).wait_for(lambda: _prepare_with_nnunet(image, model))
            else:
                rows = _prepare_in_slabs(image, voxels[(slice(None), *box)], model, axes, grid, device, monitor)
    except (ClassScaleError, MemoryError):
        raise
    except Exception as error:  # nnU-Net asserts, and its functions raise what they like
        if is_out_of_memory(error):
            raise
        raise ImageError(unsuitable(image, model.configuration.normalization_schemes, reason(error))) from error
    way_back = resampling(configuration, rows.shape[1:], crop, spacing)
    backward = tuple(manager.transpose_backward)
    return Prepared(rows, way_back, voxels.shape[1:], box, backward, whole_box(rows.shape[1:]))


def prepared_case(image: np.ndarray, properties: dict, manager: Any, configuration: Any) -> Prepared:
    """Return what nnU-Net's own preprocessing has made of an image.

    :param manager: nnU-Net's plans manager; ``configuration`` is its configuration manager, of checked plans.
    """
    import torch

    from .image_rows import ImageRows

    spacing = [properties["spacing"][axis] for axis in manager.transpose_forward]
    crop = properties["shape_after_cropping_and_before_resampling"]
    x, y, z = (slice(low, high) for low, high in properties["bbox_used_for_cropping"])
    return Prepared(
        ImageRows.of(torch.from_numpy(np.ascontiguousarray(image, np.float32))),
        resampling(configuration, image.shape[1:], crop, spacing),
        tuple(properties["shape_before_cropping"]),
        (x, y, z),
        tuple(manager.transpose_backward),
        whole_box(image.shape[1:]),
    )


def nonzero_box(voxels: np.ndarray, monitor: Monitor | None = None) -> tuple[slice, slice, slice] | None:
    """Return the box that encloses all voxels which are not zero in every channel, or ``None`` if all are.

    nnU-Net crops to the same box; it also fills holes in the mask, which does not change the box.

    :param voxels: ``(channels, X, Y, Z)``.
    :param monitor: may cancel.

    >>> image = np.zeros((2, 4, 5, 6), np.int16)
    >>> image[0, 1, 2, 3] = image[1, 2, 2, 5] = -7
    >>> nonzero_box(image)
    (slice(1, 3, None), slice(2, 3, None), slice(3, 6, None))
    """
    faces = [np.moveaxis(voxels, axis, 0)[side] for axis in (1, 2, 3) for side in (0, -1)]
    if all(face.any() for face in faces):  # as in a CT, where air is not 0
        x, y, z = (slice(0, length) for length in voxels.shape[1:])
        return x, y, z

    def planes() -> Iterator[np.ndarray]:
        for index in range(voxels.shape[1]):
            if monitor is not None:
                monitor.check()
            yield (voxels[:, index] != 0).any(0)

    return enclosing_box(planes(), voxels.shape[1:])


def slab_axes(
    configuration: Any, shape: Sequence[int], grid: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> SlabAxes | None:
    """Return how to preprocess an image slab by slab.

    :param configuration: nnU-Net's configuration manager, of checked plans.
    :param shape: voxels of the cropped image, and ``spacing`` in mm, in the model's axis order.
    :param grid: voxels on the model grid, and ``target`` its spacing.
    :returns: ``None`` if the plans name another preprocessor, normalisation or resampling than nnU-Net's default ones.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    entries = configuration.configuration
    options = resampling_options(entries, "resampling_fn_data")
    if (
        configuration.preprocessor_class is not DefaultPreprocessor
        or entries["resampling_fn_data"] != "resample_data_or_seg_to_shape"
        or options["is_seg"]
        or not set(configuration.normalization_schemes) <= SCHEMES
    ):
        return None
    limits = [options[key] for key in ("separate_z_anisotropy_threshold",) if key in options]
    separate, axis = determine_do_sep_z_and_axis(options["force_separate_z"], spacing, target, *limits)
    first = int(axis) if separate else 0
    second, third = (other for other in range(3) if other != first)
    order = (first, second, third)
    orders = (options["order_z"] if separate else options["order"], options["order"], options["order"])
    x, y, z = (
        AxisResize.spline(shape[axis], grid[axis], spline, ROWS if number == 0 else None)
        for number, (axis, spline) in enumerate(zip(order, orders, strict=True))
    )
    return SlabAxes(order, (x, y, z), bool(separate))


def _prepare_in_slabs(
    image: InputImage,
    voxels: np.ndarray,
    model: Model,
    axes: SlabAxes,
    grid: Sequence[int],
    device: Callable[[], str],
    monitor: Monitor | None,
) -> ImageRows:
    """Normalise and resample.

    :param image: whose memory ``voxels``, ``(channels, X, Y, Z)`` of the crop, may be a view of.
    :returns: rows of the shape ``(channels, *grid)``.
    """
    schemes, masked = model.configuration.normalization_schemes, model.configuration.use_mask_for_norm
    properties = model.plans_manager.foreground_intensity_properties_per_channel
    mask = None
    if any(masked):  # scipy fills its holes in one call, which takes seconds
        whole = voxels
        mask = (monitor or Monitor()).wait_for(lambda: nonzero_mask(whole)).transpose(axes.order)
    voxels = voxels.transpose([0, *(axis + 1 for axis in axes.order)])
    slab = slices_in_slab(voxels.shape[2:])
    slabs = -(-voxels.shape[1] // slab)
    steps = Steps(monitor, "preprocess", slabs * sum(map(passes, schemes)) + grid[axes.order[0]])
    channels = [
        Normalized.of(channel, scheme, properties[str(number)], mask if use else None, slab, steps.step)
        for number, (channel, scheme, use) in enumerate(zip(voxels, schemes, masked, strict=True))
    ]
    return rows_in_slabs(channels, axes, grid, device, steps, lambda rows: _check_finite(rows, image, model))


def _prepare_with_nnunet(image: InputImage, model: Model) -> ImageRows:
    """Preprocess with nnU-Net's own code, on copies of the whole image in float32 and float64."""
    import torch

    from .image_rows import ImageRows

    preprocessor = model.configuration.preprocessor_class(verbose=False)
    properties: dict[str, Any] = {"spacing": list(image.spacing)}
    with np.errstate(over="ignore", invalid="ignore"):  # of this thread
        array, _, _ = preprocessor.run_case_npy(
            np.ascontiguousarray(image.voxels),
            None,
            properties,
            model.plans_manager,
            _image_only(model.configuration),
            model.dataset,
        )
    rows = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    _check_finite(rows, image, model)
    return ImageRows.of(rows)


def _check_finite(rows: torch.Tensor, image: InputImage, model: Model) -> None:
    if rows.numel() and not all(map(math.isfinite, map(float, rows.aminmax()))):
        raise ImageError(unsuitable(image, model.configuration.normalization_schemes, "the result is not finite"))


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

    options = resampling_options(configuration.configuration, "resampling_fn_probabilities")
    current = configuration.spacing if len(configuration.spacing) == 3 else [spacing[0], *configuration.spacing]
    limits = [options[key] for key in ("separate_z_anisotropy_threshold",) if key in options]
    separate, axis = determine_do_sep_z_and_axis(options["force_separate_z"], current, spacing, *limits)
    axes = [AxisSampling.linear(a, b) for a, b in zip(shape, new_shape, strict=True)]
    if separate and not (options.get("order_z") == 1 or options.get("aniso_axis_mode") == "linear"):
        axes[axis] = AxisSampling.nearest(shape[axis], new_shape[axis])
    return axes[0], axes[1], axes[2]


def _image_only(configuration: Any) -> Any:
    """Return the configuration without resampling of the mask of non-zero voxels.

    nnU-Net resamples this mask along with the image, which takes seconds, and then does not use it.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    class ImageOnly(ConfigurationManager):
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
