"""The module ClassScaleSeg of 3D Slicer: its panel, and the same from the Python console.

    from ClassScaleSeg import ClassScaleSegLogic
    segmentationNode = ClassScaleSegLogic().segment(volumeNode, "toy-120")

Thin on purpose: runs are in ``ClassScaleSegLib.scene_run``, tables and choosers in ``ClassScaleSegPanel``. Nothing is
imported at file scope that Slicer has not loaded already, so that Slicer starts as fast with this module as without it.
"""

import logging
import os
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
SAMPLE_SHA256 = "fbcc1636b34073b13c64af657df4839032348657aef2bae05258f38a109057e8"


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
    """Offer the embedded sample volume in the Sample Data module; it is a local file, nothing is downloaded."""
    import SampleData
    from ClassScaleSegLib.resources import resource

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="ClassScaleSeg",
        sampleName="ClassScaleSegToy120",
        thumbnailFileName=os.path.join(os.path.dirname(__file__), "Resources", "Icons", "ClassScaleSeg.png"),
        uris=resource("SampleData", f"{SAMPLE}.nrrd").as_uri(),
        fileNames=f"{SAMPLE}.nrrd",
        nodeNames=SAMPLE,
        checksums=f"SHA256:{SAMPLE_SHA256}",
    )


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

    def setup(self):
        from ClassScaleSegLib.catalog import Catalog
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
        self.ui.applyButton.connect("clicked(bool)", lambda: self.runs.apply(self._parameterNode))
        self.ui.cancelButton.connect("clicked(bool)", lambda: self.runs.stop(_("Cancelled. The scene is as it was.")))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def cleanup(self):
        """The application closes, or the module is reloaded: nothing may go on without the panel."""
        self.runs.stop()
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
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.watch([])
        self._parameterNode = node
        if node is not None:
            self.models.select(node.model)
            self.restoreClasses()
            self._guiTag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    def onParametersChanged(self, caller=None, event=None):
        """Show what depends on the parameters: channels, device, what the run takes, and whether it can start."""
        from ClassScaleSegLib.scene_sequence import browser_of
        from ClassScaleSegPanel.need import need_text

        node = self._parameterNode
        if node is None:
            return
        self.devices.select(node.device)
        channels = self.models.summaries[0].channel_names if self.models.summaries else ("",)
        for number in (2, 3, 4):
            label, selector = (getattr(self.ui, f"channel{kind}{number}") for kind in ("Label", "Selector"))
            label.visible = selector.visible = number <= len(channels)
            label.text = _("{channel}:").format(channel=channels[min(number, len(channels)) - 1])
        volume = node.inputVolume
        self.watch([volume, node.region])
        self.ui.allFramesCheckBox.visible = volume is not None and browser_of(volume) is not None
        text, ready = need_text(self.models, node, self.classList.table.ticked())
        self.ui.needLabel.text = text
        self.ui.applyButton.enabled = ready and self.runs.run is None
        self.ui.applyButton.toolTip = _("Segment the volume.") if ready else text
        self.ui.cancelButton.enabled = self.runs.run is not None

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
        """List the classes of the model, ticked as the parameter node has it; all, if it knows another model's."""
        if self._parameterNode is None:
            return
        self.classList.set_table(self.models.table)
        names = self._parameterNode.classes.splitlines()
        if names and self.classList.choose(names):
            self.classList.choose(None)

    def onClassesChanged(self):
        if self._parameterNode is not None:
            self._parameterNode.classes = "\n".join(self.classList.chosen() or ())
            self.onParametersChanged()

    def onDeviceChanged(self, device):
        if self._parameterNode is not None:
            self._parameterNode.device = device

    def onFinished(self, run):
        if self._parameterNode is not None:
            self._parameterNode.segmentation = run.node
        self.results.show(run.node, run.results)
        self.ui.resultCollapsibleButton.collapsed = False


class ClassScaleSegLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for scripts."""

    def getParameterNode(self):
        return ClassScaleSegParameterNode(super().getParameterNode())

    def segment(self, volume, model, *, progress=None, **choices):
        """Segment a volume and wait for it; returns the segmentation node.

        :param volume: scalar volume node, or a list of them where the model reads several channels.
        :param model: name or id in the catalogue, or the path of a model folder, an exported zip or a bundle.
        :param progress: called with a ``ClassScaleSegLib.process.Event`` now and then.
        :param choices: ``classes`` (names or label values to keep), ``region`` (``vtkMRMLMarkupsROINode``),
            ``all_frames`` (of the sequence that the volume belongs to), ``segmentation``, ``confidence`` and
            ``statistics`` (nodes to fill), ``replace`` (the segments that the node has), ``standard_names``,
            ``keep_empty``; ``device``, ``step``, ``mirroring``, ``folds``, ``checkpoint``, ``memory_limit`` (GiB),
            ``threads``.
        :raises ClassScaleSegLib.ClassScaleError: a sentence with what to do; the scene is as it was.
        """
        return self.start(self.request(volume, model, **choices)).wait(progress)

    def request(self, volume, model, **choices):
        """The choices of `segment` as a ``ClassScaleSegLib.scene_run.Request``."""
        from dataclasses import fields

        from ClassScaleSegLib.scene_run import Request

        volumes = tuple(volume) if isinstance(volume, (list, tuple)) else (volume,)
        own = {field.name for field in fields(Request)} - {"volumes", "model", "options"}
        options = {name: choices.pop(name) for name in list(choices) if name not in own}
        for name in ("classes", "folds"):
            if options.get(name) is not None:
                options[name] = tuple(options[name])
        return Request(volumes, model, **choices, options=options)

    def requestOf(self, parameters, replace):
        """What the panel shows, as a request."""
        from ClassScaleSegLib.catalog import resolve_model
        from ClassScaleSegLib.scene_sequence import browser_of
        from ClassScaleSegLib.summary import summarize

        channels = summarize(resolve_model(parameters.model)[0]).channels
        volumes = (parameters.inputVolume, parameters.channel2, parameters.channel3, parameters.channel4)[:channels]
        return self.request(
            volumes,
            parameters.model,
            region=parameters.region,
            all_frames=parameters.allFrames and browser_of(parameters.inputVolume) is not None,
            segmentation=parameters.segmentation,
            replace=replace,
            confidence=parameters.confidence,
            statistics=parameters.statistics,
            standard_names=parameters.standardNames,
            keep_empty=parameters.keepEmpty,
            classes=parameters.classes.splitlines() or None,
            device=parameters.device,
            memory_limit=parameters.memoryLimit or None,
            step=parameters.step,
            mirroring=parameters.mirroring,
            folds=parameters.folds.replace(",", " ").split() or None,
            threads=parameters.threads or None,
        )

    def start(self, request):
        """Start a run and return it at once: call its ``poll()`` from a timer, or ``wait()``.

        :raises ClassScaleSegLib.ClassScaleError: a sentence; also if another run is under way.
        """
        from ClassScaleSegLib.scene_run import SceneRun

        run = SceneRun(request)
        run.start()
        return run

    def show3D(self, segmentationNode, segmentIDs):
        """Show these segments in 3D and no others; makes surfaces for them alone. Returns how many were made."""
        from ClassScaleSegLib.surfaces import show_3d

        return show_3d(segmentationNode, segmentIDs)

    def centerViews(self, segmentationNode, segmentID):
        """Centre slice and 3D views on a segment; returns the point in RAS, mm, or ``None`` if it is empty."""
        from ClassScaleSegLib.scene_view import centre_views

        return centre_views(segmentationNode, segmentID)

    def saveSegmentation(self, segmentationNode, path):
        """Save as ``.seg.nrrd``; by our own writer where all segments share one image, else by Slicer's.

        Whether ours was used. :raises ClassScaleSegLib.OutputError: if the file cannot be written.
        """
        from ClassScaleSegLib.errors import OutputError
        from ClassScaleSegLib.scene_results import segmentation_of

        result = segmentation_of(segmentationNode)
        if result is not None and str(path).lower().endswith(".seg.nrrd"):
            result.write(path, overwrite=True, keep_empty=True)
            return True
        if not slicer.util.saveNode(segmentationNode, str(path)):
            raise OutputError(f"{path} could not be written. See the application's log.")
        return False


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
