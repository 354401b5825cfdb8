"""Planning and preprocessing with many classes: patch, label resampling and class locations, beside stock nnU-Net's."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("nnunetv2")
import numpy as np
import SimpleITK as sitk
import torch
from classscale_training.data.dataset_json import check_labels
from classscale_training.nnunet.label_resampling import resample_labels
from classscale_training.nnunet.planner import PLANNERS, find_planner
from classscale_training.nnunet.preprocessing import MAX_LOCATIONS, ClassScalePreprocessor
from ClassScaleSegLib.errors import LabelTableError, ModelError
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

SHAPE, SPACING = (350, 400, 420), (1.5, 1.5, 1.5)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Writes a dataset of whole-body CTs with so many classes. Planning reads its fingerprint, no images."""

    def write(classes: int, dataset_id: int) -> int:
        name = f"Dataset{dataset_id:03d}_Planned"
        raw, preprocessed = tmp_path / "raw" / name, tmp_path / "preprocessed" / name
        for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
            folder.mkdir(parents=True)
        content = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, **{f"c{value}": value for value in range(1, classes)}},
            "numTraining": 1000,
            "file_ending": ".nii.gz",
        }
        (raw / "dataset.json").write_text(json.dumps(content))
        image = sitk.GetImageFromArray(np.zeros((4, 4, 4), np.int16))
        sitk.WriteImage(image, str(raw / "imagesTr" / "case_0000.nii.gz"))
        sitk.WriteImage(image, str(raw / "labelsTr" / "case.nii.gz"))
        intensities = {"mean": 0.0, "std": 1.0, "percentile_00_5": -1.0, "percentile_99_5": 1.0}
        fingerprint = {
            "spacings": [SPACING],
            "shapes_after_crop": [SHAPE],
            "foreground_intensity_properties_per_channel": {"0": intensities},
            "median_relative_size_after_cropping": 1.0,
        }
        (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        return dataset_id

    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # stock's planner cannot do with none
    return write


def plan(planner: type, dataset_id: int) -> tuple[list[int], int]:
    """Patch and batch of 3d_fullres. Stock's planner builds many networks for that, here without drawing weights."""
    with torch.device("meta"):
        found = planner(dataset_id).plan_experiment()["configurations"]["3d_fullres"]
    return list(map(int, found["patch_size"])), found["batch_size"]


def test_a_thousand_classes_get_the_patch_and_batch_of_two_where_stock_shrinks_them(dataset, capsys):
    few, many = dataset(2, 1), dataset(1001, 2)
    planner = find_planner("ExperimentPlanner")
    assert plan(planner, many) == plan(planner, few) == plan(ExperimentPlanner, few) == ([128, 128, 128], 2)
    shrunken, batch = plan(ExperimentPlanner, many)
    assert np.prod(shrunken) < 128**3 / 4 and batch == 2


@pytest.mark.parametrize("name", list(PLANNERS))
def test_each_preset_counts_the_basis_and_leaves_a_stock_network_in_the_plans(dataset, tmp_path, name, capsys):
    planner = find_planner(name)(dataset(1001, 3))
    planner.rank = 24
    plans = planner.plan_experiment()
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["classscale_rank"] == 24 and np.prod(configuration["patch_size"]) >= 128**3
    assert plans["plans_name"].startswith("ClassScale") and plans["experiment_planner_used"] == type(planner).__name__
    assert configuration["data_identifier"] == f"{plans['plans_name']}_3d_fullres"
    manager = PlansManager(str(next((tmp_path / "preprocessed").glob(f"*/{plans['plans_name']}.json"))))
    kept = manager.get_configuration("3d_fullres").network_arch_class_name
    assert kept.startswith("dynamic_network_architectures.architectures.unet.")


def test_a_rank_above_the_channels_or_an_unknown_planner_is_refused(dataset, capsys):
    planner = find_planner("ExperimentPlanner")(dataset(5, 4))
    planner.rank = 33
    with pytest.raises(ModelError, match="rank is 33, but the finest scale of the network has 32 channels"):
        planner.plan_experiment()
    with pytest.raises(ModelError, match="no planner nnUNetPlannerX"):
        find_planner("nnUNetPlannerX")


def blocks(classes: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Labels -1..classes-2 in ragged blocks, so that up to eight labels meet."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1, classes - 1, [size // 4 + 2 for size in shape])
    index = [np.clip((np.arange(size) + rng.integers(0, 3, size)) // 4, 0, size // 4 + 1) for size in shape]
    return coarse[np.ix_(*index)].astype(np.int16)


@pytest.mark.parametrize(
    ("shape", "spacing", "new_shape", "new_spacing"),
    [
        ((20, 24, 26), (1, 1, 1), (11, 20, 31), (1.8, 1.2, 0.84)),
        ((12, 14, 16), (1, 1, 1), (24, 28, 32), (0.5, 0.5, 0.5)),  # ties at every boundary
        ((8, 24, 26), (5, 1, 1), (6, 20, 31), (6.7, 1.2, 0.84)),  # separate z
        ((24, 8, 26), (1, 5, 1), (20, 8, 31), (1.2, 5, 0.84)),
        ((1, 24, 26), (9, 1, 1), (1, 20, 31), (9, 1.2, 0.84)),
        ((9, 9, 9), (1, 1, 1), (9, 9, 9), (1, 1, 1)),
    ],
)
def test_label_maps_are_resampled_as_nnunet_does_it_label_by_label(shape, spacing, new_shape, new_spacing):
    labels = blocks(60, shape)
    options = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
    expected = resample_data_or_seg_to_shape(labels[None], new_shape, spacing, new_spacing, **options)[0]
    axis = determine_do_sep_z_and_axis(None, spacing, new_spacing)[1]
    found = resample_labels(labels, new_shape, axis)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, expected)


def test_preprocessing_differs_from_stocks_in_the_number_of_class_locations_alone():
    from conftest import small_dataset, small_plans

    classes, shape = 600, (40, 44, 48)
    labels = np.abs(blocks(classes, shape))[None]
    labels[0, :, :, :24] = 1  # one large class
    data = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    manager = PlansManager(small_plans())
    dataset, configuration = small_dataset(classes - 1), manager.get_configuration("3d_fullres")
    ours, theirs = (
        kind(verbose=False).run_case_npy(data, labels, {"spacing": [1.2, 0.9, 1.1]}, manager, configuration, dataset)
        for kind in (ClassScalePreprocessor, DefaultPreprocessor)
    )
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert ours[1].max() > 255 and ours[1].dtype == np.int16
    capped, full = ours[2].pop("class_locations"), theirs[2].pop("class_locations")
    assert ours[2].keys() == theirs[2].keys() and capped.keys() == full.keys()
    limit = MAX_LOCATIONS // (classes - 1)
    assert {key: len(found) for key, found in capped.items()} == {k: min(limit, len(f)) for k, f in full.items()}
    assert len(full[1]) == 10_000 and len(capped[1]) == limit and capped[1].dtype == np.int32
    assert all((ours[1][tuple(capped[key].T)] == key).all() for key in (1, 300) if len(capped[key]))


def test_labels_of_dataset_json_must_be_consecutive():
    assert check_labels({"background": 0, "a": 1, "b": [1, 2], "ignore": 3}) == 3
    with pytest.raises(LabelTableError, match="^labels must be .* found 3 where 2 was expected"):
        check_labels({"background": 0, "a": 1, "b": 3})
    with pytest.raises(LabelTableError, match="must have .background., in small letters"):
        check_labels({"nothing": 0, "a": 1})
    with pytest.raises(LabelTableError, match="ignore label is 1; it must be the highest, 2"):
        check_labels({"background": 0, "ignore": 1, "a": 2})
    with pytest.raises(LabelTableError, match="highest label is 32768; nnU-Net holds labels up to 32767"):
        check_labels({"background": 0, "many": list(range(1, 32_769))})
