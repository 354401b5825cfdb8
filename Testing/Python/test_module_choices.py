"""Every choice of the panel is kept: when scenes are saved, closed and loaded, steps undone, nodes removed."""

import pytest
from slicer_application import application, import_scene, load_sample, saved_scene, slicer
from test_module_faults import small_volume, wait_for

from ClassScaleSegPanel.parameters import ClassScaleSegParameterNode  # isort: skip  needs the stand-ins


def choose_everything(panel):
    """Choose something other than the default for every parameter, and return what was chosen, by name."""
    scene, parameters = slicer.mrmlScene, panel.state.parameters
    kinds = {
        "inputVolume": "vtkMRMLScalarVolumeNode",
        "channel2": "vtkMRMLScalarVolumeNode",
        "channel3": "vtkMRMLScalarVolumeNode",
        "channel4": "vtkMRMLScalarVolumeNode",
        "region": "vtkMRMLMarkupsROINode",
        "segmentation": "vtkMRMLSegmentationNode",
        "confidence": "vtkMRMLScalarVolumeNode",
        "statistics": "vtkMRMLTableNode",
    }
    for name, kind in kinds.items():
        setattr(parameters, name, scene.AddNewNodeByClass(kind, f"The {name}"))
    choices = {
        "allFrames": True,
        "model": "toy-1000",
        "moreModels": "toy-120",
        "classes": "cell 5 (Toy atlas, 1000 classes)\ncell 6 (Toy atlas, 120 classes)",
        "standardNames": False,
        "keepEmpty": True,
        "device": "cuda:7",
        "memoryLimit": 3.5,
        "step": 0.75,
        "mirroring": False,
        "folds": "0 2",
        "threads": 3,
        "smooth": 1.5,
        "removeIslands": 500.0,
        "locateWith": "toy-120",
        "overlap": "keep",
        "report": "/data/the report",
        "interpolation": "nearest",
        "bfloat16": True,
    }
    for name, value in choices.items():
        setattr(parameters, name, value)
    return {**{name: f"The {name}" for name in kinds}, **choices}


def chosen(panel, names):
    values = {name: getattr(panel.state.parameters, name) for name in names}
    return {name: value.GetName() if hasattr(value, "GetName") else value for name, value in values.items()}


def shown(panel):
    """What the widgets show, by name of the parameter."""
    bound = {w.property("SlicerParameterName"): w for w in vars(panel.ui).values()}
    bound = {name: widget for name, widget in bound.items() if name}
    read = {"qMRMLNodeComboBox": lambda w: w.currentNode() and w.currentNode().GetName(), "QLineEdit": lambda w: w.text}
    read["QCheckBox"] = lambda w: w.checked
    values = {n: read.get(w.className().split("::")[-1], lambda w: w.value)(w) for n, w in bound.items()}
    assert panel.ui.modelComboBox.currentData == panel.state.shown.id
    values["model"], values["device"] = panel.state.models[0].id, panel.ui.deviceComboBox.currentData
    values["locateWith"], values["overlap"] = panel.ui.locateComboBox.currentData, panel.ui.overlapComboBox.currentData
    values["interpolation"] = panel.ui.interpolationComboBox.currentData
    values["moreModels"] = "\n".join(model.id for model in panel.state.models[1:])
    return {**values, "classes": panel.class_list.value()}


@pytest.mark.parametrize("opened", [True, False])
def test_a_scene_keeps_every_choice_when_it_is_saved_closed_and_loaded_ten_times(panel, opened):
    choices = choose_everything(panel)
    assert choices.keys() == ClassScaleSegParameterNode.__annotations__.keys()  # none was left out
    for _time in range(10):
        saved = saved_scene()
        if not opened:
            application.leave()
        slicer.mrmlScene.Clear()
        import_scene(saved)
        if not opened:
            application.enter()
        assert chosen(panel, choices) == choices and shown(panel) == choices


def test_a_scene_that_is_added_to_another_brings_its_choices(panel):
    choices = choose_everything(panel)
    saved = saved_scene()
    slicer.mrmlScene.Clear()
    small_volume("Other")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Other region")
    import_scene(saved)
    assert chosen(panel, choices) == choices == shown(panel)


def test_a_step_that_is_undone_shows_the_parameters_again(panel):
    scene, volume = slicer.mrmlScene, small_volume()
    scene.SetUndoOn()
    try:
        panel.state.parameters.region = region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
        region.SetUndoEnabled(True)
        scene.SaveStateForUndo()
        scene.RemoveNode(region)
        assert panel.state.parameters.region is None and panel.ui.regionSelector.currentNode() is None
        scene.Undo()
    finally:
        scene.SetUndoOff()
    assert panel.state.parameters is not None and panel.state.parameters.inputVolume is volume
    panel.ui.regionSelector.setCurrentNode(scene.GetFirstNodeByName("Region"))
    assert panel.state.parameters.region.GetName() == "Region"


def test_a_node_that_is_removed_is_not_replaced_by_its_neighbour(panel):
    scene, parameters = slicer.mrmlScene, panel.state.parameters
    first, second, third = (small_volume(name) for name in ("First", "Second", "Third"))
    nodes = [scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in ("A", "B")]
    parameters.inputVolume, parameters.confidence, parameters.segmentation = second, third, nodes[1]
    scene.RemoveNode(third)
    scene.RemoveNode(nodes[1])
    assert parameters.confidence is None and parameters.segmentation is None
    assert panel.ui.confidenceSelector.currentNode() is None and panel.ui.segmentationSelector.currentNode() is None
    parameters.confidence = small_volume("For the confidence")
    scene.RemoveNode(second)
    assert parameters.inputVolume is first is panel.ui.inputSelector.currentNode()
    scene.RemoveNode(first)
    assert parameters.inputVolume is None and not panel.ui.applyButton.enabled


def test_a_removed_volume_leaves_the_memory(panel):
    import gc
    import weakref

    freed = []
    for close in (False, True):
        volume = small_volume()
        panel.ui.inputSelector.setCurrentNode(volume)
        volume.GetImageData().AddObserver("DeleteEvent", lambda caller, event: freed.append(event))
        keeper = weakref.ref(volume)
        if close:
            slicer.mrmlScene.Clear()
        else:
            slicer.mrmlScene.RemoveNode(volume)
        del volume
        gc.collect()
        assert len(freed) == 1 + close and keeper() is None


def test_the_result_of_a_run_stays_chosen_if_the_module_was_left_meanwhile(panel, answers):
    panel.ui.inputSelector.setCurrentNode(load_sample())
    panel.ui.stepSpinBox.value, panel.ui.mirroringCheckBox.checked = 1, False
    panel.ui.applyButton.click()
    application.leave()
    wait_for(panel)
    application.enter()
    node = panel.ui.segmentationSelector.currentNode()
    assert node is not None and node is panel.state.parameters.segmentation is panel.state.node
    assert len(panel.results.table.keys()) > 100 and answers == []


def test_a_volume_that_a_script_selects_is_shown(panel):
    volumes = [small_volume(name) for name in ("CT", "MR")]
    application.leave()
    slicer.mrmlScene.RemoveNode(panel.logic.getParameterNode().parameterNode)
    application.enter()  # the panel is the first that observes the new parameter node
    for volume in reversed(volumes):
        panel.logic.getParameterNode().inputVolume = volume
        assert panel.ui.inputSelector.currentNode() is volume
