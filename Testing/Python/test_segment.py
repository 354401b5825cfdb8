"""Whole segmentations: the shipped toy model against known labels, small models against plain arithmetic."""

import threading

import numpy as np
import pytest
import torch
from classscale_training.data.toy.atlas import atlas_case
from ClassScaleSegLib import (
    Cancelled,
    ClassScaleError,
    ImageError,
    LabelTableError,
    ModelError,
    Options,
    open_model,
    segment,
)
from ClassScaleSegLib.inference.several_models import segment_parts
from conftest import TOY, small_dataset, small_plans

pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def toy():
    return open_model(TOY)


@pytest.fixture(scope="module")
def toy_image():
    image, truth = atlas_case(7, 120, 96, seed=1)
    picture = sitk.GetImageFromArray(image.numpy())
    picture.SetSpacing([128 / 96] * 3)
    return picture, truth.numpy()


def test_the_toy_volume_is_segmented_on_its_own_finer_grid(toy, toy_image):
    image, truth = toy_image
    result = segment(image, toy, device="cpu")
    assert result.labels.shape == (96, 96, 96) and result.labels.dtype == np.uint16
    both = np.bincount(truth[result.labels == truth], minlength=121)
    dice = 2 * both / (np.bincount(truth.ravel(), minlength=121) + np.bincount(result.labels.ravel(), minlength=121))
    assert dice[1:].mean() > 0.93
    assert result.table[7].name == "cell 7" and len(result.table) == 121


def test_a_subset_of_classes_is_the_whole_with_the_others_removed(toy, toy_image):
    whole = segment(toy_image[0], toy, device="cpu").labels
    result = segment(toy_image[0], toy, device="cpu", classes=["cell 5", 17])
    assert np.array_equal(result.labels, np.where(np.isin(whole, (5, 17)), whole, 0))
    assert set(np.unique(result.labels)) == {0, 5, 17} and [x.name for x in result.table.foreground] == [
        "cell 5",
        "cell 17",
    ]
    with pytest.raises(LabelTableError, match="cell 500"):
        segment(toy_image[0], toy, device="cpu", classes=["cell 500"])


def random_image(size=(24, 20, 28), seed=0, spacing=(1.0, 1.0, 1.0)):
    image = sitk.GetImageFromArray(np.random.default_rng(seed).normal(50, 30, size).astype(np.float32))
    image.SetSpacing(spacing)
    return image


def plain_probabilities(model, image):
    """Softmax of nnU-Net's own windows on an image that lies on the model grid, ``(C, z, y, x)``."""
    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.inference.backbone import Backbone
    from ClassScaleSegLib.inference.preprocess import prepare
    from ClassScaleSegLib.inference.windows import predict_rows

    prepared = prepare(read_image(image, 1), model)
    with torch.no_grad():
        rows = predict_rows(prepared.image, Backbone(model.backbones), model.patch)
        basis = torch.stack(list(rows), 1)
    logits = torch.einsum("cr,rxyz->cxyz", model.projection.weight, basis) + model.projection.bias[:, None, None, None]
    return logits.softmax(0).numpy()


def test_confidence_is_the_softmax_of_the_winner(write_model):
    model, image = open_model(write_model()), random_image()
    result = segment(image, model, device="cpu", mirroring=False, confidence=True)
    expected = plain_probabilities(model, image)
    assert np.array_equal(result.labels, expected.argmax(0))
    np.testing.assert_allclose(result.confidence, expected.max(0), rtol=1e-4)
    assert result.confidence.dtype == np.float32


def test_confidence_of_regions_is_the_sigmoid_of_the_decision(write_model):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    dataset = small_dataset(labels, regions_class_order=[1, 2, 3])
    model, image = open_model(write_model(dataset=dataset)), random_image()
    result = segment(image, model, device="cpu", mirroring=False, confidence=True)
    assert len(np.unique(result.labels)) > 1
    assert (result.confidence[result.labels > 0] > 0.5).all()
    assert (result.confidence >= 0.5).all()  # nothing is there if every sigmoid is below a half


def test_what_was_guessed_of_the_image_is_in_the_result(write_model, tmp_path):
    sitk.WriteImage(random_image(), str(file := tmp_path / "image.mha"))
    file.write_bytes(file.read_bytes().replace(b"ElementSpacing = 1 1 1\n", b""))
    told = []
    model = open_model(write_model())
    result = segment(file, model, device="cpu", progress=lambda progress: told.append(progress.message))
    assert (
        result.notices[0].startswith(f"{file} does not say how far its voxels are apart") and len(result.notices) == 1
    )
    assert result.notices[0] in told and result.without_islands(2).notices == result.notices
    folder = write_model()
    assert segment_parts(file, [folder, folder], Options(device="cpu")).notices == result.notices


