"""What a user does with the module and the scene: see ``panel_user.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from panel_actions import Acting, action, number
from panel_checks import NODES, panel_values
from panel_scene import NAMES, VOLUMES, make_volume
from slicer_application import application, import_scene, saved_scene, slicer


class SceneActions(Acting):
    """Opens and leaves the module, saves, closes and loads scenes, adds, changes and removes nodes."""

    folder: Any
    saved: str
    chosen: dict[str, Any]

    @action()
    def leave_or_enter(self) -> None:
        (application.leave if self.open else application.enter)()

    @action()
    def close_scene(self) -> None:
        self.scene.Clear()
        self.demand(self.panel.state.run is None, "a run goes on in a closed scene")

    @action()
    def save_scene(self) -> None:
        for node in list(self.scene.GetNodes()):  # Slicer would have saved what these belong to
            if node.IsA("vtkMRMLStorageNode") and not node.GetFileName():
                self.scene.RemoveNode(node)
        self.scene.SetRootDirectory(str(self.folder / "results"))  # as Slicer does; files are named relative to it
        self.saved, self.chosen = saved_scene(), self.choices()

    @action(close=st.booleans())
    def load_scene(self, close: bool) -> None:
        if self.saved and close:
            self.scene.Clear()
            import_scene(self.saved)
            # a channel that was empty may be found by name now
            empty = [name for name, value in self.chosen.items() if name.startswith("channel") and value is None]
            now = {**self.choices(), **dict.fromkeys(empty)}
            self.demand(now == self.chosen, "another choice after loading", now, self.chosen)
        elif self.saved:
            import_scene(self.saved)

    def choices(self) -> dict[str, Any]:
        """Return the parameters that a scene keeps whatever models and volumes there are, nodes by their names."""
        values = panel_values(self.panel.logic.getParameterNode())
        kept = {name: value for name, value in values.items() if name not in ("inputVolume", "model", "classes")}
        return {name: value.GetName() if name in NODES and value else value for name, value in kept.items()}

    @action(on=st.booleans())
    def switch_undo(self, on: bool) -> None:
        (self.scene.SetUndoOn if on else self.scene.SetUndoOff)()

    @action()
    def save_state(self) -> None:
        self.scene.SaveStateForUndo()

    @action(again=st.booleans())
    def undo(self, again: bool) -> None:
        (self.scene.Redo if again else self.scene.Undo)()

    @action()
    def store_view(self) -> None:
        self.scene.AddNewNodeByClass("vtkMRMLSceneViewNode", "View").StoreScene()

    @action(index=number)
    def restore_view(self, index: int) -> None:
        if view := self.pick(index, "vtkMRMLSceneViewNode"):
            view.RestoreScene()

    @action(kind=st.sampled_from((*VOLUMES, "normal", "normal")), name=st.sampled_from(NAMES))
    def add_volume(self, kind: str, name: str) -> None:
        make_volume(kind, name).SetUndoEnabled(kind in ("voxel", "sample"))

    @action(kind=st.sampled_from(("MarkupsROI", "Segmentation", "Table", "LinearTransform", "Text")))
    def add_node(self, kind: str) -> None:
        node = self.scene.AddNewNodeByClass(f"vtkMRML{kind}Node", self.scene.GenerateUniqueName(kind))
        node.SetUndoEnabled(True)

    @action(index=number)
    def remove_node(self, index: int) -> None:
        nodes = self.visible()
        if nodes:
            self.scene.RemoveNode(nodes[-1 - index % len(nodes)])

    @action(name=st.sampled_from(NODES))
    def remove_chosen_node(self, name: str) -> None:
        node = getattr(self.panel.logic.getParameterNode(), name)
        if node is not None:
            self.scene.RemoveNode(node)
            now = getattr(self.panel.logic.getParameterNode(), name)
            self.demand(now is None or name == "inputVolume", f"its neighbour is chosen: {name}", now)

    @action(index=number)
    def remove_display_or_storage(self, index: int) -> None:
        if node := self.pick(index, "vtkMRMLDisplayNode", "vtkMRMLStorageNode"):
            if node.GetScene() is not None and not node.GetSingletonTag():
                self.scene.RemoveNode(node)

    @action(index=number, name=st.sampled_from(NAMES))
    def rename(self, index: int, name: str) -> None:
        nodes = self.visible()
        if nodes:
            nodes[-1 - index % len(nodes)].SetName(name)

    @action(index=number, under=number)
    def put_under_transform(self, index: int, under: int) -> None:
        node = self.pick(index, "vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLMarkupsROINode")
        above = self.pick(under, "vtkMRMLTransformNode")
        if node is not None:
            node.SetAndObserveTransformNodeID(above.GetID() if above is not None and under % 3 else None)

    @action(index=number, far=st.booleans())
    def move_region(self, index: int, far: bool) -> None:
        if region := self.pick(index, "vtkMRMLMarkupsROINode"):
            region.SetSize(9, 9, 9)
            region.SetCenter(999 if far else 5, 5, 5)

    @action(index=number, take=st.booleans())
    def change_voxels(self, index: int, take: bool) -> None:
        if volume := self.pick(index, "vtkMRMLScalarVolumeNode"):
            if take:
                volume.SetAndObserveImageData(None)
            else:
                slicer.util.updateVolumeFromArray(volume, np.ones((9, 10, 11), np.int16))
