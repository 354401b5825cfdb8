"""The memory plan: what is estimated, what is chosen, what happens when it does not fit."""

import os

import pytest
import torch
from ClassScaleSegLib import OutOfMemoryError, open_model
from ClassScaleSegLib.inference.estimate import estimate, plan_memory
from ClassScaleSegLib.inference.memory import MemoryPlan, Placement, Tiles, is_out_of_memory
from ClassScaleSegLib.inference.ring import Ring
from conftest import small_dataset, small_plans

GIB = 2**30


@pytest.mark.parametrize(
    "error, expected",
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("x"), True),
        (RuntimeError("shape mismatch"), False),
        (OutOfMemoryError("our own last word"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_want_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


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
    assert (many.ring, many.basis, many.image, many.network) == (few.ring, few.basis, few.image, few.network)


def test_on_a_cpu_the_ring_goes_to_disk_when_the_limit_is_tight(job):
    need, messages = job(), []
    in_memory, on_disk = need.placement("cpu", "cpu").host_bytes, need.placement("cpu", "disk").host_bytes
    assert plan_memory(need, "cpu", in_memory, messages.append).ring == "cpu" and not messages
    assert plan_memory(need, "cpu", in_memory - 1, messages.append).ring == "disk"
    assert "Using the network on the CPU, rolling basis in a temporary file" in messages[0]
    with pytest.raises(OutOfMemoryError, match="more than the limit of 0.1 GiB"):
        plan_memory(need, "cpu", GIB // 10, messages.append)
    assert on_disk < in_memory


def test_on_a_gpu_the_ring_leaves_first_and_the_network_last(job):
    need = job()
    whole, lean = need.placement("cuda", "cuda").device_bytes, need.placement("cuda", "cpu").device_bytes
    assert whole - lean == need.ring
    for limit, places in ((whole, ("cuda", "cuda")), (whole - 1, ("cuda", "cpu")), (lean - 1, ("cpu", "cpu"))):
        plan = plan_memory(need, "cuda", limit, lambda message: None)
        assert (plan.compute, plan.ring) == places
