"""What failed leaves the memory at once: the fault does not keep the images and models of its callers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.commands.case_runner import CaseRunner
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.resources import resource


class Voxels:
    """Stands for an array, which Python cannot watch."""


@pytest.fixture
def without_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_fault_in_a_thread_keeps_nothing_of_who_waited_for_it(without_collection):
    watched = []

    def fail() -> None:
        raise ImageError("It is truncated.")

    def segment() -> None:
        voxels = Voxels()
        watched.append(weakref.ref(voxels))
        Monitor().wait_for(fail)

    with pytest.raises(ImageError, match="It is truncated."):
        segment()
    assert watched[0]() is None


def test_a_case_that_failed_is_not_in_memory_beside_the_next_one(tmp_path, monkeypatch, without_collection):
    for name in "ab":
        (tmp_path / f"{name}.nrrd").write_bytes(resource("SampleData", "toy-120.nrrd").read_bytes())
    watched, alive = [], []

    def fail(*_: object) -> None:
        alive.append(sum(voxels() is not None for voxels in watched))
        voxels = Voxels()
        watched.append(weakref.ref(voxels))
        raise ImageError("It is truncated.")

    monkeypatch.setattr(CaseRunner, "run", fail)
    assert main(["segment", str(tmp_path), "-m", "toy-120", "-o", str(tmp_path / "results")]) != ExitCode.OK
    assert alive == [0, 0]
