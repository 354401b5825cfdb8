"""The files with which nnU-Net and our engine open the folder of a network that the bare loop trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.raw_dataset import write_dataset_json
from ..files import write_json
from ..network.plain_unet import NETWORK_CLASS

if TYPE_CHECKING:
    from .data import LoopData

CONFIGURATION = "3d_fullres"


def write_model_folder(folder: Path, data: LoopData, arch_kwargs: dict[str, Any]) -> None:
    """Write ``plans.json`` and ``dataset.json``; only ``fold_0/checkpoint_*.pth`` is then missing.

    :param folder: the model folder.
    :param arch_kwargs: see :func:`~classscale_training.network.plain_unet.architecture`.
    :raises OutputError: if a file cannot be written.
    """
    write_json(folder / "plans.json", plans(data.dataset_name, data.patch, [data.spacing] * 3, arch_kwargs))
    write_dataset_json(folder, data.channel, data.names, 0, "SimpleITKIO")


def plans(
    dataset_name: str, patch: Sequence[int], spacing: Sequence[float], arch_kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the parts of nnU-Net's plans that inference reads, for one channel of any unit.

    :param patch: voxels, z y x.
    :param spacing: mm, z y x.
    :param arch_kwargs: as for :func:`write_model_folder`.
    """
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": dataset_name,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            CONFIGURATION: {
                "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(patch),
                "spacing": list(spacing),
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": function,
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": function,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": function,
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": {
                    "network_class_name": NETWORK_CLASS,
                    "arch_kwargs": arch_kwargs,
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


def checkpoint_content(network_weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return what nnU-Net and our engine read from a ``checkpoint_*.pth``.

    :param network_weights: the ``state_dict`` of the network.
    :param more: further entries of the checkpoint.
    """
    return {
        "network_weights": network_weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": CONFIGURATION, "fold": 0},
        "inference_allowed_mirroring_axes": None,
        **more,
    }
