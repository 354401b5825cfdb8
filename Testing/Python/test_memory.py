"""The memory plan: what is estimated, what is chosen, what happens when it does not fit."""

import os
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from ClassScaleSegLib import OutOfMemoryError, open_model
from ClassScaleSegLib.inference.devices import free_memory
from ClassScaleSegLib.inference.memory_estimate import (
    Estimate,
    ModelSize,
    _separate_axis,
    describe_need,
    estimate,
    largest,
    model_grid,
)
from ClassScaleSegLib.inference.memory_plan import MemoryPlan, Placement, Tiles, is_out_of_memory, plan_memory
from ClassScaleSegLib.inference.rolling_accumulator import Ring
from ClassScaleSegLib.inference.tiling import Tiling
from ClassScaleSegLib.models.summary import summarize
from conftest import TOY, small_dataset, small_plans

GIB = 2**30


@pytest.mark.parametrize(
    "error, expected",
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("x"), True),
        (RuntimeError("shape mismatch"), False),
        (OutOfMemoryError("our own last word"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_want_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(("device", "index"), [("cuda", None), ("cuda:1", 1)])
def test_free_memory_is_asked_for_by_index_as_older_torch_wants_it(device, index, monkeypatch):
    asked = []
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda which: asked.append(which) or (7 * GIB, 8 * GIB))
    assert free_memory(device) == 7 * GIB and asked == [index]


def test_a_device_that_lacks_an_operator_is_left_for_the_next():
    plan, tried = MemoryPlan([Placement("mps", "mps"), Placement("cpu", "cpu")]), []

    def work():
        tried.append(plan.compute)
        if plan.compute == "mps":
            raise RuntimeError("ConvTranspose 3D is not supported on MPS")
        return "done"

    moves = []
    plan.watch(moves.append)
    assert plan.retry(work) == "done" and tried == ["mps", "cpu"] and moves == [Placement("cpu", "cpu")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_ring_that_the_disk_cannot_hold_is_an_error_not_a_crash(monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb", buffering=0))
    with pytest.raises(OutOfMemoryError, match="The rolling basis needs .* TMPDIR"):
        Ring(4, 3, (8, 8), "disk")


def test_tiles_halve_and_repeat_only_the_failed_one():
    done = []

    def work(tile):
        if tile.stop - tile.start > 3:
            raise MemoryError
        done.extend(range(tile.start, tile.stop))

    tiles = Tiles(12)
    tiles.run(20, work)
    assert done == list(range(20)) and tiles.size == 3


def test_a_tile_of_one_voxel_that_does_not_fit_is_an_error():
    def work(tile):
        raise MemoryError

    with pytest.raises(MemoryError):
        Tiles(4).run(4, work)


@pytest.fixture
def job(write_model):
    """Estimate of a 100^3 image of 2 mm for a model of 1 mm and some number of classes."""

    def make(classes=20):
        model = open_model(write_model(small_plans(), small_dataset(classes)))
        return estimate(model, (100, 100, 100), (2.0, 2.0, 2.0), step=0.5, confidence=False)

    return make


def test_the_estimate_knows_the_formula_and_not_the_classes(job):
    few, many = job(20), job(900)
    assert few.grid == (200, 200, 200) and few.windows == 24**3
    assert few.ring == (8 + 1) * 4 * 16 * 200 * 200  # rank and weight, float32, one patch depth of planes
    assert few.basis == 8 * 16**3 * 4 and few.labels == 2 * 100**3
    assert replace(many, grid=few.grid) == few


def test_reading_holds_the_image_once_and_of_several_channels_one_more(write_model):
    for channels, held in ((1, 1), (3, 4)):
        model = open_model(write_model(small_plans(channels=channels), small_dataset(channels=channels)))
        assert estimate(model, (40, 30, 20), (1.0, 1.0, 1.0), voxel_bytes=4).read == held * 40 * 30 * 20 * 4


def test_on_a_cpu_the_ring_goes_to_disk_when_the_limit_is_tight(job):
    need, messages = replace(job(), slabs=0), []
    in_memory, on_disk = need.placement("cpu", "cpu").host_bytes, need.placement("cpu", "disk").host_bytes
    assert plan_memory(need.placements("cpu"), "cpu", in_memory, messages.append).ring == "cpu" and not messages
    assert plan_memory(need.placements("cpu"), "cpu", in_memory - 1, messages.append).ring == "disk"
    assert "Using the network on the CPU, rolling basis in a temporary file" in messages[0]
    with pytest.raises(OutOfMemoryError, match="more than the limit of 0.1 GiB"):
        plan_memory(need.placements("cpu"), "cpu", GIB // 10, messages.append)
    assert on_disk < in_memory


def test_on_a_gpu_the_ring_leaves_first_and_the_network_last(job):
    need = job()
    whole, lean = need.placement("cuda", "cuda").device_bytes, need.placement("cuda", "cpu").device_bytes
    assert whole - lean == need.ring
    for limit, places in ((whole, ("cuda", "cuda")), (whole - 1, ("cuda", "cpu")), (lean - 1, ("cpu", "cpu"))):
        plan = plan_memory(need.placements("cuda"), "cuda", limit, lambda message: None)
        assert (plan.compute, plan.ring) == places


def test_an_axis_that_is_resampled_separately_is_the_one_that_nnunet_names():
    """If it is not the first, the rows cannot be made as windows need them, and all of them are held."""
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    random, held = np.random.default_rng(0), []
    for _ in range(300):
        spacing, target = (random.choice([0.5, 1.0, 1.5, 4.0], 3) * random.uniform(1, 1.1, 3) for _ in range(2))
        forward = tuple(random.permutation(3).tolist())
        size = ModelSize((16,) * 3, tuple(target.tolist()), 8, 0, 8, 1, transpose=forward)
        separate, axis = determine_do_sep_z_and_axis(None, spacing[list(forward)], target)
        assert _separate_axis(size, spacing.tolist()) == (int(axis) if separate else None)
        held.append(axis)
    assert {None, 0, 1, 2} <= set(held)


@pytest.mark.parametrize("step", [0.25, 1 / 3, 0.5, 0.7, 1.0])
def test_windows_are_counted_as_nnunet_places_them(step):
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    for patch in (16, 28, 64, 96, 127, 128):
        for size in [*range(patch, 3 * patch + 2, 7), 10 * patch + 1]:
            starts = compute_steps_for_sliding_window((size,), (patch,), step)
            assert Tiling((patch,), step).counts((size,)) == [len(starts[0])], (size, patch, step)
    assert Tiling((64, 64, 64), 0.5).counts((200, 100, 64)) == [6, 3, 1]


def test_the_model_grid_is_the_one_nnunet_resamples_to():
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    random = np.random.default_rng(0)
    for _ in range(300):
        shape, spacing, target = random.integers(1, 700, 3), random.uniform(0.3, 5, 3), random.choice([0.5, 1.5, 3], 3)
        forward = tuple(random.permutation(3).tolist())
        size = ModelSize((16,) * 3, tuple(target.tolist()), 8, 0, 8, 1, transpose=forward)
        expected = compute_new_shape(shape[list(forward)], spacing[list(forward)], target)
        assert model_grid(size, shape.tolist(), spacing.tolist()) == tuple(expected.tolist())


MODELS = {
    "3D": (small_plans(), {}),
    "three folds": (small_plans(), {"seeds": (0, 1, 2)}),
    "2D": (small_plans(dimension=2), {}),
    "residual": (small_plans("ResidualEncoderUNet"), {}),
    "two channels": (small_plans(channels=2), {"channels": 2}),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("classes", [5, 20])
def test_the_estimate_of_a_summary_is_that_of_the_model(write_model, kind, classes):
    plans, more = MODELS[kind]
    folder = write_model(plans, small_dataset(classes, more.get("channels", 1)), more.get("seeds", (0,)))
    model, image = open_model(folder), ((90, 80, 70), (2.0, 1.5, 1.0), 0.5, True)
    summary, exact = summarize(folder), estimate(model, *image)
    assert ModelSize.of(summary).rank == model.rank
    found = estimate(summary, *image)
    networks = {"network": 0, "network_in_slabs": 0}
    assert replace(found, **networks) == replace(exact, **networks)
    heads = 0 if model.average_folds else 4 * len(model.folds) * (classes + 1) * (8 + 1)
    assert found.network - heads == exact.network  # those of the summary count with the rest


def test_the_estimate_of_a_bundle_knows_its_parameters():
    image = ((96, 96, 96), (128 / 96,) * 3)
    found, exact = estimate(summarize(TOY), *image), estimate(open_model(TOY), *image, 0.5, False)
    assert found == replace(exact, network=found.network, network_in_slabs=found.network_in_slabs)
    assert exact.network <= found.network < exact.network * 1.02  # the heads of the summary count with the rest


def test_the_estimate_needs_neither_torch_nor_nnunet():
    code = (
        "import sys; from ClassScaleSegLib.inference.memory_estimate import *;"
        "from ClassScaleSegLib.models.summary import summarize;"
        f"need = estimate(summarize({str(TOY)!r}), (96, 96, 96), (1.0, 1.0, 1.0));"
        "print(describe_need(need, 'cuda'));"
        "print([m for m in ('torch', 'nnunetv2', 'SimpleITK', 'scipy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].endswith("GB of RAM; this does not grow with the number of classes") and said[1] == "[]"


def need_of(grid=(1, 1, 1), windows=1, **sizes):
    return Estimate(grid, windows, **{**{f.name: 0 for f in fields(Estimate)[2:]}, **sizes})


def test_the_need_is_told_in_one_sentence():
    gb = 10**9
    network = {"network": 2 * gb, "network_in_slabs": gb, "basis": gb, "ring": 4 * gb}
    need = need_of(windows=8, **network, stored=3 * gb, image=2 * gb, rows=gb, labels=gb)
    end = "; this does not grow with the number of classes"
    assert describe_need(need, "cpu") == "about 9.7 GB of RAM" + end  # 0.65 + labels 1 + image 2, ring 4, network 1, 1
    assert describe_need(need, "cuda:1") == "about 6.6 GB of GPU memory and 5.7 GB of RAM" + end
    assert describe_need(need, "auto") == (
        "about 6.6 GB of GPU memory and 5.7 GB of RAM (without a GPU 9.7 GB of RAM)" + end
    )


def test_the_image_is_prepared_as_windows_need_it_where_that_takes_less_memory():
    coarse, fine = need_of(stored=300, image=100, rows=40), need_of(stored=300, image=900, rows=40)
    assert not coarse.rolls("cpu") and fine.rolls("cpu") and coarse.rolls("cuda")
    interpreter = need_of(stored=1, rows=1).placement("cpu", "cpu").host_bytes - 1
    assert coarse.placement("cpu", "cpu").host_bytes - interpreter == 400
    assert fine.placement("cpu", "cpu").host_bytes - interpreter == 340


def test_several_models_need_what_the_largest_needs_and_two_label_maps():
    one = need_of((1, 2, 3), 5, network=10, ring=7, labels=8)
    two = need_of((1, 2, 3), 4, network=20, ring=6, labels=8)
    assert largest([one, two]) == need_of((1, 2, 3), 5, network=20, ring=7, labels=16)
    assert largest([one]) == one
