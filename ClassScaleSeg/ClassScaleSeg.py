"""The module ClassScaleSeg of 3D Slicer: its panel, and its logic for the Python console.

    from ClassScaleSeg import ClassScaleSegLogic
    segmentationNode = ClassScaleSegLogic().segment(volumeNode, "toy-120")

This file only connects: ``ClassScaleSegLib.scene.run`` segments, and ``ClassScaleSegPanel`` has the widgets. At file
scope it imports only what Slicer has loaded already, so that the module does not slow down the start of Slicer.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import slicer
import vtk
from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    import qt
    from ClassScaleSegLib.process.child import Event
    from ClassScaleSegLib.scene.run import Request, SceneRun
    from slicer import vtkMRMLNode, vtkMRMLScene

SAMPLE = "toy-120"


class ClassScaleSeg(ScriptedLoadableModule):
    """What Slicer shows about the module: title, category, help and acknowledgement.

    :ivar running: the run that is under way in the application, if any, whichever logic has started it.
    """

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.running: list[SceneRun] = []
        self.parent.title = _("ClassScaleSeg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["ClassScaleSeg developers"]
        self.parent.helpText = _(
            "Segments CT and MR images into hundreds of named structures, in memory that does not grow with the "
            "number of classes. Select a volume and a model, and press Apply. To find a structure, search in the "
            "table of results. Click a structure to centre the views on it. Tick structures to show them in 3D. "
            "nnU-Net v2 models can be used without conversion. Not for clinical use."
        )
        self.parent.acknowledgementText = _(
            "The low-rank basis and its projection onto the classes follow Jaubert, Traynor, Mikhael, Hipwell and "
            'Dahdouh, "Breaking the Memory Barrier: Efficient Multi-Class 3D Segmentation for Hundreds of Classes", '
            "MIDL 2026, PMLR 315:2369-2387. Networks, plans and preprocessing are those of nnU-Net (Isensee et al., "
            "Nature Methods 18, 203-211, 2021)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Offer the embedded samples in the module Sample Data."""
    from ClassScaleSegPanel.sample_data import register

    register()


