"""Awkward inputs and models that are understood, and must stay so: what people report that other programs get wrong."""

import copy
import json
import shutil
import zipfile

import numpy as np
import pytest
from ClassScaleSegLib import ImageError, open_model, segment
from ClassScaleSegLib.images.reading import read_image
from conftest import MODEL, small_dataset

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("pydicom")

from dicom_phantom import (  # noqa: E402
    SECONDARY_CAPTURE,
    compare,
    planes,
    write_series,
    write_structure_set,
)

CPU = {"device": "cpu", "mirroring": False}


def image(shape=(12, 14, 16), value=None):
    voxels = np.random.default_rng(0).integers(1, 900, shape) if value is None else np.full(shape, value)
    result = sitk.GetImageFromArray(voxels.astype(np.int16))
    result.SetSpacing((2.0, 1.0, 1.5))
    return result


# --- images


@pytest.mark.parametrize("shape", [(1, 14, 16), (12, 1, 16), (1, 1, 1), (2, 2, 2)])
def test_images_of_one_slice_or_one_voxel(write_model, shape):
    result = segment(image(shape), open_model(write_model()), **CPU)
    assert result.labels.shape == shape


def test_an_image_with_one_voxel_that_is_not_zero(write_model):
    one = image(value=0)
    one[5, 6, 7] = 400
    result = segment(one, open_model(write_model()), **CPU)
    assert result.labels.shape == (12, 14, 16)
    assert not np.delete(result.labels.ravel(), np.ravel_multi_index((7, 6, 5), (12, 14, 16))).any()


def test_a_constant_image(write_model):
    result = segment(image(value=7), open_model(write_model()), **CPU)
    assert result.labels.shape == (12, 14, 16) and result.geometry.spacing == (2.0, 1.0, 1.5)
    with pytest.raises(ImageError, match="is zero everywhere"):
        segment(image(value=0), open_model(write_model()), **CPU)


def test_a_secondary_capture_with_positions_beside_a_structure_set(tmp_path):
    folder = write_series(tmp_path / "sc", planes(), SOPClassUID=SECONDARY_CAPTURE, Modality="OT")
    write_structure_set(folder / "RS.dcm")
    assert compare(read_image(folder, 1), planes()) < 1e-9


# --- models


def same_labels(model, other):
    first, second = (segment(image(), open_model(path), **CPU).labels for path in (model, other))
    assert first.any() and np.array_equal(first, second)


def test_plans_that_inherit_and_lie_beside_a_cascade(write_model, tmp_path):
    model = write_model()
    changed = tmp_path / "changed" / MODEL
    shutil.copytree(model, changed)
    plans = json.loads((changed / "plans.json").read_text())
    full = plans["configurations"].pop("3d_fullres")
    plans["configurations"] = {
        "3d_lowres": {**copy.deepcopy(full), "spacing": [4.0, 4.0, 4.0], "next_stage": "3d_cascade_fullres"},
        "base": full,
        "3d_fullres": {"inherits_from": "base", "batch_size": 8},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    (changed / "plans.json").write_text(json.dumps(plans))
    same_labels(model, changed)


def test_byte_order_marks(write_model, tmp_path):
    model = write_model()
    changed = tmp_path / "changed" / MODEL
    shutil.copytree(model, changed)
    for name in ("plans.json", "dataset.json"):
        (changed / name).write_text((changed / name).read_text(), encoding="utf-8-sig")
    same_labels(model, changed)


def test_what_macos_adds_to_a_zip(write_model, tmp_path):
    model = write_model()
    archive = tmp_path / "export.zip"
    top = f"nnUNet_results/Dataset007_Small/{MODEL}/"
    with zipfile.ZipFile(archive, "w") as file:
        for path in model.rglob("*"):
            if path.is_file():
                file.write(path, top + path.relative_to(model).as_posix())
        for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
            parent, _, last = name.rpartition("/")
            file.writestr(f"__MACOSX/{top}{parent}/._{last}", b"\0\5\x16\7")
        file.writestr(top + ".DS_Store", b"x")
    same_labels(model, archive)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_distributed_and_compiled_networks(write_model, tmp_path, prefix):
    import torch

    model = write_model()
    changed = tmp_path / "changed" / MODEL
    shutil.copytree(model, changed)
    file = changed / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["network_weights"] = {prefix + name: value for name, value in content["network_weights"].items()}
    torch.save(content, file)
    same_labels(model, changed)


@pytest.mark.parametrize("ignore", [False, True])
def test_regions_in_another_order_with_and_without_an_ignore_label(write_model, ignore):
    """Regions are painted one after the other, with the value that ``regions_class_order`` gives to each."""
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": [3]}
    if ignore:
        labels["ignore"] = 4
    order = [3, 1, 2]
    folder = write_model(dataset=small_dataset(labels, regions_class_order=order))
    found = segment(image(), open_model(folder), **CPU).labels
    assert set(np.unique(found)) <= {0, 1, 2, 3} and found.any()
    # nnU-Net adds windows up in half precision, which decides some of the many near ties of random weights differently
    assert (found != nnunet_labels(folder)).mean() < 0.01


def nnunet_labels(folder):
    """Return what nnU-Net itself makes of `image`."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=(0,))
    voxels = sitk.GetArrayFromImage(image())[None].astype(np.float32)
    return predictor.predict_single_npy_array(voxels, {"spacing": list(image().GetSpacing()[::-1])})
