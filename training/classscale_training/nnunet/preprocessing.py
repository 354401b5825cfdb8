"""nnU-Net's preprocessing without two costs that grow with the number of classes.

Label maps are resampled in one pass (:mod:`.label_resampling`) instead of one pass for each label. The table
``class_locations``, from which nnU-Net chooses patches with foreground, is limited in size. nnU-Net stores 10,000
coordinates for each class: at 1000 classes that is 67 MB for each case, read from disk with every patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nnunetv2.experiment_planning import plan_and_preprocess_api
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from .label_resampling import resample_labels

# Coordinates stored for a case, all classes together: 2.4 MB. nnU-Net stores 10,000 or 1 % of the voxels of each class.
MAX_LOCATIONS = 200_000
MIN_LOCATIONS_OF_CLASS = 100


class ClassScalePreprocessor(DefaultPreprocessor):
    """Writes the same data as nnU-Net's DefaultPreprocessor, except for fewer ``class_locations``."""

    def run_case_npy(
        self,
        data: np.ndarray,
        seg: np.ndarray | None,
        properties: dict,
        plans_manager: Any,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Preprocess a case as nnU-Net does, but resample its label map in one pass.

        :param data: image ``(channels, ...)`` in the axis order of nnU-Net's reader.
        :param seg: label map ``(1, ...)``, or None.
        :returns: image, label map and properties, preprocessed.
        """
        configuration = _OnePass(configuration_manager.configuration)
        return super().run_case_npy(data, seg, properties, plans_manager, configuration, dataset_json)

    @staticmethod
    def _sample_foreground_locations(
        seg: np.ndarray, classes_or_regions: list, seed: int = 1234, verbose: bool = False, **_: Any
    ) -> dict:
        """Choose coordinates as nnU-Net does, but as int32, and for many classes about ``MAX_LOCATIONS`` in all."""
        count = min(10_000, max(MIN_LOCATIONS_OF_CLASS, MAX_LOCATIONS // max(1, len(classes_or_regions))))
        locations = DefaultPreprocessor._sample_foreground_locations(
            seg, classes_or_regions, seed, verbose, min_num_samples=count, min_percent_coverage=0
        )
        return {key: np.asarray(found, np.int32) if len(found) else found for key, found in locations.items()}


class _OnePass(ConfigurationManager):
    """A configuration that resamples label maps in one pass, if the plans name nnU-Net's default function for them."""

    @property
    def resampling_fn_seg(self) -> Callable[..., np.ndarray]:
        """The function that resamples label maps: the one-pass function, or that of the plans if it is another one."""
        stock, options = super().resampling_fn_seg, self.configuration["resampling_fn_seg_kwargs"]
        replaced = {"is_seg": True, "order": 1, "order_z": 0}
        default = self.configuration["resampling_fn_seg"] == resample_data_or_seg_to_shape.__name__
        if not default or any(options.get(key, 0) != value for key, value in replaced.items()):
            return stock

        def one_pass(
            seg: np.ndarray, new_shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
        ) -> np.ndarray:
            _, axis = determine_do_sep_z_and_axis(options.get("force_separate_z", False), spacing, new_spacing)
            return np.stack([resample_labels(channel, new_shape, axis) for channel in seg])

        return one_pass


def preprocess(dataset_ids: list[int], plans_name: str, configurations: Sequence[str], **options: Any) -> None:
    """Run nnU-Net's ``preprocess``, with :class:`ClassScalePreprocessor` if the plans name nnU-Net's default.

    nnU-Net finds preprocessors by name and in its own package only, so its lookup is replaced during the call.

    :param dataset_ids: numbers of the datasets.
    :param plans_name: name of the plans.
    :param configurations: names of the configurations.
    :param options: further arguments of nnU-Net's function.
    """
    stock = ConfigurationManager.preprocessor_class

    def ours(self: ConfigurationManager) -> type[DefaultPreprocessor]:
        found = stock.fget(self)
        return ClassScalePreprocessor if found is DefaultPreprocessor else found

    ConfigurationManager.preprocessor_class = property(ours)
    try:
        plan_and_preprocess_api.preprocess(dataset_ids, plans_name, configurations, **options)
    finally:
        ConfigurationManager.preprocessor_class = stock
