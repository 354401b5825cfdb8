"""The module ClassScaleSeg of 3D Slicer: its panel, and the same from the Python console.

    from ClassScaleSeg import ClassScaleSegLogic
    segmentationNode = ClassScaleSegLogic().segment(volumeNode, "toy-120")

Thin on purpose: runs are in ``ClassScaleSegLib.scene.run``, tables and choosers in ``ClassScaleSegPanel``. Nothing is
imported at file scope that Slicer has not loaded already, so that Slicer starts as fast with this module as without it.
"""

import logging
import sys
from typing import Annotated

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

SAMPLE = "toy-120"


class ClassScaleSeg(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("ClassScaleSeg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["ClassScaleSeg developers"]
        self.parent.helpText = _(
            "Segments CT and MR images into hundreds of named structures, with memory that does not grow with the "
            "number of classes. Choose a volume and a model, and press Apply. A few structures out of hundreds are "
            "found by search in the table of results; click one to go there, tick some to see them in 3D. "
            "Models of nnU-Net v2 can be used as they are. Not for clinical use."
        )
        self.parent.acknowledgementText = _(
            "The low-rank basis with a projection onto the classes follows Jaubert, Traynor, Mikhael, Hipwell and "
            'Dahdouh, "Breaking the Memory Barrier: Efficient Multi-Class 3D Segmentation for Hundreds of Classes", '
            "MIDL 2026, PMLR 315:2369-2387. Networks, plans and preprocessing are those of nnU-Net (Isensee et al., "
            "Nature Methods 18, 203-211, 2021)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    from ClassScaleSegPanel.sample_data import register

    register()


@parameterNodeWrapper
class ClassScaleSegParameterNode:
    """Everything that the panel shows, saved with the scene. ``classes``: a name a line; none stands for all."""

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
    """The panel: binds widgets to the parameter node, and a timer to the run."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.ui = None
        self._parameterNode = self._guiTag = None
        self._watched = []
        self._shownClasses = ""  # the parameter that the ticks stand for
        self._shownInput = None  # the volume, and the model for it if it is a sample

    def setup(self):
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
        self.ui.applyButton.connect("clicked(bool)", lambda: self.runs.apply(self._parameterNode))
        self.ui.cancelButton.connect("clicked(bool)", lambda: self.runs.stop(_("Cancelled. The scene is as it was.")))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def cleanup(self):
        """The application closes, or the module is reloaded: nothing may go on without the panel."""
        self.runs.stop()
        self.models.close()
        self.uiWidget.removeEventFilter(self.modelDrop)
        self.setParameterNode(None)
        self.removeObservers()

    def onReload(self):
        self.runs.stop()
        for name in list(sys.modules):
            if name.partition(".")[0] in ("ClassScaleSegLib", "ClassScaleSegPanel"):
                del sys.modules[name]  # so that changes in them are loaded, too
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)
        self.runs.stop(_("The scene was closed, so the segmentation was stopped."))
        self.results.show(None, [])

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first:
                self._parameterNode.inputVolume = first

    def setParameterNode(self, node):
        from ClassScaleSegPanel.sample_data import model_for

        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.watch([])
        self._parameterNode = node
        if node is not None:
            self._shownInput = node.inputVolume, model_for(node.inputVolume)  # chosen earlier, and a model with it
            self.models.select(node.model)
            self.restoreClasses()
            self._guiTag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    def onParametersChanged(self, caller=None, event=None):
        """Show what depends on the parameters: channels, device, what the run takes, and whether it can start."""
        from ClassScaleSegLib.scene.sequence import browser_of
        from ClassScaleSegPanel.inputs import show_channels
        from ClassScaleSegPanel.need import need_text

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

    def follow(self, node):
        """Show model, classes and result that the node names: a scene or a script may have put them there.

        A sample that is newly chosen brings its model along.
        """
        from ClassScaleSegPanel.sample_data import model_for

        model = model_for(node.inputVolume)
        if self._shownInput != (node.inputVolume, model):  # a volume may be there before its file is known
            self._shownInput = node.inputVolume, model
            node.model = model or node.model
        if node.model != (self.models.entry.id if self.models.entry is not None else None):
            self.models.select(node.model)
        if node.classes != self._shownClasses:
            self.restoreClasses()
        if node.segmentation is not None and node.segmentation is not self.results.node:
            self.results.show_node(node.segmentation)

    def watch(self, nodes):
        """Look again when one of these changes: voxels that arrive late, a transform, a region that is moved."""
        if nodes != self._watched:
            self.removeObservers(self.onInputModified)
            self._watched = nodes
            for node in filter(None, nodes):
                for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent):
                    self.addObserver(node, event, self.onInputModified)

    def onInputModified(self, caller, event):
        self.onParametersChanged()

    def onModelChanged(self):
        if self.models.entry is not None and self._parameterNode is not None:
            self._parameterNode.model = self.models.entry.id
        self.restoreClasses()
        self.onParametersChanged()

    def restoreClasses(self):
        """List the classes of the model, ticked as the parameter node has it; all, if that names another model's."""
        node = self._parameterNode
        if node is None:
            return
        self.classList.set_table(self.models.table)
        self._shownClasses = node.classes
        names = node.classes.splitlines()
        # what a model that is not there could mean by them is not known: they stay
        if names and self.models.table is not None and self.classList.choose(names):
            self.classList.choose(None)
            self.setClasses(())

    def onClassesChanged(self):
        if self._parameterNode is not None:
            self.setClasses(self.classList.chosen() or ())
            self.onParametersChanged()

    def setClasses(self, names):
        self._shownClasses = "\n".join(names)
        self._parameterNode.classes = self._shownClasses

    def onRegionAdded(self, region):
        from ClassScaleSegLib.scene.volume import fit_region

        fit_region(region, self._parameterNode.inputVolume if self._parameterNode is not None else None)

    def onDeviceChanged(self, device):
        if self._parameterNode is not None:
            self._parameterNode.device = device

    def onFinished(self, run):
        self.results.show(run.node, run.results)
        if self._parameterNode is not None:
            self._parameterNode.segmentation = run.node
        self.ui.resultCollapsibleButton.collapsed = False


class ClassScaleSegLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for scripts."""

    def getParameterNode(self):
        return ClassScaleSegParameterNode(super().getParameterNode())

    def segment(self, volume, model, *, progress=None, **choices):
        """Segment a volume and wait for it; returns the segmentation node.

        :param volume: scalar volume node, or a list of them where the model reads several channels.
        :param model: name or id in the catalogue, or the path of a model folder, an exported zip or a bundle.
        :param progress: called with a ``ClassScaleSegLib.process.process.Event`` now and then.
        :param choices: ``classes`` (names or label values to keep), ``region`` (``vtkMRMLMarkupsROINode``),
            ``all_frames`` (of the sequence that the volume belongs to), ``segmentation``, ``confidence`` and
            ``statistics`` (nodes to fill), ``replace`` (the segments that the node has), ``standard_names``,
            ``keep_empty``; ``device``, ``step``, ``mirroring``, ``folds``, ``checkpoint``, ``memory_limit`` (GiB),
            ``threads``.
        :raises ClassScaleSegLib.ClassScaleError: a sentence with what to do; the scene is as it was.
        """
        return self.start(self.request(volume, model, **choices)).wait(progress)

    def request(self, volume, model, **choices):
        """The choices of `segment` as a ``ClassScaleSegLib.scene.run.Request``."""
        from ClassScaleSegLib.scene.run import request_for

        return request_for(volume, model, choices)

    def start(self, request):
        """Start a run and return it at once: call its ``poll()`` from a timer, or ``wait()``.

        :raises ClassScaleSegLib.ClassScaleError: a sentence; also if another run is under way, or packages are missing.
        """
        from ClassScaleSegLib.scene.run import SceneRun
        from ClassScaleSegPanel.install import refuse_missing_dependencies

        refuse_missing_dependencies()
        run = SceneRun(request)
        run.start()
        return run

    def installDependencies(self):
        """Install PyTorch and the packages that are missing, after asking; as Apply in the panel does.

        :raises ClassScaleSegLib.ClassScaleError: a sentence with what to do, if declined or if it fails.
        """
        from ClassScaleSegPanel.install import ensure_dependencies

        ensure_dependencies()

    def show3D(self, segmentationNode, segmentIDs):
        """Show these segments in 3D and no others; makes surfaces for them alone. Returns how many were made."""
        from ClassScaleSegLib.scene.surfaces import show_3d

        return show_3d(segmentationNode, segmentIDs)

    def centerViews(self, segmentationNode, segmentID):
        """Centre slice and 3D views on a segment; returns the point in RAS, mm, or ``None`` if it is empty."""
        from ClassScaleSegLib.scene.view import centre_views

        return centre_views(segmentationNode, segmentID)

    def saveSegmentation(self, segmentationNode, path):
        """Save as ``.seg.nrrd``; by our own writer where all segments share one image, else by Slicer's.

        Whether ours was used.
        :raises ClassScaleSegLib.OutputError: if the file cannot be written.
        """
        from ClassScaleSegLib.scene.results import save_segmentation

        return save_segmentation(segmentationNode, path)


class ClassScaleSegTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer: the embedded sample through the embedded model."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_sample_is_segmented(self):
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