def test_threads_device_and_the_voxel_order_do_not_change_the_labels(write_model):
    plans = small_plans()
    plans.update(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    model, image = open_model(write_model(plans)), random_image(spacing=(1.7, 0.8, 1.3))
    first = segment(image, model, device="cpu", threads=1)
    second = segment(image, model, device="cpu", threads=2)
    assert (first.labels == second.labels).mean() > 0.9999
    assert first.labels.shape == (24, 20, 28) and first.geometry.spacing == pytest.approx((1.7, 0.8, 1.3))


@pytest.mark.parametrize("variable, threads, expected", [("1", None, 1), ("1", 2, 2), (None, 2, 2)])
def test_threads_are_those_asked_for_and_afterwards_as_before(write_model, monkeypatch, variable, threads, expected):
    before, seen = torch.get_num_threads(), set()
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(1)
    try:
        options = {"device": "cpu", "mirroring": False, "threads": threads}
        segment(
            random_image(),
            open_model(write_model()),
            progress=lambda report: seen.add(torch.get_num_threads()) if report.stage == "segment" else None,
            **options,
        )
        assert seen == {expected} and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_2d_model_segments_a_volume_slice_by_slice(write_model):
    model = open_model(write_model(small_plans(dimension=2)))
    image = random_image(size=(5, 20, 28), spacing=(1.0, 1.0, 4.0))
    whole = segment(image, model, device="cpu", mirroring=False)
    assert whole.labels.shape == (5, 20, 28) and len(np.unique(whole.labels)) > 3
    single = segment(image[:, :, 2], model, device="cpu", mirroring=False)
    # same normalisation by the plans' statistics, so a slice alone gives what it gives in the volume
    assert np.array_equal(single.labels[0], whole.labels[2])


def test_memory_limit_sends_the_ring_to_disk_and_changes_nothing(write_model, monkeypatch):
    model, image, places = open_model(write_model()), random_image(size=(40, 40, 40)), []
    from ClassScaleSegLib.inference import memory_estimate, rolling_accumulator

    monkeypatch.setattr(memory_estimate, "_slab_bytes", lambda *_: 0)
    original = rolling_accumulator.Ring.__init__
    monkeypatch.setattr(
        rolling_accumulator.Ring, "__init__", lambda self, *a: (places.append(a[3]), original(self, *a))[1]
    )
    usual = segment(image, model, device="cpu", mirroring=False)
    estimate = memory_estimate.estimate(model, (40, 40, 40), (1.0, 1.0, 1.0), 0.5, False, 4, False)
    need = estimate.placement("cpu", "cpu").host_bytes
    tight = segment(image, model, device="cpu", mirroring=False, memory_limit_gib=(need - 1) / 2**30)
    assert places == ["cpu", "disk"] and np.array_equal(usual.labels, tight.labels)


def test_progress_tells_stages_in_order_and_cancelling_works_in_each(write_model):
    model, image, stages = open_model(write_model()), random_image(), []
    segment(image, model, device="cpu", progress=lambda report: stages.append(report.stage))
    assert list(dict.fromkeys(stages)) == ["read", "preprocess", "segment"]
    for stage in ("read", "preprocess", "segment"):
        token = threading.Event()

        def stop(report, stage=stage, token=token):
            if report.stage == stage:
                token.set()

        with pytest.raises(Cancelled, match=f"^Cancelled during {stage}; nothing was written"):
            segment(image, model, device="cpu", progress=stop, cancel=token)


def test_what_cannot_be_done_is_said(write_model):
    image = random_image()
    model = open_model(write_model())
    with pytest.raises(ImageError, match="zero everywhere"):
        segment(sitk.Image([20, 20, 20], sitk.sitkInt16), model)
    with pytest.raises(ClassScaleError, match="The step is 1.5"):
        segment(image, model, step=1.5)
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["resampling_fn_probabilities_kwargs"]["order"] = 3
    with pytest.raises(ModelError, match="resamples logits with .*.order.: 3"):
        segment(image, open_model(write_model(plans)), device="cpu")


def test_the_library_imports_without_anything_heavy():
    import subprocess
    import sys

    code = "import sys, ClassScaleSegLib, ClassScaleSegLib.commands.main; "
    code += "print([m for m in 'torch nnunetv2 SimpleITK slicer scipy matplotlib'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"


def test_options_take_what_scripts_give_and_refuse_what_they_cannot_mean():
    given = Options(device=None, step=None, mirroring=np.bool_(False), threads=np.int64(2), folds=0)
    assert given == Options(mirroring=False, threads=2, folds=(0,)) and type(given.threads) is int
    for wrong in ({"classes": {"liver": 1}}, {"classes": b"ab"}, {"threads": 0}, {"threads": True}, {"mirroring": 1}):
        with pytest.raises(ClassScaleError, match=f"{next(iter(wrong))} is .*must be"):
            Options(**wrong)
