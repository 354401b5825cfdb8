"""The devices of a server: a process of its own asks for them, and clients learn whether a job fits there."""

from __future__ import annotations

import psutil
import pytest
from ClassScaleSegLib import errors
from ClassScaleSegLib.inference.memory_estimate import Estimate
from ClassScaleSegLib.remote.connection import Connection
from ClassScaleSegLib.remote.fit import describe_fit
from ClassScaleSegLib.remote.health import Health
from ClassScaleSegLib.server import devices
from ClassScaleSegLib.server.devices import described
from ClassScaleSegLib.server.workers import Slot
from odd_json import WEIRD
from remote_fixtures import lying_server

GB = 10**9
TORCH = """
import types
__version__ = "2.9"
print("a library prints")
cuda = types.SimpleNamespace(
    is_available=lambda: True,
    device_count=lambda: 2,
    get_device_name=lambda index: f"NVIDIA H{index}00",
    get_device_properties=lambda index: types.SimpleNamespace(total_memory=(index + 1) * 8 * 10**9),
)
backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
device = lambda name: types.SimpleNamespace(index=int(name[5:]) if ":" in name else None)
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A torch that offers two GPUs, of 8 and 16 GB, to other processes."""
    (tmp_path / "torch.py").write_text(TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_one_process_asks_for_the_memory_of_all_devices(two_gpus, monkeypatch):
    asked, real = [], devices.subprocess.run
    monkeypatch.setattr(devices.subprocess, "run", lambda *words, **more: asked.append(words) or real(*words, **more))
    slots = [Slot("first", "cuda"), Slot("second", "cuda:1"), Slot("limited", "cuda:1", memory_limit_gib=1.0)]
    found = described([*slots, Slot("cpu", "cpu"), Slot("auto", "auto")])
    assert [facts["memory"] for facts in found[:3]] == [8 * GB, 16 * GB, 1 << 30] and len(asked) == 1
    assert 0 < found[3]["memory"] <= psutil.virtual_memory().total and found[4]["memory"] is None
    # as torch calls it: NVIDIA's driver may number them otherwise
    assert [facts["about"] for facts in found[:3]] == ["NVIDIA H000", "NVIDIA H100", "NVIDIA H100"]
    assert found[1]["name"] == "second" and found[4]["about"] == "auto"


def test_a_device_that_is_not_there_is_named_with_those_that_are(two_gpus):
    with pytest.raises(errors.ClassScaleError, match="There is no device cuda:7 here.*cuda:0 to cuda:1"):
        described([Slot("cuda:1", "cuda:1"), Slot("cuda:7", "cuda:7")])


def test_a_process_that_says_nothing_is_told(tmp_path, two_gpus):
    (tmp_path / "torch.py").write_text("raise SystemExit(0)")
    with pytest.raises(errors.ClassScaleError, match="The device cuda:1 cannot be looked for .*Try --devices cpu"):
        described([Slot("cuda:1", "cuda:1")])


def test_what_a_process_that_fails_says_is_told(tmp_path, two_gpus, monkeypatch):
    (tmp_path / "torch.py").write_text("raise RuntimeError('The driver is too old')")
    with pytest.raises(errors.ClassScaleError, match=r"for \(RuntimeError: The driver is too old\). Try"):
        described([Slot("cuda:1", "cuda:1")])
    monkeypatch.setattr(devices, "_SECONDS_TO_ASK", 0.0)
    with pytest.raises(errors.ClassScaleError, match=r"for \(no answer within 0 seconds\). Try"):
        described([Slot("cuda:1", "cuda:1")])


def need(gpu: float, ram: float) -> Estimate:
    """An estimate of a job that takes so many GB on a GPU, or so many of main memory without one."""
    sizes = dict.fromkeys(("network", "network_in_slabs", "basis", "ring", "stored", "slabs", "image", "rows"), 0)
    empty = Estimate((1, 1, 1), 1, **sizes, labels=0)
    base = empty.placement("cuda", "cuda").device_bytes, empty.placement("cpu", "cpu").host_bytes
    sizes |= {"network": 2 * int(gpu * GB - base[0]), "network_in_slabs": int(ram * GB - base[1])}
    return Estimate((1, 1, 1), 1, **sizes, labels=0)


@pytest.mark.parametrize(
    ("names", "memory", "said"),
    [
        (("cuda:0 (NVIDIA A40)",), (48 * GB,), "That fits: the GPU there has 48.0 GB."),
        (("cuda:0", "cuda:1"), (8 * GB, 8 * GB), "That fits: the GPU there has 8.0 GB."),
        (("cuda:0",), (4 * GB,), "That is too much: the GPU there has 4.0 GB. It will take less there, and longer."),
        (
            ("cuda:0", "cuda:1"),
            (48 * GB, 4 * GB),
            "That fits on some devices only: the GPUs there have 4.0 to 48.0 GB.",
        ),
        (("cpu",), (16 * GB,), "That fits: there are 16.0 GB of RAM."),
        (("cpu",), (2 * GB,), "That is too much: there are 2.0 GB of RAM. It will take less, and longer, or fail."),
        (("cuda:0", "cuda:1"), (48 * GB, None), ""),
        (("cuda:0",), (), ""),
        (("cpu", "cuda:0"), (48 * GB, 48 * GB), ""),
        ((), (), ""),
    ],
)
def test_whether_a_job_fits_is_said_as_far_as_it_is_known(names, memory, said):
    health = Health("0.2.0", "a", "accepted", names, 0, 0, memory)
    assert describe_fit(need(gpu=6, ram=3), health).startswith(said) and bool(said) == bool(
        describe_fit(need(gpu=6, ram=3), health)
    )


def test_a_server_of_an_older_version_or_one_that_lies_tells_no_memory():
    with lying_server() as liar:
        old = {"name": "cuda:0", "about": "NVIDIA A40"}
        liar.health(devices=[old])
        assert Connection(liar.address).health().memory == (None,)
        values = [*WEIRD, 0, -1, 1 << 60, True, 8.0]
        liar.health(devices=[{**old, "memory": value} for value in values][:64])
        assert set(Connection(liar.address).health().memory) == {None, 1 << 40}
        liar.health(devices=[{**old, "memory": 48 * GB}, old])
        found = Connection(liar.address).health()
        assert found.memory == (48 * GB, None) and found.device == "cuda"
        assert found.devices_with_memory == ("cuda:0 (NVIDIA A40), 48.0 GB", "cuda:0 (NVIDIA A40)")
