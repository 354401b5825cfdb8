"""Checkpoints as nnU-Net writes them, two folds: the split network gives the whole network's labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2")
from ClassScaleSegLib import open_model, segment_array  # noqa: E402
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans  # noqa: E402

TOY = Path(__file__).parents[2] / "Resources" / "Models" / "toy-120"


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_two_folds_give_the_mean_of_their_logits(architecture, tmp_path):
    plans = json.loads((TOY / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    kwargs = configuration["architecture"]["arch_kwargs"]
    kwargs.update(
        n_stages=3, features_per_stage=[8, 8, 8], kernel_sizes=[[3] * 3] * 3, n_conv_per_stage_decoder=[1] * 2
    )
    kwargs.update(strides=[[1] * 3, [2] * 3, [2] * 3], n_conv_per_stage=[1] * 3)
    if architecture == "ResidualEncoderUNet":
        kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    name = f"dynamic_network_architectures.architectures.unet.{architecture}"
    configuration["architecture"]["network_class_name"] = name
    configuration.update(patch_size=[16] * 3, spacing=[1.0] * 3)
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "dataset.json").write_text((TOY / "dataset.json").read_text())
    networks = []
    requires_import = configuration["architecture"]["_kw_requires_import"]
    for fold in range(2):
        torch.manual_seed(fold)
        networks.append(get_network_from_plans(name, kwargs, requires_import, 1, 121, deep_supervision=False).eval())
        (tmp_path / f"fold_{fold}").mkdir()
        content = {
            "network_weights": networks[-1].state_dict(),
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": (0, 1, 2),
            "_best_ema": np.float64(0.5),
        }
        torch.save(content, tmp_path / f"fold_{fold}" / "checkpoint_final.pth")
    model = open_model(tmp_path)
    assert model.mirror_axes == (0, 1, 2) and model.projection.weight.shape == (121, 16)
    image = np.random.default_rng(0).random((1, 16, 16, 16), np.float32) + 0.1
    labels = segment_array(image, (1.0, 1.0, 1.0), model, mirroring=False)
    with torch.no_grad():
        normal = torch.from_numpy((image - image.mean()) / image.std())[None]
        logits = sum(network(normal) for network in networks)[0] / 2
    assert (labels == logits.argmax(0).numpy()).mean() > 0.9995
