"""What worked with version 0.2.0 works still: imports, commands, calls in the Python console, bundles, scenes."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from ClassScaleSegLib import open_model
from ClassScaleSegLib.resources import resource

DATA = Path(__file__).parents[1] / "Data"
IMPORTS = {
    "ClassScaleSegLib": (
        "Cancelled ClassScaleError Code Geometry ImageError Label LabelTable LabelTableError Model ModelError Options "
        "OutOfMemoryError OutputError OutputExistsError Progress Segmentation open_model pack segment"
    ),
    "ClassScaleSegLib.catalog": "Catalog",
    "ClassScaleSegLib.labels": "Code Label LabelTable",
    "ClassScaleSegLib.process": "Event Job SegmentationProcess",
    "classscale_training": (
        "ClassScaleHead ClassStatistics CrossEntropyDiceLoss DeepSupervisionLoss LabelSets RegionLoss RegionStatistics "
        "class_statistics region_statistics"
    ),
}


@pytest.mark.parametrize("module", IMPORTS)
def test_names_are_imported_from_where_they_were(module):
    found = __import__(module, fromlist=["*"])
    assert [name for name in IMPORTS[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize(
    ("command", "subcommands"),
    [
        ("classscaleseg", "segment inspect pack models demo"),
        ("classscaleseg-train", "plan preprocess train validate export toy evaluate convert trainers"),
    ],
)
def test_commands_have_their_subcommands(command, subcommands, capsys):
    (entry,) = entry_points(group="console_scripts", name=command)
    for name in subcommands.split():
        with pytest.raises(SystemExit) as left:
            entry.load()([name, "--help"])
        assert left.value.code == 0 and f"{command} {name}" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["ClassScaleSegLib", "classscale_training.loop", "classscale_training.commands"])
def test_modules_run_as_programs(module):
    run = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("usage:"), run.stderr


@pytest.mark.parametrize(
    ("imported", "not_loaded"),
    [
        ("classscale_training.commands", "torch nnunetv2"),
        ("classscale_training.loss.losses", "torch._dynamo torch._inductor"),  # torch's compiler, as slow as torch
    ],
)
def test_what_takes_seconds_is_loaded_when_it_is_used(imported, not_loaded):
    code = f"import sys, {imported}; print([name for name in {not_loaded.split()} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("name", ["toy-120", "toy-1000", "head-mr-312"])
def test_bundles_open(name):
    path = resource("Models", f"{name}.zip")
    with zipfile.ZipFile(path) as bundle:
        version = 2 if name == "head-mr-312" else 1  # whose weights have 8 bits
        assert json.loads(bundle.read("manifest.json"))["version"] == version
    assert len(open_model(path).table.foreground) == {"toy-120": 120, "toy-1000": 1000, "head-mr-312": 311}[name]


def test_a_scene_keeps_its_choices_and_its_segments():
    slicer_application = pytest.importorskip("slicer_application")
    slicer = slicer_application.slicer
    scene, widget = slicer.mrmlScene, slicer_application.application.make_widget(slicer_application.module)
    panel = widget.panel
    try:
        scene.SetURL(str(DATA / "scene-0.2.0.mrml"))
        assert scene.Import()
        widget.enter()
        node = panel.state.parameters
        assert node.inputVolume.GetName() == "CT" and node.model == "toy-120"
        assert panel.class_list.chosen() == ["cell 5", "cell 6", "cell 7"]
        assert (node.step, node.memoryLimit, node.folds, node.device, node.keepEmpty) == (0.75, 1.5, "0", "cpu", True)
        assert panel.ui.stepSpinBox.value == 0.75 and panel.ui.keepEmptyCheckBox.checked
        segmentation = node.segmentation.GetSegmentation()
        names = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
        assert names == ["cell 5", "cell 6", "cell 7"]
        assert panel.state.node is node.segmentation
    finally:
        widget.cleanup()
        scene.Clear()


def test_nothing_is_reported_as_a_leak_when_a_command_ends_after_triton_was_loaded():
    pytest.importorskip("triton")
    code = "import triton._C.libtriton; from ClassScaleSegLib.process.ending import leave; leave(3)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (3, "")
