"""Models for tests: small nnU-Net v2 model folders with random weights, and the shipped toy model as such a folder."""

from __future__ import annotations

import copy
import gc
import json
import locale
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOY = Path(__file__).parents[2] / "Resources" / "Models" / "toy-120.zip"
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
# Trainings are compared with nnU-Net's, and must not depend on the processor.
os.environ["CLASSSCALE_BFLOAT16"] = "f"

gc.set_threshold(20_000)  # of 700 new objects, each time: importing torch and nnU-Net makes half a million that stay


@pytest.fixture(autouse=True)
def encoding() -> Iterator[None]:
    """Files without a named encoding are read alike after each test: some libraries set the locale of the process."""
    before = locale.setlocale(locale.LC_CTYPE)
    yield
    if locale.setlocale(locale.LC_CTYPE) != before:
        locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C does the same after each test: importing dask_jobqueue changes it."""
    before = signal.getsignal(signal.SIGINT)
    yield
    if signal.getsignal(signal.SIGINT) is not before:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_run_left() -> Iterator[None]:
    """A test ends its runs in Slicer. One that it leaves is cancelled, so that the next test can have its own."""
    yield
    application = sys.modules.get("slicer_application")
    instance = getattr(application.slicer.modules, "ClassScaleSegInstance", None) if application is not None else None
    left = [] if instance is None else list(instance.running)
    for run in left:
        run.cancel()
    assert left == []


@pytest.fixture(autouse=True, scope="module")
def no_widgets_left() -> Iterator[None]:
    """What a file leaves of Qt is collected when it ends."""
    yield
    if "slicer_application" in sys.modules:
        gc.collect()


@pytest.fixture(autouse=True)
def collected_here() -> Iterator[None]:
    """Garbage with widgets in it is collected in this thread alone, between tests.

    Python collects in whichever thread makes the object too many, such as one of a server or of dask. The timers of
    widgets that another thread frees stay with Qt, which crashes when they are due.
    """
    if "slicer_application" in sys.modules:
        gc.disable()
    yield
    if "slicer_application" in sys.modules and gc.get_count()[0] > gc.get_threshold()[0]:
        gc.collect()


# Files that take longest. They begin first: at the end, one process would be busy with them, and the others idle.
LONGEST = (
    *("test_training_process", "test_cli", "test_kernels", "test_extension", "test_several_processes"),
    *("test_cluster", "test_names_and_terminals", "test_process", "test_loop", "test_gpu_runs", "test_locate"),
    *("test_auto3dseg", "test_module_report", "test_panel_sequences", "test_examples", "test_archive"),
    *("test_pretraining", "test_module_archive", "test_scene_server", "test_server_start", "test_server_clients"),
    *("test_planner", "test_exactness", "test_start_weights", "test_merged_training", "test_trainer"),
)


def pytest_configure(config) -> None:
    """Let no test read or write the data folder of whoever runs them, and no process that of another one."""
    from user_data import data_environment

    folder = tempfile.mkdtemp(prefix="classscaleseg-data-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.update(data_environment(Path(folder)))


def pytest_collection_modifyitems(items) -> None:
    """Let the longest files begin first; `make test` keeps this order (``--no-loadscope-reorder``)."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Leave what was imported alone when garbage is collected, as tests of freed memory and of Qt do."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries collect their own at the end; Triton complains of what they leave."""
    gc.unfreeze()


def small_plans(architecture: str = "PlainConvUNet", dimension: int = 3, channels: int = 1) -> dict:
    """Plans as nnU-Net 2.8 writes them: three stages, 8 basis channels, patch of 16, configuration ``3d_fullres``."""
    blocks = "n_conv_per_stage" if architecture == "PlainConvUNet" else "n_blocks_per_stage"
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    intensities = {"mean": 50.0, "std": 20.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0}
    return {
        "dataset_name": "Dataset007_Small",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {str(c): dict(intensities) for c in range(channels)},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "batch_dice": False,
                "patch_size": [16] * dimension,
                "spacing": [1.0] * dimension,
                "normalization_schemes": ["CTNormalization"] * channels,
                "use_mask_for_norm": [False] * channels,
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": {
                    "network_class_name": f"dynamic_network_architectures.architectures.unet.{architecture}",
                    "arch_kwargs": {
                        "n_stages": 3,
                        "features_per_stage": [8, 12, 16],
                        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
                        "kernel_sizes": [[3] * dimension] * 3,
                        "strides": [[1] * dimension, [2] * dimension, [2] * dimension],
                        blocks: [1, 2, 2],
                        "n_conv_per_stage_decoder": [1, 1],
                        "conv_bias": True,
                        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


def totalsegmentator_plans() -> dict:
    """`small_plans` as nnU-Net wrote them before version 2.5, by TotalSegmentator's name."""
    plans = small_plans()
    configuration = plans["configurations"]["3d_fullres"]
    new = configuration.pop("architecture")["arch_kwargs"]
    configuration.update(
        UNet_class_name="PlainConvUNet",
        UNet_base_num_features=32,
        unet_max_num_features=64,
        n_conv_per_stage_encoder=[2, 2, 2],
        n_conv_per_stage_decoder=[2, 2],
        num_pool_per_axis=[2, 2, 2],
        pool_op_kernel_sizes=new["strides"],
        conv_kernel_sizes=new["kernel_sizes"],
    )
    plans["dataset_name"] = "Dataset297_TotalSegmentator_total_3mm_1559subj"
    plans["image_reader_writer"] = "NibabelIO"
    plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")
    del plans["label_manager"]
    return plans


