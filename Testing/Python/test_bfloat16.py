"""The option ``bfloat16``: nearly the same labels on a CPU, and a word where the processor cannot do it fast."""

import numpy as np
import pytest
import torch
from ClassScaleSegLib import open_model
from ClassScaleSegLib.inference import backbone, devices, label_map
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.resources import resource

pytest.importorskip("nnunetv2")

AMX, AVX = "_is_amx_tile_supported", "_is_avx512_bf16_supported"


def labels_of(bundle, sentences=None, **options):
    monitor = Monitor(lambda progress: sentences.append(progress.message)) if sentences is not None else Monitor()
    image = resource("SampleData", f"{bundle}.nrrd")
    return label_map.label_map(
        image, open_model(resource("Models", f"{bundle}.zip")), Options(device="cpu", **options), monitor
    )


@pytest.fixture(scope="module")
def exact():
    return labels_of("toy-120").labels


def test_labels_are_nearly_those_of_float32(exact, monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda: True)
    told: list[str] = []
    found = labels_of("toy-120", told, bfloat16=True)
    differ = np.mean(exact != found.labels)
    assert 0 < differ < 0.002  # 0 would mean that the option is not used
    assert not [sentence for sentence in told if "bfloat16" in sentence]


def test_a_processor_without_it_computes_in_float32_and_says_so(exact, monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda: False)
    told: list[str] = []
    found = labels_of("toy-120", told, bfloat16=True)
    assert np.array_equal(exact, found.labels)
    assert sum("no instructions for bfloat16" in sentence for sentence in told) == 1


class Whole(torch.nn.Module):
    """A network without encoder and decoder, such as a Primus."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("mirror_axes", [(), (0,)])
def test_a_network_that_is_not_run_in_slabs_computes_in_bfloat16_too(mirror_axes):
    patch = torch.rand(1, 1, 4, 4, 4)
    exact, found = (
        backbone.Backbone([Whole()], mirror_axes, bfloat16=reduced)(patch).float() for reduced in (False, True)
    )
    assert 0 < float((exact - found).abs().max()) < 0.02


@pytest.mark.parametrize(
    "onednn, told, helps",
    [
        (True, {AMX: True, AVX: True}, True),
        (True, {AMX: False, AVX: True}, True),
        (True, {AMX: False, AVX: False}, False),
        (True, {}, True),  # an older torch does not tell
        (False, {AMX: True, AVX: True}, False),
        (False, {}, False),
    ],
)
def test_what_the_processor_has(onednn, told, helps, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for name in (AMX, AVX):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: told[name], raising=False)
        if name not in told:
            monkeypatch.delattr(torch.cpu, name)
    assert devices.has_bfloat16() is helps
