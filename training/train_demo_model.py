"""Train the embedded demo model (120 classes, 64^3 grid) on CPU; call again to resume.

    python training/train_demo_model.py [--steps 4000] [--folder .benchmarks/demo]

Writes an nnU-Net v2 model folder (``plans.json``, ``dataset.json``, ``fold_0/checkpoint_final.pth``) that stock nnU-Net
loads too; ``classscaleseg pack`` makes the bundle in ``Resources/Models`` from it. Data are generated
(:mod:`classscale_training.toy`), so there is nothing to download and no licence beyond this project's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from classscale_training import class_statistics
from classscale_training.toy import atlas_case

CLASSES, GRID, SPACING = 120, 64, 2.0
ARCHITECTURE = {
    "n_stages": 5,
    "features_per_stage": [16, 24, 32, 48, 48],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 5,
    "strides": [[1, 1, 1]] + [[2, 2, 2]] * 4,
    "n_conv_per_stage": [1, 1, 2, 2, 2],
    "n_conv_per_stage_decoder": [1, 1, 1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def build() -> torch.nn.Module:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    requires_import = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    return get_network_from_plans(
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        ARCHITECTURE,
        requires_import,
        1,
        CLASSES + 1,
        deep_supervision=False,
    )


def plans() -> dict:
    """The parts of nnU-Net's plans that inference reads."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset120_ToyAtlas",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [GRID] * 3,
                "spacing": [SPACING] * 3,
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": ARCHITECTURE,
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


def dataset() -> dict:
    return {
        "channel_names": {"0": "toy"},
        "labels": {"background": 0, **{f"cell {i}": i for i in range(1, CLASSES + 1)}},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }


def loss(basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """nnU-Net's cross entropy plus soft Dice over the foreground classes, batch Dice."""
    s = class_statistics(basis, projection, bias, labels)
    intersection, total = s.intersection.sum(0)[1:], (s.predicted + s.reference).sum(0)[1:]
    dice = (2 * intersection + 1e-5) / (total + 1e-5).clamp_min(1e-8)
    return s.cross_entropy_sum / s.voxels - dice.mean()


def save(file: Path, content: dict) -> None:
    temporary = file.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(file)


@torch.no_grad()
def evaluate(forward, head: torch.nn.Module, cases: range, device: str) -> float:
    """Mean Dice over classes and cases never trained on."""
    intersection, total = torch.zeros(CLASSES + 1), torch.zeros(CLASSES + 1)
    for index in cases:
        image, labels = atlas_case(index, CLASSES, GRID, seed=1, device=device)
        basis = forward(((image - image.mean()) / image.std())[None, None])[0]
        predicted = torch.cat([head(row[None]).argmax(1)[0] for row in basis.split(8, 1)]).cpu().flatten()
        labels = labels.cpu().flatten()
        intersection += torch.bincount(labels[predicted == labels], minlength=CLASSES + 1)
        total += torch.bincount(labels, minlength=CLASSES + 1) + torch.bincount(predicted, minlength=CLASSES + 1)
    return float((2 * intersection / total)[1:].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--folder", type=Path, default=Path(".benchmarks/demo"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    fold = arguments.folder / "fold_0"
    fold.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "plans.json").write_text(json.dumps(plans(), indent=2))
    (arguments.folder / "dataset.json").write_text(json.dumps(dataset(), indent=2))

    torch.manual_seed(0)
    network = build().to(arguments.device)
    head = network.decoder.seg_layers[-1]
    network.decoder.seg_layers[-1] = torch.nn.Identity()
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, arguments.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(1e-3, 1 - step / arguments.steps) ** 0.9)
    state_file, start = fold / "state.pth", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=arguments.device)
        network.load_state_dict(state["network"])
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        start = state["step"]

    def save_state(step: int) -> None:
        parts = {"network": network, "head": head, "optimizer": optimizer, "schedule": schedule}
        save(state_file, {"step": step, **{name: part.state_dict() for name, part in parts.items()}})

    begin, running = time.time(), 0.0
    for step in range(start, arguments.steps):
        image, labels = atlas_case(step, CLASSES, GRID, seed=0, device=arguments.device)
        basis = network(((image - image.mean()) / image.std())[None, None])
        value = loss(basis, head.weight.flatten(1), head.bias, labels[None])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 12)
        optimizer.step()
        schedule.step()
        running += (value.item() - running) / min(step + 1 - start, 50)
        if (step + 1) % 100 == 0:
            entry = {"step": step + 1, "loss": round(running, 4), "seconds": round(time.time() - begin)}
            if (step + 1) % 500 == 0:
                entry["dice"] = round(evaluate(network, head, range(4), arguments.device), 4)
            with open(arguments.folder / "log.jsonl", "a") as log:
                log.write(json.dumps(entry) + "\n")
            print(entry, flush=True)
            save_state(step + 1)
    network.decoder.seg_layers[-1] = head
    save(
        fold / "checkpoint_final.pth",
        {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres", "fold": 0},
            "inference_allowed_mirroring_axes": None,
        },
    )


if __name__ == "__main__":
    main()
