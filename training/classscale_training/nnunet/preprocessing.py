"""nnU-Net's preprocessing with two costs removed that grow with the number of classes.

Label maps are resampled in one pass (:mod:`.label_resampling`) instead of once for each label, and ``class_locations``,
from which patches with foreground are drawn, is capped: 10,000 coordinates a class are 67 MB a case at 1000 classes,
read from disk with every patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from nnunetv2.experiment_planning import plan_and_preprocess_api
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from .label_resampling import resample_labels

MAX_LOCATIONS = 200_000  # of a case, all classes together: 2.4 MB. nnU-Net: 10,000 a class, or 1 % of its voxels
MIN_LOCATIONS_OF_CLASS = 100


class ClassScalePreprocessor(DefaultPreprocessor):
    """Writes what nnU-Net's own writes, but for fewer ``class_locations``."""

    def run_case_npy(
        self,
        data: np.ndarray,
        seg: np.ndarray | None,
        properties: dict,
        plans_manager: Any,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        configuration = _OnePass(configuration_manager.configuration)
        return super().run_case_npy(data, seg, properties, plans_manager, configuration, dataset_json)

    @staticmethod
    def _sample_foreground_locations(
        seg: np.ndarray, classes_or_regions: list, seed: int = 1234, verbose: bool = False, **_: Any
    ) -> dict:
        """As stock's, int32, at most ``MAX_LOCATIONS`` in all where classes are many."""
        count = min(10_000, max(MIN_LOCATIONS_OF_CLASS, MAX_LOCATIONS // max(1, len(classes_or_regions))))
        locations = DefaultPreprocessor._sample_foreground_locations(
            seg, classes_or_regions, seed, verbose, min_num_samples=count, min_percent_coverage=0
        )
        return {key: np.asarray(found, np.int32) if len(found) else found for key, found in locations.items()}


class _OnePass(ConfigurationManager):
    """The configuration with another function for label maps, where the plans name nnU-Net's default one."""

    @property
    def resampling_fn_seg(self):
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
    """nnU-Net's ``preprocess`` with :class:`ClassScalePreprocessor` where the plans name nnU-Net's default one.

    nnU-Net looks the class up by its name inside its own package, hence the patch.
    """
    stock = ConfigurationManager.preprocessor_class

    def ours(self: ConfigurationManager) -> type[DefaultPreprocessor]:
        found = stock.fget(self)
        return ClassScalePreprocessor if found is DefaultPreprocessor else found

    with patch.object(ConfigurationManager, "preprocessor_class", property(ours)):
        plan_and_preprocess_api.preprocess(dataset_ids, plans_name, configurations, **options)
