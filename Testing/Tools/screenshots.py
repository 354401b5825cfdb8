"""Make the pictures of the readme: the embedded samples, segmented by the embedded models, in Slicer's views.

    python Testing/Tools/screenshots.py

This needs slicer-core, and writes ``four-views.png``, ``surfaces.png``, ``head.png``, ``confidence.png``, the same head
with its segments coloured by their confidence, and ``confidence-map.png``, with the confidence of its voxels, to
``Resources/Screenshots``.
Slicer's own code draws the slice views, the 3D view and the segments (MRML scene, slice logic, displayable managers),
but without its main window.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode
    from vtk import vtkRenderer

REPOSITORY = Path(__file__).resolve().parents[2]
SIDE = 390  # width and height of one of the four views, pixels
GAP = 4  # between views, pixels
INSIDE = {"Brain stem", "Commissures and tracts", "Deep nuclei", "Eyes and optic pathway", "Thalamus", "Ventricles"}
CAMERA = np.array([0.62, 0.66, 0.42])  # direction of the camera in RAS: from the right, the front and above


def main() -> None:
    """Segment both samples, and write the pictures."""
    parser = argparse.ArgumentParser(description="Render the pictures of the readme.")
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "Resources" / "Screenshots", metavar="FOLDER")
    options = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    from ClassScaleSegLib.scene.confidence_colors import show_confidence

    scene = Scene("toy")
    scene.show(scene.apart())
    write(options.output / "four-views.png", scene.four_views())
    write(options.output / "surfaces.png", scene.view_3d(2 * SIDE, round(1.4 * SIDE)))
    head = Scene("head")
    head.show(head.in_groups(INSIDE))
    write(options.output / "head.png", head.four_views())
    show_confidence(head.node)
    write(options.output / "confidence.png", tiled([[head.slice_view("Axial"), head.view_3d(SIDE, SIDE)]]))
    show_confidence(head.node, False)
    write(
        options.output / "confidence-map.png", tiled([[head.slice_view(each, True) for each in ("Axial", "Coronal")]])
    )


class Scene:
    """An MRML scene with the sample volume of a demo, and its segmentation by the model of the demo.

    :param demo: name of the demo, "toy" or "head".
    """

    def __init__(self, demo: str) -> None:
        import slicer
        from ClassScaleSegLib.commands.demo import DEMOS
        from ClassScaleSegLib.inference.segmenter import segment
        from ClassScaleSegLib.models.model import open_model
        from ClassScaleSegLib.resources import resource
        from ClassScaleSegLib.scene.confidence_volume import remember_confidence
        from ClassScaleSegLib.scene.results import fill_confidence_node
        from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node

        self.name = DEMOS[demo].sample
        file = resource("SampleData", f"{self.name}.nrrd")
        model = open_model(resource("Models", f"{DEMOS[demo].model}.zip"))
        self.result = segment(file, model, device="cpu", confidence=True)
        self.scene = slicer.vtkMRMLScene()
        self.application = slicer.vtkMRMLApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        self.volume = self._add_volume(file)
        self.node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", self.name)
        fill_segmentation_node(self.node, self.result, volume=self.volume)
        confidence = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence")
        fill_confidence_node(confidence, self.result.confidence, self.result.geometry)
        remember_confidence(self.node, confidence)
        self.slices = slicer.vtkMRMLSliceViewDisplayableManagerFactory()
        self.slices.RegisterDisplayableManager("vtkMRMLSegmentationsDisplayableManager2D")
        self.solids = slicer.vtkMRMLThreeDViewDisplayableManagerFactory()
        self.solids.RegisterDisplayableManager("vtkMRMLSegmentationsDisplayableManager3D")
        for factory in (self.slices, self.solids):
            factory.SetMRMLApplicationLogic(self.application)

    def _add_volume(self, file: Path) -> vtkMRMLScalarVolumeNode:
        import slicer

        volume = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", self.name)
        storage = self.scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(str(file))
        volume.SetAndObserveStorageNodeID(storage.GetID())
        assert storage.ReadData(volume), file
        grey = slicer.vtkMRMLColorTableNode()
        grey.SetTypeToGrey()
        self.scene.AddNode(grey)
        display = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
        display.SetAndObserveColorNodeID(grey.GetID())
        volume.SetAndObserveDisplayNodeID(display.GetID())
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*volume.GetImageData().GetScalarRange())
        return volume

    def apart(self) -> list[str]:
        """Return ids of segments that do not touch each other. Large segments are preferred."""
        labels = self.result.labels
        neighbours: dict[int, set[int]] = {}
        for axis in range(3):
            first, second = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
            pairs = np.unique(np.stack([first, second], axis=-1)[first != second], axis=0).tolist()
            for one, other in pairs:
                neighbours.setdefault(one, set()).add(other)
                neighbours.setdefault(other, set()).add(one)
        taken: set[int] = set()
        for value in np.argsort(-np.bincount(labels.ravel())).tolist():
            if value and value in neighbours and not neighbours[value] & taken:
                taken.add(value)
        return [self.result.table[value].id for value in sorted(taken)]

    def in_groups(self, groups: set[str]) -> list[str]:
        """Return the ids of the segments in the given groups, as far as the model has found them."""
        found = self.node.GetSegmentation()
        return [
            label.id for label in self.result.table.foreground if label.group in groups and found.GetSegment(label.id)
        ]

    def show(self, identifiers: list[str]) -> None:
        """Show the given segments in 3D, as the module does for ticked structures."""
        from ClassScaleSegLib.scene.surfaces import show_3d

        show_3d(self.node, identifiers)

    def four_views(self) -> np.ndarray:
        """Return a picture in Slicer's layout Four-Up: axial, 3D, coronal and sagittal view."""
        axial, sagittal, coronal = (self.slice_view(orientation) for orientation in ("Axial", "Sagittal", "Coronal"))
        return tiled([[axial, self.view_3d(SIDE, SIDE)], [coronal, sagittal]])

    def slice_view(self, orientation: str, confidence: bool = False) -> np.ndarray:
        """Return a picture of the middle slice, with its segments filled and outlined.

        :param orientation: "Axial", "Sagittal" or "Coronal".
        :param confidence: with the confidence of its voxels, and the segments as outlines.
        :returns: uint8 ``(SIDE, SIDE, 3)``.
        """
        import slicer
        import vtk
        from ClassScaleSegLib.scene.confidence_map import show_confidence_map

        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self.application)
        logic.SetMRMLScene(self.scene)
        view = logic.AddSliceNode(self.scene.GenerateUniqueName(orientation))  # not one that has been drawn
        view.SetOrientation(orientation)
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(self.volume.GetID())
        if confidence:
            show_confidence_map(self.node)
        view.SetDimensions(SIDE, SIDE, 1)
        logic.FitSliceToAll(SIDE, SIDE)
        renderer = vtk.vtkRenderer()
        window = Window(renderer, SIDE, SIDE)
        managers = self.slices.InstantiateDisplayableManagers(renderer)
        managers.SetMRMLDisplayableNode(view)
        mapper = vtk.vtkImageMapper()
        mapper.SetInputConnection(logic.GetImageDataConnection())
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        image = vtk.vtkActor2D()
        image.SetMapper(mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        under = vtk.vtkRenderer()  # a separate layer, as in Slicer, with which the segments are blended
        under.AddViewProp(image)
        window.put_under(under)
        logic.UpdatePipeline()
        return window.pixels()

    def view_3d(self, width: int, height: int) -> np.ndarray:
        """Return a picture of the 3D view, uint8 ``(height, width, 3)``."""
        import slicer
        import vtk

        view = self.scene.AddNode(slicer.vtkMRMLViewNode())
        renderer = vtk.vtkRenderer()
        window = Window(renderer, width, height)
        managers = self.solids.InstantiateDisplayableManagers(renderer)
        managers.SetMRMLDisplayableNode(view)
        camera = renderer.GetActiveCamera()
        bounds = [0.0] * 6
        self.node.GetRASBounds(bounds)
        middle = np.reshape(bounds, (3, 2)).mean(axis=1)
        camera.SetFocalPoint(*middle)
        camera.SetPosition(*(middle + CAMERA * 100))
        camera.SetViewUp(0, 0, 1)
        renderer.ResetCamera()
        camera.Zoom(1.5)
        renderer.ResetCameraClippingRange()
        return window.pixels()


class Window:
    """An off-screen render window.

    :param width: pixels.
    :param height: pixels.
    """

    def __init__(self, renderer: vtkRenderer, width: int, height: int) -> None:
        import vtk

        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(True)
        self.window.SetSize(width, height)
        self.window.SetMultiSamples(8)
        self.window.AddRenderer(renderer)
        renderer.SetBackground(0, 0, 0)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()  # displayable managers need one
        self.interactor.SetRenderWindow(self.window)

    def put_under(self, renderer: vtkRenderer) -> None:
        """Add a layer below the existing one."""
        self.window.SetNumberOfLayers(2)
        self.window.GetRenderers().GetFirstRenderer().SetLayer(1)
        self.window.AddRenderer(renderer)

    def pixels(self) -> np.ndarray:
        """Render the window, and return its picture, uint8 ``(height, width, 3)``, the top row first."""
        import vtk
        from vtk.util.numpy_support import vtk_to_numpy

        self.window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.ReadFrontBufferOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()


def tiled(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Return one picture made of pictures of the same size, with ``GAP`` dark pixels between them.

    :param rows: the pictures, uint8 ``(height, width, 3)``, by row.
    """
    height, width = rows[0][0].shape[:2]
    picture = np.full((len(rows) * (height + GAP) - GAP, len(rows[0]) * (width + GAP) - GAP, 3), 40, np.uint8)
    for y, row in enumerate(rows):
        for x, part in enumerate(row):
            picture[y * (height + GAP) :, x * (width + GAP) :][:height, :width] = part
    return picture


def write(file: Path, picture: np.ndarray) -> None:
    """Write a picture as PNG, and print the name of the file."""
    from ClassScaleSegLib.files import replacing
    from matplotlib.image import imsave

    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, overwrite=True) as partial:
        imsave(partial, picture, format="png", pil_kwargs={"optimize": True})
    print(f"{file}: {picture.shape[1]} x {picture.shape[0]}, {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
