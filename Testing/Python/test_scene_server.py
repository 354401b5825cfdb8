# ruff: noqa: F811  fixtures
"""Volumes of the scene are segmented by a server, as scripts do it: real scene, real child process, real server."""

import time

import numpy as np
import pytest
from ClassScaleSegLib import ClassScaleError, ImageError, ModelError, ServerError
from ClassScaleSegLib.process import child
from ClassScaleSegLib.remote.chosen_server import ChosenServer
from ClassScaleSegLib.remote.faults import Unencrypted
from ClassScaleSegLib.scene.run import SceneRun
from ClassScaleSegLib.scene.sequence import browser_of
from logic_fixtures import logic, measured, scene  # noqa: F401  fixtures
from mrml import segments
from panel_scene import make_sequence
from panel_server import server  # noqa: F401  fixture
from slicer_application import add_volume, load_sample, slicer
from vtk.util.numpy_support import vtk_to_numpy

from ClassScaleSegPanel.install import missing  # isort: skip  needs the stand-ins

# What a child process of Slicer's Python lacks if only psutil and scipy were installed.
ABSENT = ("torch", "nnunetv2", "safetensors", "tqdm", "monai", "highdicom", "pandas", "cc3d", "fastapi", "uvicorn")
BLOCKED = f"""
import json, sys
job = sys.orig_argv[sys.orig_argv.index("--job") + 1] if "--job" in sys.orig_argv else None
if job and json.load(open(job))["server"]:  # the child of a client, not that of the server
    sys.modules.update(dict.fromkeys({ABSENT}))  # importing them fails
"""
FAST = {"mirroring": False, "step": 1}


@pytest.fixture
def device(server, monkeypatch, tmp_path):
    """The server as a device, for a Python that has nothing but what Slicer has."""
    api, token = server
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CLASSSCALESEG_TOKEN", token)
    real = missing.is_installed
    monkeypatch.setattr(missing, "is_installed", lambda name: name in ("psutil", "scipy") and real(name))
    yield f"server:{api.address}"
    end = time.monotonic() + 60
    while api.files():  # neither image nor result stays there
        assert time.monotonic() < end, api.files()
        time.sleep(0.1)


def test_a_server_segments_with_confidence_and_statistics_as_this_computer_does(scene, logic, device):  # noqa: F811
    volume, stages = load_sample(), []
    confidence = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence")
    statistics = scene.AddNewNodeByClass("vtkMRMLTableNode", "Volumes")
    choices = {"confidence": confidence, "statistics": statistics, "classes": ["cell 7", "cell 9"], **FAST}
    run = logic.start(logic.request(volume, "toy-120", device=device, **choices))
    node = run.wait(lambda event: stages.append(event.stage))
    assert [segment.GetName() for segment in segments(node).values()] == ["cell 7", "cell 9"]
    assert {"start", "send", "segment", "fetch", "write"} <= set(stages)
    assert 0 < confidence.GetImageData().GetScalarRange()[1] <= 1
    rows = measured(statistics)
    assert set(rows) == {"cell 7", "cell 9"} and float(rows["cell 7"]["Surface area (mm2)"]) > 0


def test_each_frame_of_a_sequence_is_sent(scene, logic, device):  # noqa: F811
    volume, random = make_sequence("CT"), np.random.default_rng(0)
    sequence = browser_of(volume).GetMasterSequenceNode()
    for index in range(sequence.GetNumberOfDataNodes()):
        voxels = vtk_to_numpy(sequence.GetNthDataNode(index).GetImageData().GetPointData().GetScalars())
        voxels[:] = random.integers(0, 100, voxels.shape)
    node = logic.segment(volume, "toy-120", device=device, all_frames=True, keep_empty=True, **FAST)
    assert browser_of(node) is browser_of(volume) and len(segments(node)) == 120


def test_what_the_server_does_not_have_or_decides_itself_is_told_before_anything_is_sent(
    scene,  # noqa: F811
    logic,  # noqa: F811
    device,
    monkeypatch,
):
    volume = add_volume(np.zeros((9, 9, 9), np.int16))
    with pytest.raises(ModelError, match="has no model toy-1000. It offers toy-120"):
        logic.segment(volume, "toy-1000", device=device)
    with pytest.raises(ServerError, match="The server chooses threads. Leave that out."):
        logic.segment(volume, "toy-120", device=device, threads=2)
    with pytest.raises(ModelError, match="has no model gone"):
        logic.segment(volume, "toy-120", device=device, locate_with="gone")
    with pytest.raises(ImageError, match="needs 1 volume"):
        logic.segment([volume, volume], "toy-120", device=device)
    with pytest.raises(ServerError, match="lab-gpu:8471 lacks its beginning"):
        logic.segment(volume, "toy-120", device="server:lab-gpu:8471")
    with pytest.raises(Unencrypted, match="could read the image. Nothing was sent. .* insecure=True in Python"):
        logic.segment(volume, "toy-120", device="server:http://lab-gpu.invalid:8471")
    with pytest.raises(ServerError, match="cannot be reached"):
        logic.segment(volume, "toy-120", device="server:http://lab-gpu.invalid:8471", insecure=True)
    monkeypatch.setenv("CLASSSCALESEG_TOKEN", "css_wrong")
    with pytest.raises(ServerError, match="does not take the token"):
        logic.segment(volume, "toy-120", device=device)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_server_that_is_known_to_have_no_token_does_not_get_that_of_another(scene, logic, server, device):  # noqa: F811
    api, token = server
    volume = add_volume(np.zeros((20, 20, 20), np.int16))
    request = logic.request(volume, "toy-120", device=device)
    models = {model.id: model for model in request.segmented_by.offered()}
    known = ChosenServer(api.address, None, None, models)
    run = SceneRun(type(request)(request.volumes, request.model, options=request.options, server=known))
    run.start()
    with pytest.raises(ClassScaleError, match="asks for a token"):
        run.wait()


def test_without_psutil_a_script_is_told_what_is_missing_for_a_server(scene, logic, device, monkeypatch):  # noqa: F811
    monkeypatch.setattr(missing, "is_installed", lambda name: False)
    with pytest.raises(ClassScaleError, match="Python packages are missing: psutil, scipy. To install them"):
        logic.segment(load_sample(), "toy-120", device=device)


def test_cancelling_removes_image_and_job_from_the_server(scene, logic, server, device, monkeypatch):  # noqa: F811
    monkeypatch.setattr(child, "_SECONDS_TO_STOP", 30.0)  # it is not killed on a machine that stood still
    api, _token = server
    large = np.random.default_rng(0).integers(0, 100, (180, 180, 180)).astype(np.int16)  # so that it is found at work
    run = logic.start(logic.request(add_volume(large, "CT"), "toy-120", device=device))
    stages = []
    while "segment" not in stages:
        stages += [event.stage for event in run.poll()]
        assert run.state == "running", run.error
    run.cancel()
    assert run.state == "cancelled" and slicer.modules.ClassScaleSegInstance.running == []
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
