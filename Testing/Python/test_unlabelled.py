"""Images without labels are checked as those of a dataset are, before a pretraining takes them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import numpy as np
import SimpleITK as sitk
from classscale_training.loop.model_folder import CONFIGURATION, plans
from classscale_training.network.plain_unet import architecture
from classscale_training.nnunet.pretraining import unlabelled
from classscale_training.nnunet.pretraining.unlabelled import preprocess_unlabelled
from ClassScaleSegLib.errors import ImageError, OutputError

PLANS = plans("Dataset001_X", (8, 8, 8), [1.0, 1.0, 1.0], architecture((8, 8), (1, 1), (1,)))
DATASET = {"labels": {"background": 0}, "modality": {"0": "MR"}, "file_ending": ".nii.gz"}


def save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array.astype(np.float32)), str(file))


def preprocess(root: Path):
    return preprocess_unlabelled(root / "images", root / "made", PLANS, CONFIGURATION, DATASET, 0, bar=False)


def voxels() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 10, 11))


def test_a_dataset_with_nnunets_older_word_for_channels_is_read(tmp_path):
    save(tmp_path / "images" / "a_0000.nii.gz", voxels())
    found = preprocess(tmp_path)["a"].load_case("a")[0]
    assert found.shape == (1, 9, 10, 11) and abs(float(np.mean(found[:]))) < 1e-5


def test_images_that_would_spoil_a_pretraining_are_named(tmp_path):
    save(tmp_path / "images" / "a_0000.nii.gz", voxels())
    save(tmp_path / "images" / "b_0000.nii.gz", np.where(voxels() > 2, np.nan, voxels()))
    with pytest.raises(ImageError, match="b_0000.nii.gz has [0-9]+ voxels that are NaN or infinite"):
        preprocess(tmp_path)
    save(tmp_path / "images" / "b_0000.nii.gz", voxels() * 0)
    with pytest.raises(ImageError, match="b_0000.nii.gz of the case b holds zeros alone"):
        preprocess(tmp_path)
    (tmp_path / "images" / "b_0000.nii.gz").write_bytes(b"xx")
    with pytest.raises(ImageError, match="b_0000.nii.gz") as caught:
        preprocess(tmp_path)
    assert "Exception thrown" not in str(caught.value)
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["a"]


def test_a_full_disk_is_not_a_fault_of_the_image(tmp_path, monkeypatch):
    save(tmp_path / "images" / "a_0000.nii.gz", voxels())

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unlabelled.ClassScalePreprocessor, "run_case_save", full)
    with pytest.raises(OutputError, match="cannot be written .No space left on device."):
        preprocess(tmp_path)
    assert list((tmp_path / "made").iterdir()) == []