def small_dataset(labels: dict | int = 20, channels: int = 1, **more) -> dict:
    """``dataset.json`` with these labels, or this many classes besides the background."""
    if isinstance(labels, int):
        labels = {"background": 0, **{f"organ {value}": value for value in range(1, labels + 1)}}
    names = {str(channel): "CT" for channel in range(channels)}
    return {"channel_names": names, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz", **more}


def stock_network(plans: dict, dataset: dict, seed: int = 0):
    """What stock nnU-Net builds from these plans, with random weights."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(copy.deepcopy(plans))
    configuration = manager.get_configuration("3d_fullres")
    torch.manual_seed(seed)
    return get_network_from_plans(
        configuration.network_arch_class_name.replace("residual_unet", "unet"),
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        determine_num_input_channels(manager, configuration, dataset),
        manager.get_label_manager(dataset).num_segmentation_heads,
        deep_supervision=False,
    ).eval()


def write_checkpoint(file: Path, network, mirror_axes=(0, 1, 2), **more) -> None:
    """The entries that ``nnUNetTrainer.save_checkpoint`` writes, NumPy numbers among them."""
    import numpy as np
    import torch

    file.parent.mkdir(parents=True, exist_ok=True)
    weights = network if isinstance(network, dict) else network.state_dict()
    content = {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "lrs": [0.01], "epochs": [np.int64(3)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"configuration": "3d_fullres", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": mirror_axes,
    }
    torch.save({**content, **more}, file)


def logits(model, patch):
    """``(C, *patch)`` from backbones and projection, as inference combines them."""
    import torch

    with torch.inference_mode():
        parts = [backbone(patch)[0] for backbone in model.backbones]
        basis = torch.stack(parts).mean(0) if model.average_folds else torch.cat(parts)
        assert basis.shape[0] == model.rank
        projected = model.projection.weight @ basis.flatten(1) + model.projection.bias[:, None]
    return projected.view(-1, *basis.shape[1:])


@pytest.fixture
def write_model(tmp_path) -> Callable[..., Path]:
    """Writes ``Dataset007_Small/<MODEL>`` with one fold for each seed, and returns the model folder."""

    def write(plans: dict | None = None, dataset: dict | None = None, seeds=(0,), root: Path = tmp_path) -> Path:
        plans, dataset = plans or small_plans(), dataset or small_dataset()
        folder = root / "Dataset007_Small" / MODEL
        for fold, seed in enumerate(seeds):
            dimension = len(plans["configurations"]["3d_fullres"]["patch_size"])
            network = stock_network(plans, dataset, seed)
            write_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", network, tuple(range(dimension)))
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "dataset.json").write_text(json.dumps(dataset))
        return folder

    return write


@pytest.fixture
def toy_folder(tmp_path) -> Path:
    """The shipped toy model as an nnU-Net v2 model folder, for tests that edit a file of it."""
    import zipfile

    from safetensors.torch import load

    folder = tmp_path / "toy-120"
    with zipfile.ZipFile(TOY) as bundle:
        write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", load(bundle.read("fold_0.safetensors")), None)
        for name in ("plans.json", "dataset.json"):
            (folder / name).write_bytes(bundle.read(name))
    return folder


@pytest.fixture
def answers(monkeypatch):
    """What the user of the stand-in application was told and asked; questions are answered with OK."""
    from slicer_application import slicer

    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **more: told.append(text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: told.append(text) or True)
    return told


# Files whose runs are children of ``warm_child.py``, by how their names begin.
WARM = (
    *("test_module_", "test_panel_", "test_scene_", "test_translations"),
    *("test_server.", "test_server_faults", "test_remote_segmenter"),
)


@pytest.fixture(autouse=True)
def warm_children(request, monkeypatch):
    """In tests of Slicer's side and of the server, segmentation processes are forked from one that has loaded torch."""
    if request.path.name.startswith(WARM):
        from ClassScaleSegLib.process import child
        from warm_children import WarmChildren

        monkeypatch.setattr(child, "subprocess", WarmChildren())


@pytest.fixture
def panel(monkeypatch, tmp_path, answers):
    """The panel of the module in the stand-in application, on an empty scene."""
    import tempfile

    from PySide6.QtCore import QCoreApplication, QEvent
    from slicer_application import application, module, slicer
    from user_data import data_environment

    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    for name, value in data_environment(tmp_path / "data").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    slicer.mrmlScene.Clear()
    application.settings.clear()
    application.vtk_messages.clear()
    widget = application.make_widget(module)
    yield widget.panel
    widget.cleanup()
    widget.parent.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.DeferredDelete)  # processEvents() does not
    assert application.vtk_messages == []
    application.processEvents()
    assert list((tmp_path / "temporary").iterdir()) == [] and slicer.modules.ClassScaleSegInstance.running == []
