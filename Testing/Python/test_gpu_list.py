"""Which GPUs CUDA offers, told from what ``nvidia-smi -L`` printed on machines of several kinds."""

from __future__ import annotations

import os

import pytest
from ClassScaleSegLib.inference.devices import find_devices
from ClassScaleSegLib.inference.gpu_list import listed_gpus, offered_gpus

SAME = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-e91edf3b-b297-37c1-a2a7-7601c3238fa2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-e5b5b0b1-0000-37c1-a2a7-7601c3238fa2)
"""
MIXED = """\
GPU 0: Quadro P400 (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)
GPU 1: NVIDIA GeForce RTX 4090 (UUID: GPU-0c3a6f0e-1111-2222-3333-444455556666)
GPU 2: NVIDIA GeForce RTX 4090 (UUID: GPU-0c3affff-1111-2222-3333-444455556666)
"""
DIVIDED = """\
GPU 0: NVIDIA A40 (UUID: GPU-1a2b3c4d-b297-37c1-a2a7-7601c3238fa2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-e91edf3b-b297-37c1-a2a7-7601c3238fa2)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
"""
A100, P400, RTX, UNSURE = "NVIDIA A100-SXM4-40GB", "Quadro P400", "NVIDIA GeForce RTX 4090", None
CASES = [
    (SAME, None, None, [A100, A100]),
    (SAME, "1", None, [A100]),
    (SAME, "", None, []),
    (SAME, "-1", None, []),
    (SAME, "0,7,1", None, [A100]),  # what follows one that is not there is not offered either
    (SAME, "NoDevFiles", None, []),
    (SAME, "1, 0", None, [A100, A100]),
    (SAME, "0,0", None, []),
    (SAME, "GPU-e", None, []),  # both begin so
    (MIXED, None, "PCI_BUS_ID", [P400, RTX, RTX]),
    (MIXED, "2,0", "PCI_BUS_ID", [RTX, P400]),
    (MIXED, None, None, [UNSURE] * 3),  # CUDA has the fastest first
    (MIXED, "0", "FASTEST_FIRST", [UNSURE]),
    (MIXED, "GPU-8932f937,GPU-0c3aff", None, [P400, RTX]),
    (MIXED, "GPU-0c3affff-1111-2222-3333-444455556666,1", None, [RTX, UNSURE]),
    (DIVIDED, None, None, [f"{A100} MIG 1g.5gb"]),  # and no other GPU
    (DIVIDED, "0", "PCI_BUS_ID", ["NVIDIA A40"]),
    (DIVIDED, "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", None, [f"{A100} MIG 3g.20gb"]),
    (DIVIDED, "MIG-GPU-e91edf3b-b297-37c1-a2a7-7601c3238fa2/3/0", None, [f"{A100} MIG"]),
    (DIVIDED, "MIG-cba,MIG-c6d", None, [f"{A100} MIG 3g.20gb"]),
    ("No devices were found\n", "0", None, []),
]


@pytest.mark.parametrize(("listed", "visible", "order", "names"), CASES)
def test_cuda_offers_what_the_environment_leaves_of_the_gpus(listed, visible, order, names):
    chosen = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": order}
    environment = {name: value for name, value in chosen.items() if value is not None}
    expected = [name or f"{P400} or {RTX}" for name in names]
    assert offered_gpus(listed_gpus(listed), environment) == expected


@pytest.mark.skipif(os.name == "nt", reason="the driver is a script here")
def test_the_list_of_devices_follows_the_environment(monkeypatch, tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\ncat <<'END'\n{MIXED}END\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    found = find_devices()
    assert list(found) == ["cuda:0", "cuda:1", "cpu"] and found["cuda:1"] == P400
