"""Check ``plans.json`` and ``dataset.json`` of an untrusted model with nnU-Net before they are used.

nnU-Net imports classes and functions by the names in these files (``pydoc.locate`` imports any module) and allocates
arrays of any size that they give. Here every name must belong to nnU-Net, and every number must lie within wide bounds.
"""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import numpy as np

from ..errors import ModelError
from .architecture import MAX_CONVOLUTIONS, check_architecture
from .json_checks import integers, numbers, short
from .preprocessing import read_preprocessing
from .summary import ModelSummary


def check_plans(summary: ModelSummary) -> tuple[Any, Any]:
    """Check plans and labels of a described model with nnU-Net.

    :returns: nnU-Net's ``PlansManager``, and its ``ConfigurationManager`` of the model's configuration.
    :raises ModelError: if the model cannot be used; the message names the entry at fault.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    name = summary.configuration_name
    for raw in summary.plans["configurations"].values():  # nnU-Net's conversion of old plans computes 2**stage
        integers(raw.get("n_conv_per_stage_encoder", []), MAX_CONVOLUTIONS, "n_conv_per_stage_encoder")
    manager = PlansManager({"label_manager": "LabelManager", **summary.plans})
    try:
        with warnings.catch_warnings():  # nnU-Net warns about every model trained before its version 2.5
            warnings.simplefilter("ignore")
            configuration = manager.get_configuration(name)
    except Exception as error:
        raise ModelError(
            f"configuration {name} cannot be read, not even as plans written before nnU-Net 2.5 "
            f"({type(error).__name__}: {error})."
        ) from error
    entries = configuration.configuration
    if entries.get("previous_stage"):
        raise ModelError(
            f"configuration {name} is a cascade: it needs the segmentation of "
            f"{short(entries['previous_stage'])} as input, which is not supported. Use a single-stage configuration."
        )
    if read_preprocessing(entries, summary.channels) is None:
        _check_preprocessing(manager.plans, entries, summary.channels)
        _check_linear(entries)
    check_architecture(entries)
    _check_labels(manager, summary)
    return manager, configuration


def resampling_options(entries: dict, of: str) -> dict[str, Any]:
    """Return a configuration's options for a resampling, including the defaults of nnU-Net's function.

    :param of: "resampling_fn_probabilities", for the logits, or "resampling_fn_data", for the image.
    """
    from nnunetv2.preprocessing.resampling import default_resampling, resample_torch

    name = entries[of]
    function = getattr(default_resampling, name, None) or getattr(resample_torch, name, None)
    parameters = inspect.signature(function).parameters.values() if function else ()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults | entries[f"{of}_kwargs"]


def _check_linear(entries: dict) -> None:
    """Require linear resampling of logits: only that gives the same result on the basis. nnU-Net clips order 3."""
    options = resampling_options(entries, "resampling_fn_probabilities")
    linear = {
        "resample_data_or_seg_to_shape": options.get("order") == 1 and options.get("order_z") in (0, 1),
        "resample_torch_fornnunet": options.get("mode") == "linear"
        and options.get("aniso_axis_mode") in ("linear", "nearest-exact"),
    }
    name = entries["resampling_fn_probabilities"]
    if not linear.get(name, False):
        raise ModelError(
            f"It resamples logits with {name} and {short(entries['resampling_fn_probabilities_kwargs'])}; only "
            "nnU-Net's linear resampling (order 1, its default) is supported. Use nnUNetv2_predict for this model."
        )


def _check_preprocessing(plans: dict, entries: dict, channels: int) -> None:
    """Check the names that nnU-Net's preprocessing looks up, and the entries it reads for each channel."""
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    _find(plans.get("image_reader_writer"), "image_reader_writer", "imageio", BaseReaderWriter)
    _find(plans["label_manager"], "label_manager", "utilities.label_handling", LabelManager)
    _find(entries.get("preprocessor_name"), "preprocessor_name", "preprocessing.preprocessors", DefaultPreprocessor)
    for key in ("resampling_fn_data", "resampling_fn_probabilities"):
        function = _find(entries.get(key), key, "preprocessing.resampling", None)
        options = entries.get(f"{key}_kwargs")
        fine = (
            isinstance(options, dict)
            and set(options) <= set(inspect.signature(function).parameters)
            and all(value is None or isinstance(value, bool | int | float | str) for value in options.values())
            and all(type(options.get(o, 0)) is int and 0 <= options.get(o, 0) <= 5 for o in ("order", "order_z"))
            and options.get("force_separate_z") in (None, True, False)
        )
        if not fine or not _resamples(function, options or {}):
            raise ModelError(f"{key}_kwargs {short(options)} are not options of {entries[key]}.")
    for key in ("normalization_schemes", "use_mask_for_norm"):
        value: Any = entries.get(key)
        if not isinstance(value, list) or len(value) != channels:
            raise ModelError(f"{key} is {short(value)}, but dataset.json names {channels} channel(s).")
    masks = entries["use_mask_for_norm"]
    if not all(isinstance(mask, bool | None) for mask in masks):  # null means false, to nnU-Net too
        raise ModelError(f"use_mask_for_norm {short(masks)} must be true or false for each channel.")
    key = "foreground_intensity_properties_per_channel"
    intensities = plans.get(key, plans.get("foreground_intensity_properties_by_modality"))
    if not isinstance(intensities, dict):
        raise ModelError(f"It has no object {key!r}.")
    for channel, scheme in enumerate(entries["normalization_schemes"]):
        _find(scheme, "normalization_schemes", "preprocessing.normalization", ImageNormalization)
        properties = intensities.get(str(channel))
        if not isinstance(properties, dict):
            raise ModelError(f"{key} lacks channel {channel}.")
        wanted = ("mean", "std", "percentile_00_5", "percentile_99_5") if scheme == "CTNormalization" else ()
        if not numbers([properties.get(name) for name in wanted], len(wanted)):
            raise ModelError(f"the intensity properties of channel {channel} lack one of {', '.join(wanted)}.")
        if wanted and (properties["std"] < 0 or properties["percentile_00_5"] > properties["percentile_99_5"]):
            raise ModelError(
                f"the intensity properties of channel {channel} have a negative std, or percentiles in the wrong order."
            )