@parameterNodeWrapper
class ClassScaleSegParameterNode:
    """The settings of the panel, which are saved with the scene.

    :ivar inputVolume: the volume to segment, or the first channel.
    :ivar channel2: the second channel, if the model needs one.
    :ivar channel3: the third channel, if the model needs one.
    :ivar channel4: the fourth channel, if the model needs one.
    :ivar allFrames: segment every frame of the sequence that the volume is part of.
    :ivar region: segment only the voxels inside it; none: the whole volume.
    :ivar model: id of the model in the catalogue.
    :ivar classes: one class name per line; empty: all classes.
    :ivar segmentation: the node to fill; none: a new node.
    :ivar confidence: the volume to fill with the probability of each voxel's class; none: it is not computed.
    :ivar statistics: the table to fill with the volumes of the structures; none: no table.
    :ivar standardNames: name segments by their terminology codes.
    :ivar keepEmpty: also add segments for classes that were not found.
    :ivar device: "auto", "cpu", "cuda:0" and so on.
    :ivar memoryLimit: GiB; 0: the free memory.
    :ivar step: distance between neighbouring windows, as a fraction of the window size.
    :ivar mirroring: average the results of mirrored images, if the model was trained with mirroring.
    :ivar folds: numbers separated by spaces or commas; empty: all folds.
    :ivar threads: CPU threads; 0: automatic.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    channel2: vtkMRMLScalarVolumeNode
    channel3: vtkMRMLScalarVolumeNode
    channel4: vtkMRMLScalarVolumeNode
    allFrames: bool = False
    region: vtkMRMLMarkupsROINode
    model: str = SAMPLE
    classes: str = ""
    segmentation: vtkMRMLSegmentationNode
    confidence: vtkMRMLScalarVolumeNode
    statistics: vtkMRMLTableNode
    standardNames: bool = True
    keepEmpty: bool = False
    device: str = "auto"
    memoryLimit: Annotated[float, WithinRange(0, 1024)] = 0
    step: Annotated[float, WithinRange(0.1, 1)] = 0.5
    mirroring: bool = True
    folds: str = ""
    threads: Annotated[int, WithinRange(0, 1024)] = 0


class ClassScaleSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: connects the widgets with the parameter node, and Apply and Cancel with the run.

    :ivar logic: the module's logic, made by `setup`.
    :ivar ui: the widgets of the .ui file by name, made by `setup`.
    """

    logic: "ClassScaleSegLogic"
    ui: Any

    def __init__(self, parent: "qt.QWidget | None" = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._parameterNode: ClassScaleSegParameterNode | None = None
        self._guiTag: int | None = None
        self._watched: list[vtkMRMLNode | None] = []
        self._shownClasses = ""  # the value of the parameter "classes" that the ticks show
        # the selected volume, and the model that belongs to it if it is a sample
        self._shownInput: tuple[vtkMRMLScalarVolumeNode | None, str | None] | None = None

    def setup(self) -> None:
        """Make the widgets; called once, when the module is first opened."""
        from ClassScaleSegLib.catalog.catalog import Catalog
        from ClassScaleSegPanel.class_list import ClassList
        from ClassScaleSegPanel.device_list import DeviceList
        from ClassScaleSegPanel.model_chooser import ModelChooser, ModelDrop
        from ClassScaleSegPanel.result_panel import ResultPanel
        from ClassScaleSegPanel.run_panel import RunPanel

        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/ClassScaleSeg.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = ClassScaleSegLogic()
        self.classList = ClassList(self.onClassesChanged)
        self.ui.classesCollapsibleButton.layout().addWidget(self.classList.widget)
        self.results = ResultPanel(self.ui, self.logic)
        self.devices = DeviceList(self.ui, self.onDeviceChanged)
        self.models = ModelChooser(self.ui, Catalog(), self.onModelChanged)
        self.modelDrop = ModelDrop(self.models)
        self.uiWidget.installEventFilter(self.modelDrop)
        self.runs = RunPanel(self.ui, self.logic, self.onParametersChanged, self.onFinished, self.models.reload)
        self.ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRegionAdded)
        self.ui.applyButton.connect("clicked(bool)", lambda: self.onApply())
        self.ui.cancelButton.connect("clicked(bool)", lambda: self.onCancel())
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Stop the run and all observers, because the application closes or the module is reloaded."""
        self.runs.stop()
        self.models.close()
        self.uiWidget.removeEventFilter(self.modelDrop)
        self.setParameterNode(None)
        self.removeObservers()

    def onReload(self) -> None:
        """Reload the module, its library and its panel, so that changes to their files take effect."""
        self.runs.stop()
        for name in list(sys.modules):
            if name.partition(".")[0] in ("ClassScaleSegLib", "ClassScaleSegPanel"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self) -> None:
        """Show the current parameters; called each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Stop following the parameters; called each time the module is left. A run continues."""
        self.setParameterNode(None)

    def onApply(self) -> None:
        """Start the run that the parameters describe."""
        if self._parameterNode is not None:
            self.runs.apply(self._parameterNode)

    def onCancel(self) -> None:
        """Stop the run that is under way, if any."""
        self.runs.stop(_("Cancelled. The scene was not changed."))

    def onSceneStartClose(self, caller: "vtkMRMLScene", event: str) -> None:
        """Stop the run before its nodes are removed."""
        self.setParameterNode(None)
        self.runs.stop(_("The scene was closed, so the segmentation was stopped."))
        self.results.show(None, None)

    def onSceneEndClose(self, caller: "vtkMRMLScene", event: str) -> None:
        """Show the parameters of the empty scene, if the module is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Show the parameter node of the scene, and select the first volume if none is selected."""
        node = self.logic.getParameterNode()
        self.setParameterNode(node)
        if not node.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first:
                node.inputVolume = first

    def setParameterNode(self, node: "ClassScaleSegParameterNode | None") -> None:
        """Connect the widgets with a parameter node; ``None`` disconnects them."""
        from ClassScaleSegPanel.sample_data import model_for

        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)  # type: ignore[attr-defined]  # of parameterNodeWrapper
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.watch([])
        self._parameterNode = node
        if node is not None:
            self._shownInput = node.inputVolume, model_for(node.inputVolume)  # not newly selected
            self.models.select(node.model)
            self.restoreClasses()
            self._guiTag = node.connectGui(self.ui)  # type: ignore[attr-defined]
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    def onParametersChanged(self, caller: Any = None, event: str | None = None) -> None:
        """Update all that depends on the parameters: channels, device, memory needed, Apply and Cancel."""
        from ClassScaleSegLib.scene.sequence import browser_of
        from ClassScaleSegPanel.apply_line import need_text
        from ClassScaleSegPanel.inputs import show_channels

        node = self._parameterNode
        if node is None:
            return
        self.follow(node)
        self.devices.select(node.device)
        show_channels(self.ui, self.models.summaries[0].channel_names if self.models.summaries else ())
        volume = node.inputVolume
        self.watch([volume, node.region])
        self.ui.allFramesCheckBox.visible = volume is not None and browser_of(volume) is not None
        text, ready = need_text(self.models, node, self.classList.table.ticked())
        self.ui.needLabel.text = text
        self.ui.applyButton.enabled = ready and self.runs.run is None
        self.ui.applyButton.toolTip = _("Segment the volume.") if ready else text
        self.ui.cancelButton.enabled = self.runs.run is not None

    def follow(self, node: "ClassScaleSegParameterNode") -> None:
        """Show the model, classes and result of the parameter node, which a scene or a script may have changed.

        If a sample volume was newly selected, select its model too.
        """
        from ClassScaleSegPanel.sample_data import model_for

        model = model_for(node.inputVolume)
        if self._shownInput != (node.inputVolume, model):  # a volume can be in the scene before its file name is
            self._shownInput = node.inputVolume, model
            node.model = model or node.model
        if node.model != (self.models.entry.id if self.models.entry is not None else None):
            self.models.select(node.model)
        if node.classes != self._shownClasses:
            self.restoreClasses()
        if node.segmentation is not None and node.segmentation is not self.results.node:
            self.results.show_node(node.segmentation)

    def watch(self, nodes: "list[vtkMRMLNode | None]") -> None:
        """Update the panel whenever one of the nodes changes: its voxels, its transform, or the region's position."""
        if nodes != self._watched:
            self.removeObservers(self.onInputModified)
            self._watched = nodes
            for node in filter(None, nodes):
                for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent):
                    self.addObserver(node, event, self.onInputModified)

    def onInputModified(self, caller: "vtkMRMLNode", event: str) -> None:
        """Update the panel, because the volume or the region has changed."""
        self.onParametersChanged()

    def onModelChanged(self) -> None:
        """Store the model that the user selected, and list its classes."""
        if self.models.entry is not None and self._parameterNode is not None:
            self._parameterNode.model = self.models.entry.id
        self.restoreClasses()
        self.onParametersChanged()

    def restoreClasses(self) -> None:
        """List the classes of the model, ticked as in the parameter node.

        If the parameter node has classes that the model does not have, all are ticked.
        """
        node = self._parameterNode
        if node is None:
            return
        self.classList.set_table(self.models.table)
        self._shownClasses = node.classes
        names = node.classes.splitlines()
        # without the table of the model the names cannot be checked, so they are kept
        if names and self.models.table is not None and self.classList.choose(names):
            self.classList.choose(None)
            self.setClasses(())

    def onClassesChanged(self) -> None:
        """Store the classes that the user ticked."""
        if self._parameterNode is not None:
            self.setClasses(self.classList.chosen() or ())
            self.onParametersChanged()

    def setClasses(self, names: Sequence[str]) -> None:
        """Store class names in the parameter node; none stands for all classes."""
        self._shownClasses = "\n".join(names)
        if self._parameterNode is not None:
            self._parameterNode.classes = self._shownClasses

    def onRegionAdded(self, region: vtkMRMLMarkupsROINode) -> None:
        """Fit a region that the user has just created around the volume."""
        from ClassScaleSegLib.scene.volume import fit_region

        fit_region(region, self._parameterNode.inputVolume if self._parameterNode is not None else None)

    def onDeviceChanged(self, device: str) -> None:
        """Store the device that the user selected."""
        if self._parameterNode is not None:
            self._parameterNode.device = device

    def onFinished(self, run: "SceneRun") -> None:
        """Show the result of a run."""
        self.results.show(run.node, (run.results[0], run.statistics[0]))
        if self._parameterNode is not None:
            self._parameterNode.segmentation = run.node
        self.ui.resultCollapsibleButton.collapsed = False


class ClassScaleSegLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for the Python console and for other modules."""

    def getParameterNode(self) -> ClassScaleSegParameterNode:
        """Return the settings of the panel in the current scene."""
        return ClassScaleSegParameterNode(super().getParameterNode())  # type: ignore[call-arg]

    def segment(
        self,
        volume: vtkMRMLScalarVolumeNode | Sequence[vtkMRMLScalarVolumeNode],
        model: str | Path,
        *,
        progress: "Callable[[Event], None] | None" = None,
        **choices: Any,
    ) -> vtkMRMLSegmentationNode:
        """Segment a volume, wait for the result, and return the segmentation node.

        All arguments but ``volume`` and ``model`` are optional:

            logic.segment(volumeNode, "totalsegmentator-3mm", classes=["liver", "spleen"], device="cpu")

        :param volume: the volume node, or a list with one volume node per channel of the model.
        :param model: name or id in the catalogue, or the path of a model folder, an exported zip or a bundle.
        :param progress: called with each ``ClassScaleSegLib.process.child.Event`` of the run.
        :param choices: for the nodes ``region``, ``all_frames``, ``segmentation``, ``replace``, ``confidence``,
            ``statistics`` and ``standard_names``, which ``ClassScaleSegLib.scene.run.Request`` explains; for the rest
            ``classes``, ``device``, ``step``, ``mirroring``, ``folds``, ``checkpoint``, ``configuration``,
            ``memory_limit`` (GiB), ``threads`` and ``keep_empty``, which ``ClassScaleSegLib.Options`` explains.
        :raises ClassScaleSegLib.ClassScaleError: if the volume, the model or an argument is not suitable, Python
            packages are missing, or the run fails. The message says what to do. The scene is not changed.
        """
        return self.start(self.request(volume, model, **choices)).wait(progress)

    def request(
        self,
        volume: vtkMRMLScalarVolumeNode | Sequence[vtkMRMLScalarVolumeNode],
        model: str | Path,
        **choices: Any,
    ) -> "Request":
        """Return the arguments of `segment`, other than ``progress``, as a request for `start`.

        :raises ClassScaleSegLib.ClassScaleError: if there is no argument of that name, or its value is not suitable.
        """
        from ClassScaleSegLib.scene.run import request_for

        return request_for(volume, model, choices)

    def start(self, request: "Request") -> "SceneRun":
        """Start a run, and return it without waiting for the result.

        Then call ``poll()`` of the run from a timer until its ``state`` is no longer "running", or call ``wait()``.

        :param request: what to segment, from `request`.
        :raises ClassScaleSegLib.ClassScaleError: if another run is under way, Python packages are missing, or the
            request cannot be met. The message says what to do.
        """
        from ClassScaleSegLib.scene.run import SceneRun
        from ClassScaleSegPanel.install import refuse_missing_dependencies

        refuse_missing_dependencies()
        run = SceneRun(request, slicer.modules.ClassScaleSegInstance.running)
        run.start()
        return run

    def installDependencies(self) -> None:
        """Install PyTorch and other missing Python packages after asking the user, as Apply in the panel does.

        :raises ClassScaleSegLib.ClassScaleError: if the user declines, or the installation fails. The message says what
            to do.
        """
        from ClassScaleSegPanel.install import ensure_dependencies

        ensure_dependencies()

    def show3D(self, segmentationNode: vtkMRMLSegmentationNode, segmentIDs: Sequence[str]) -> int:
        """Show the given segments in 3D, and hide all others there. Surfaces are made for these segments only.

        :param segmentationNode: the node with the segments.
        :param segmentIDs: ids of the segments to show, such as ``["Segment_5"]``.
        :returns: how many surfaces were made.
        """
        from ClassScaleSegLib.scene.surfaces import show_3d

        return show_3d(segmentationNode, segmentIDs)

    def centerViews(
        self, segmentationNode: vtkMRMLSegmentationNode, segmentID: str
    ) -> tuple[float, float, float] | None:
        """Centre the slice views and 3D views on a segment.

        :param segmentationNode: the node with the segment.
        :param segmentID: id of the segment, such as "Segment_5".
        :returns: the centre, RAS in mm; ``None``, with no view moved, if the segment is empty or does not exist.
        """
        from ClassScaleSegLib.scene.view import centre_views

        return centre_views(segmentationNode, segmentID)

    def saveSegmentation(self, segmentationNode: vtkMRMLSegmentationNode, path: str | Path) -> bool:
        """Save a segmentation to a file, and replace the file if there is one.

        Segments that share one image, as those of `segment` do, are written by the module's own ``.seg.nrrd`` writer,
        which takes about a second for hundreds of segments. Everything else is left to Slicer's writer.

        :param segmentationNode: the node to save.
        :param path: the file, ending in ``.seg.nrrd``.
        :returns: ``True`` if the module's own writer was used.
        :raises ClassScaleSegLib.OutputError: if the file cannot be written.
        """
        from ClassScaleSegLib.scene.results import save_segmentation

        return save_segmentation(segmentationNode, path)


class ClassScaleSegTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer: segments the embedded sample with the embedded model."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_sample_is_segmented(self) -> None:
        from ClassScaleSegLib.resources import resource

        self.delayDisplay("Loading the sample")
        volume = slicer.util.loadVolume(str(resource("SampleData", f"{SAMPLE}.nrrd")))
        self.delayDisplay("Segmenting it")
        node = ClassScaleSegLogic().segment(
            volume, SAMPLE, progress=lambda event: logging.info(event.text or event.stage)
        )
        segmentation = node.GetSegmentation()
        self.assertGreater(segmentation.GetNumberOfSegments(), 100)
        self.assertEqual(ClassScaleSegLogic().show3D(node, [segmentation.GetNthSegmentID(0)]), 1)
        self.delayDisplay("Test passed")
