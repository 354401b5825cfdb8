"""The checkpoint format of nnssl, from which nnU-Net's trainers with pretrained encoders start.

Beside the weights it holds a plan that says where the encoder is among them and which network it belongs to
(``AdaptationPlan`` in nnssl). nnssl 1.0 has no words for the layers of a PlainConvUNet; for such a network the plan
holds what nnU-Net's plans say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

ENTRY = "nnssl_adaptation_plan"


def adaptation_plan(
    plans: PlansManager, name: str, configuration: ConfigurationManager, network: Any, channels: int
) -> dict[str, Any]:
    """Return the plan of a pretrained network.

    :param name: of the configuration.
    :param network: a PlainConvUNet or a ResidualEncoderUNet.
    :param channels: number of input channels.
    """
    return {
        "architecture_plans": {
            "arch_class_name": configuration.network_arch_class_name.rpartition(".")[2],
            "arch_kwargs": dict(configuration.network_arch_init_kwargs),
            "arch_kwargs_requiring_import": list(configuration.network_arch_init_kwargs_req_import),
        },
        "pretrain_plan": {
            "dataset_name": plans.dataset_name,
            "plans_name": plans.plans_name,
            "original_median_spacing_after_transp": plans.plans["original_median_spacing_after_transp"],
            "image_reader_writer": plans.plans["image_reader_writer"],
            "transpose_forward": plans.transpose_forward,
            "transpose_backward": plans.transpose_backward,
            "experiment_planner_used": plans.plans["experiment_planner_used"],
            "configurations": {name: _configuration(configuration)},
        },
        "pretrain_num_input_channels": channels,
        "recommended_downstream_patchsize": list(configuration.patch_size),
        "key_to_encoder": network.key_to_encoder,
        "key_to_stem": network.key_to_stem,
        "keys_to_in_proj": list(network.keys_to_in_proj),
        "key_to_lpe": None,
    }


def _configuration(configuration: ConfigurationManager) -> dict[str, Any]:
    entries = configuration.configuration
    return {
        "data_identifier": entries["data_identifier"],
        "preprocessor_name": entries["preprocessor_name"],
        "spacing_style": "median",
        "normalization_schemes": entries["normalization_schemes"],
        "use_mask_for_norm": entries["use_mask_for_norm"],
        "resampling_fn_data": entries["resampling_fn_data"],
        "resampling_fn_data_kwargs": entries["resampling_fn_data_kwargs"],
        "resampling_fn_mask": entries["resampling_fn_seg"],
        "resampling_fn_mask_kwargs": entries["resampling_fn_seg_kwargs"],
        "spacing": entries["spacing"],
        "patch_size": entries["patch_size"],
    }


def plain(content: Any) -> Any:
    """Return ``content`` with NumPy's values as Python's, so that ``torch.load(weights_only=True)`` reads it."""
    if isinstance(content, dict):
        return {plain(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(plain(value) for value in content)
    if isinstance(content, np.generic):
        return content.item()
    return torch.from_numpy(content) if isinstance(content, np.ndarray) else content