def _resamples(function: Any, options: dict) -> bool:
    """Tell whether nnU-Net's function resamples a few voxels with these options without an error."""
    image = np.arange(4**3, dtype=np.float32).reshape(1, 4, 4, 4)
    try:
        return all(
            np.ndim(function(image, (3, 5, 5), (old, 1.0, 1.0), (4 / 3 * old, 0.8, 0.8), **options)) == 4
            for old in (1.0, 9.0)  # without and with an anisotropic axis
        )
    except Exception:
        return False


def _check_labels(manager: Any, summary: ModelSummary) -> None:
    """Check that nnU-Net accepts the labels in ``dataset.json`` and predicts as many rows."""
    try:
        handler = manager.get_label_manager(summary.dataset)
        heads = handler.num_segmentation_heads
    except Exception as error:
        raise ModelError(f"the labels of dataset.json cannot be used ({type(error).__name__}: {error}).") from error
    if (summary.classes, summary.regions) != (heads, handler.has_regions):
        raise ModelError(f"dataset.json names {summary.classes} classes, but {heads} are predicted.")


def _find(name: Any, key: str, module: str, base: type | None) -> Any:
    """Return the class (or, without ``base``, the function) with this name that ``nnunetv2.<module>`` defines."""
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    found = None
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z]\w*", name):
        folder = "/".join([nnunetv2.__path__[0], *module.split(".")])
        found = recursive_find_python_class(folder, name, f"nnunetv2.{module}")
    fits = inspect.isfunction(found) if base is None else inspect.isclass(found) and issubclass(found, base)
    if not fits or not found.__module__.startswith("nnunetv2."):
        raise ModelError(
            f"{key} {short(name)} is not part of the installed nnunetv2: update it, or use a model made "
            "with nnU-Net's own classes."
        )
    return found
