"""The shipped toy model end to end, against its known labels and against nnU-Net's own arithmetic."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")
from classscale_training.toy import atlas_case  # noqa: E402
from ClassScaleSegLib import ModelError, open_model, segment  # noqa: E402
from ClassScaleSegLib.inference.windows import predict_rows  # noqa: E402

TOY = Path(__file__).parents[2] / "Resources" / "Models" / "toy-120"


@pytest.fixture(scope="module")
def model():
    return open_model(TOY)


def test_the_toy_volume_is_segmented_on_its_own_finer_grid(model, tmp_path):
    image, truth = atlas_case(7, 120, 96, seed=1)
    file = sitk.GetImageFromArray(image.numpy())
    file.SetSpacing([128 / 96] * 3)
    sitk.WriteImage(file, str(tmp_path / "toy.nii.gz"))
    labels, _ = segment(tmp_path / "toy.nii.gz", model)
    assert labels.shape == (96, 96, 96) and labels.dtype == np.uint16
    truth = truth.numpy()
    both = np.bincount(truth[labels == truth], minlength=121)
    dice = 2 * both / (np.bincount(truth.ravel(), minlength=121) + np.bincount(labels.ravel(), minlength=121))
    assert dice[1:].mean() > 0.93


@pytest.mark.parametrize("patch, mirror", [((8, 6, 8), ()), ((8, 6, 8), (0, 2)), ((6, 8), (1,)), ((20, 6, 8), ())])
def test_rolling_rows_equal_the_whole_accumulator(patch, mirror):
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    torch.manual_seed(0)
    dimensions = len(patch)
    convolution = (torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d)(1, 5, 3, padding=1)
    image = torch.randn(1, 17, 13, 11)
    with torch.no_grad():
        rows = torch.stack(list(predict_rows(image, convolution, patch, 0.5, mirror)), 1)
        full = (1, *patch) if dimensions == 2 else patch
        lost = [max(p - s, 0) for p, s in zip(full, image.shape[1:], strict=True)]
        padded = torch.nn.functional.pad(image, [n for p in reversed(lost) for n in (p // 2, p - p // 2)])
        steps = compute_steps_for_sliding_window(padded.shape[-dimensions:], patch, 0.5)
        steps = [list(range(padded.shape[1])), *steps] if dimensions == 2 else steps
        gaussian = compute_gaussian(patch, 1 / 8, 10, torch.float32, torch.device("cpu")).view(full)
        total, weight = torch.zeros(5, *padded.shape[1:]), torch.zeros(padded.shape[1:])
        flips = [()] if not mirror else [(), *[(a + 2,) for a in mirror]]
        flips += [tuple(a + 2 for a in mirror)] if len(mirror) == 2 else []
        for start in np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3):
            box = tuple(slice(s, s + p) for s, p in zip(start, full, strict=True))
            part = padded[(slice(None), *box)]
            part = (part[:, 0] if dimensions == 2 else part)[None]
            out = sum(convolution(part.flip(f)).flip(f) for f in flips)[0] / len(flips)
            total[(slice(None), *box)] += (out[:, None] if dimensions == 2 else out) * gaussian
            weight[box] += gaussian
    expected = (total / weight)[
        (slice(None), *[slice(p // 2, p // 2 + s) for p, s in zip(lost, (17, 13, 11), strict=True)])
    ]
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


def test_faults_of_a_model_are_sentences(tmp_path):
    with pytest.raises(ModelError, match="plans.json is missing"):
        open_model(tmp_path)
    for name in ("plans.json", "dataset.json"):
        (tmp_path / name).write_text((TOY / name).read_text())
    with pytest.raises(ModelError, match="no fold with a checkpoint_final.pth"):
        open_model(tmp_path)
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_final.pth").write_bytes(b"truncated")
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        open_model(tmp_path)
    (tmp_path / "dataset.json").write_text(
        (TOY / "dataset.json").read_text().replace('"cell 120": 120', '"x": 120, "y": 121')
    )
    (tmp_path / "fold_0.safetensors").write_bytes((TOY / "fold_0.safetensors").read_bytes())
    with pytest.raises(ModelError, match="do not fit 122 classes"):
        open_model(tmp_path)


def test_a_checkpoint_without_its_head_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    for name in ("plans.json", "dataset.json"):
        (tmp_path / name).write_text((TOY / name).read_text())
    weights = load_file(TOY / "fold_0.safetensors")
    save_file({k: v for k, v in weights.items() if "seg_layers.3" not in k}, tmp_path / "fold_0.safetensors")
    with pytest.raises(ModelError, match="decoder.seg_layers.3.weight is missing"):
        open_model(tmp_path)


def test_what_would_be_silently_wrong_is_refused(model, tmp_path):
    sitk.WriteImage(sitk.Image([8, 8], sitk.sitkFloat32), str(tmp_path / "flat.mha"))
    with pytest.raises(ValueError, match="is a 2D image"):
        segment(tmp_path / "flat.mha", model)
    plans = (TOY / "plans.json").read_text().replace("SimpleITKIO", "NibabelIOWithReorient")
    (tmp_path / "plans.json").write_text(plans)
    for name in ("dataset.json", "fold_0.safetensors"):
        (tmp_path / name).write_bytes((TOY / name).read_bytes())
    with pytest.raises(ValueError, match="NibabelIOWithReorient, which reorders voxels"):
        segment(tmp_path / "flat.mha", open_model(tmp_path))
