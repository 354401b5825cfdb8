"""Odd volumes, a view and a model for random sequences in the stand-in application: see ``panel_user.py``."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from conftest import MODEL, small_dataset, small_plans, stock_network, write_checkpoint
from slicer_application import add_volume, load_sample, slicer

LONG = "A very long name of something that somebody once has measured, " * 5
NAMES = ("CT", "<b>CT</b> & more", LONG, "", "ClassScaleSegToy120", "é/\\:*?", "a_T1w", "b FLAIR", "T1 Gd")
CHANNELS = ("T1", "FLAIR", "T1c", "CT", "noNorm")
VOLUMES = ("normal", "sample", "voxel", "labels", "vector", "empty", "bent", "moved", "collapsed", "frames")
_kept = tempfile.TemporaryDirectory(prefix="panel-user-")  # removed at the end of the process


def add_view() -> Any:
    """Add a slice view as the layout of the application does: a singleton that stays when the scene is closed."""
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
    view = _singleton("vtkMRMLSliceNode")
    view.SetOrientation("Axial")
    return slicer.mrmlScene.AddNode(view)


def add_layers() -> Any:
    """Add what a slice view shows, in the same way."""
    return slicer.mrmlScene.AddNode(_singleton("vtkMRMLSliceCompositeNode"))


def _singleton(kind: str) -> Any:
    node = slicer.mrmlScene.CreateNodeByClass(kind)
    node.UnRegister(None)
    node.SetName("Red")
    node.SetSingletonTag("Red")
    node.SetLayoutName("Red")
    return node


def make_volume(kind: str, name: str) -> Any:
    """Add a volume to the scene that is odd in some way."""
    scene, array = slicer.mrmlScene, np.zeros((20, 21, 22), np.int16)
    if kind == "sample":
        return load_sample(name)
    if kind == "frames":
        return make_sequence(name)
    if kind == "empty":
        return scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    volume = add_volume(array[:1, :1, :1] if kind == "voxel" else array, name)
    if kind in ("labels", "vector"):
        other = scene.AddNewNodeByClass(
            {"labels": "vtkMRMLLabelMapVolumeNode", "vector": "vtkMRMLVectorVolumeNode"}[kind]
        )
        other.SetAndObserveImageData(volume.GetImageData())
        scene.RemoveNode(volume)
        return other
    if kind == "bent":
        bent = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bent")
        bent.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
        volume.SetAndObserveTransformNodeID(bent.GetID())
    if kind == "moved":
        moved = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
        volume.SetAndObserveTransformNodeID(moved.GetID())
    if kind == "collapsed":
        volume.SetIJKToRASDirections(1, 0, 0, 0, 1, 0, 0, 0, 0)
    return volume


def make_sequence(name: str) -> Any:
    scene = slicer.mrmlScene
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    for value in "12":
        volume = add_volume(np.zeros((8, 9, 10), np.int16), name)
        sequence.SetDataNodeAtValue(volume, value)
        scene.RemoveNode(volume)
    browser.AddSynchronizedSequenceNode(sequence)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser.GetProxyNode(sequence)


@functools.cache
def model_of_channels(count: int) -> Path:
    """Return a model folder with so many channels, which is made once."""
    folder = Path(_kept.name) / f"Dataset00{count}_Small" / MODEL
    names = dict(zip(map(str, range(count)), CHANNELS, strict=False))
    plans, dataset = small_plans(channels=count), small_dataset(channels=count) | {"channel_names": names}
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", stock_network(plans, dataset))
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder
