"""The module ClassScaleSeg of 3D Slicer: its panel, and its logic for the Python console.

    from ClassScaleSeg import ClassScaleSegLogic
    segmentationNode = ClassScaleSegLogic().segment(volumeNode, "toy-120")

This file only connects: ``ClassScaleSegLib.scene.run`` segments, and ``ClassScaleSegPanel`` has the widgets. At file
scope it imports only what Slicer has loaded already, so that the module does not slow down the start of Slicer.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import slicer
import vtk
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
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
    from ClassScaleSegLib.images.comparison import Comparison
    from ClassScaleSegLib.process.child import Event
    from ClassScaleSegLib.remote.servers import KnownServer
    from ClassScaleSegLib.scene.queue import QueueItem, SceneQueue
    from ClassScaleSegLib.scene.run import Request, SceneRun
    from ClassScaleSegPanel.state import PanelState
    from slicer import vtkMRMLNode, vtkMRMLScene

SAMPLE = "toy-120"


class ClassScaleSeg(ScriptedLoadableModule):
    """What Slicer shows about the module: title, category, help and acknowledgement.

    :ivar running: the run that is under way in the application, if any, whichever logic has started it.
    """

    def __init__(self, parent: Any) -> None:
        from ClassScaleSegPanel.translation import load_translations

        ScriptedLoadableModule.__init__(self, parent)
        self.running: list[SceneRun] = []
        load_translations()
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
    from ClassScaleSegPanel.inputs.sample_data import register

    register()


@parameterNodeWrapper
class ClassScaleSegParameterNode:
    """The settings of the panel, which are saved with the scene.

    :ivar inputVolume: the volume to segment, or the first channel.
    :ivar channel2: the second channel, if the model needs one.
    :ivar channel3: the third channel, if the model needs one.
    :ivar channel4: the fourth channel, if the model needs one. Further ones are references of the node: "channel5", ...
    :ivar allFrames: segment every frame of the sequence that the volume is part of.
    :ivar region: segment only the voxels inside it; none: the whole volume.
    :ivar model: id of the model in the catalogue.
    :ivar moreModels: ids of further models of the same run, one per line, in their order.
    :ivar overlap: "later": the later of several models gets a voxel that they claim; "keep": all do, in layers.
    :ivar classes: one class name per line; empty: all classes.
    :ivar segmentation: the node to fill; none: a new node.
    :ivar confidence: the volume to fill with the probability of each voxel's class; none: it is not computed.
    :ivar statistics: the table to fill with the statistics of the structures; none: no table.
    :ivar report: the folder of the report; empty: no report.
    :ivar standardNames: name segments by their terminology codes.
    :ivar keepEmpty: also add segments for classes that were not found.
    :ivar device: "auto", "cpu", "cuda:0" and so on; "server:" and the address of a server.
    :ivar memoryLimit: GiB; 0: the free memory.
    :ivar step: distance between neighbouring windows, as a fraction of the window size; 0: as is usual for the model.
    :ivar mirroring: average the results of mirrored images, if the model is made for it.
    :ivar folds: numbers separated by spaces or commas; empty: all folds.
    :ivar threads: CPU threads; 0: automatic.
    :ivar smooth: standard deviation, in mm, by which borders are smoothed; 0: they are not.
    :ivar removeIslands: smaller islands, in mm^3, are removed; 0: none.
    :ivar locateWith: id of a coarse model that finds where the classes are; empty: as the catalogue says of the model,
        which is the whole image for most; "none": the whole image.
    :ivar interpolation: from the model's voxels to those of the volume: "linear" or "nearest".
    """

    inputVolume: vtkMRMLScalarVolumeNode
    channel2: vtkMRMLScalarVolumeNode
    channel3: vtkMRMLScalarVolumeNode
    channel4: vtkMRMLScalarVolumeNode
    allFrames: bool = False
    region: vtkMRMLMarkupsROINode
    model: str = SAMPLE
    moreModels: str = ""
    overlap: str = "later"
    classes: str = ""
    segmentation: vtkMRMLSegmentationNode
    confidence: vtkMRMLScalarVolumeNode
    statistics: vtkMRMLTableNode
    report: str = ""
    standardNames: bool = True
    keepEmpty: bool = False
    device: str = "auto"
    memoryLimit: Annotated[float, WithinRange(0, 1024)] = 0
    step: Annotated[float, WithinRange(0, 1)] = 0
    mirroring: bool = True
    folds: str = ""
    threads: Annotated[int, WithinRange(0, 1024)] = 0
    smooth: Annotated[float, WithinRange(0, 20)] = 0
    removeIslands: Annotated[float, WithinRange(0, 1e6)] = 0
    locateWith: str = ""
    interpolation: str = "linear"


class ClassScaleSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. Signals of widgets change the parameter node or the state; `render` shows both.

    :ivar logic: the module's logic, made by `setup`.
    :ivar ui: the widgets of the .ui file by name, made by `setup`.
    :ivar state: the parameter node, and what the panel shows that is not saved with the scene; made by `setup`.
    """

    logic: "ClassScaleSegLogic"
    ui: Any
    state: "PanelState"

    def __init__(self, parent: "qt.QWidget | None" = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._guiTag: int | None = None

    def setup(self) -> None:
        """Make the widgets; called once, when the module is first opened."""
        from ClassScaleSegLib.catalog.catalog import Catalog
        from ClassScaleSegLib.remote.servers import Servers
        from ClassScaleSegPanel.inputs.channel_rows import ChannelRows
        from ClassScaleSegPanel.models.chooser import ModelChooser, ModelDrop
        from ClassScaleSegPanel.models.class_list import ClassList
        from ClassScaleSegPanel.models.locate_list import LocateList
        from ClassScaleSegPanel.models.model_list import ModelList
        from ClassScaleSegPanel.results.compare_panel import ComparePanel
        from ClassScaleSegPanel.results.result_panel import ResultPanel
        from ClassScaleSegPanel.runs.device_list import DeviceList
        from ClassScaleSegPanel.runs.last_choice import LastChoice
        from ClassScaleSegPanel.runs.queue_panel import QueuePanel
        from ClassScaleSegPanel.runs.report_folder import ReportFolder
        from ClassScaleSegPanel.runs.run_panel import RunPanel
        from ClassScaleSegPanel.servers.dialog import ServerDialog
        from ClassScaleSegPanel.servers.watch import ServerWatch
        from ClassScaleSegPanel.state import PanelState
        from ClassScaleSegPanel.widgets.choice_list import ChoiceList
        from ClassScaleSegPanel.widgets.keyboard import arrange
        from ClassScaleSegPanel.widgets.texts import Wrapping
        from ClassScaleSegPanel.widgets.watching import Watching

        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/ClassScaleSeg.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        labels = (self.ui.channelHintLabel, self.ui.modelFactsLabel, self.ui.needLabel, self.ui.statusLabel)
        self.wrapping = [Wrapping(label) for label in labels]
        self.logic, self.state = ClassScaleSegLogic(), PanelState()
        self.parameterWatching, self.inputWatching = Watching(self.render), Watching(self.onInputModified)
        self.channels = ChannelRows(self.ui, self.onChannel, self.render)
        self.classList = ClassList(lambda classes: self.store(classes=classes))
        self.ui.classesCollapsibleButton.layout().addWidget(self.classList.table.widget)
        self.comparing = ComparePanel(self.ui, self.state, self.logic)
        self.results = ResultPanel(self.ui, self.state, self.logic, self.comparing.follow)
        servers = Servers()
        self.servers = ServerWatch(self.state, servers, self.render)
        self.devices = DeviceList(
            self.ui, self.state, lambda device: self.store(device=device), lambda: self.servers.again()
        )
        self.serverDialog = ServerDialog(self.ui.serversButton, servers, self.onServers)
        self.locating = LocateList(self.ui, lambda identifier: self.store(locateWith=identifier))
        self.interpolation = ChoiceList(
            self.ui.interpolationComboBox,
            {"linear": _("Between all classes"), "nearest": _("Nearest class")},
            lambda choice: self.store(interpolation=choice),
        )
        self.runs = RunPanel(
            self.ui,
            self.state,
            self.logic,
            self.render,
            self.onProgress,
            self.onFinished,
            lambda: self.models.reload(),
        )
        self.queue = QueuePanel(self.ui, self.state, self.onQueued)
        self.reports = ReportFolder(self.ui, self.state)
        self.models = ModelChooser(self.ui, self.state, Catalog(), self.onModels, self.render)
        self.modelList = ModelList(
            self.ui,
            self.state,
            lambda: self.models.installed(),
            self.onModels,
            lambda overlap: self.store(overlap=overlap),
            self.render,
        )
        menu = self.ui.modelMenuButton.menu()
        self.lastChoice = LastChoice(menu, self.state, self.classList, lambda choices: self.store(**choices))
        self.modelDrop = ModelDrop(self.models)
        self.uiWidget.installEventFilter(self.modelDrop)
        self.ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRegionAdded)
        self.ui.applyButton.connect("clicked(bool)", lambda: self.runs.apply() if self.reports.agreed() else None)
        self.ui.cancelButton.connect("clicked(bool)", lambda: self.runs.cancel())
        arrange(self.uiWidget)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndChange)
        # While a scene is imported, a scene view restored, or a step undone, nodes are copied one by one: references
        # to those that are still missing read as none.
        for change in ("Import", "Restore", "Undo", "Redo"):
            self.addObserver(scene, getattr(scene, f"Start{change}Event"), self.onSceneStartChange)
            self.addObserver(scene, getattr(scene, f"End{change}Event"), self.onSceneEndChange)
        # before the lists of nodes, which would select a neighbour of the node that goes
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved, priority=10.0)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Stop the run and all observers, because the application closes or the module is reloaded."""
        self.runs.stop()
        self.models.close()
        self.servers.close()
        self.serverDialog.close()
        self.channels.close()
        self.results.close()
        self.comparing.close()
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

    def onSceneStartClose(self, caller: "vtkMRMLScene", event: str) -> None:
        """Stop the run before its nodes are removed, and forget the result."""
        self.setParameterNode(None)
        self.state.status = ""
        self.runs.stop(_("The scene was closed, so the segmentation was stopped."))
        self.state.output, self.state.page = None, None
        self.results.show(None, None)
        self.queue.empty()
        self.comparing.reset()
        self.channels.forget()
        self.render()

    def onSceneStartChange(self, caller: "vtkMRMLScene", event: str) -> None:
        """Keep the widgets from writing into the parameter node while the scene is incomplete."""
        self.setParameterNode(None)

    def onSceneEndChange(self, caller: "vtkMRMLScene", event: str) -> None:
        """Show the parameters of the changed scene, if the module is open."""
        self.channels.forget()
        if self.parent.isEntered:
            self.initializeParameterNode()
            self.channels.look_again()  # its lists may learn of the new volumes only after this

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller: "vtkMRMLScene", event: str, node: "vtkMRMLNode") -> None:
        """Forget a node that is removed: as a parameter, and as the result that is listed."""
        from ClassScaleSegPanel.inputs.channels import NODES, forget_volume

        self.comparing.forget(node)
        if node is self.state.output:
            self.state.output = None
        if node is self.state.node:
            self.results.show(None, None)
            if self.state.run is None:
                self.state.status = ""
            self.runs.render()
        self.queue.forget(node.GetID())
        self.state.queued = tuple(self.queue.chosen())
        if self.state.parameters is not None:
            forget_volume(self.state.parameters, node)
            self.store(**{name: None for name in NODES if getattr(self.state.parameters, name) is node})

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller: "vtkMRMLScene", event: str, node: "vtkMRMLNode") -> None:
        """Select another volume if that was the selected one."""
        self.selectVolume()
        self.channels.look_again()

    def onNodeAdded(self, caller: "vtkMRMLScene", event: str) -> None:
        """Look whether a new volume is a channel."""
        self.channels.look_again()

    def initializeParameterNode(self) -> None:
        """Show the parameter node of the scene, and select the first volume if none is selected."""
        self.serverDialog.read()
        self.setParameterNode(self.logic.getParameterNode())
        self.results.follow()
        self.selectVolume()

    def selectVolume(self) -> None:
        """Select the first volume of the scene if none is selected."""
        from ClassScaleSegLib.scene.volume import first_volume

        parameters = self.state.parameters
        if parameters is not None and parameters.inputVolume is None:
            first = first_volume(slicer.mrmlScene, parameters.confidence)
            if first is not None:
                self.store(inputVolume=first)

    def setParameterNode(self, node: "ClassScaleSegParameterNode | None") -> None:
        """Connect the widgets with a parameter node; ``None`` disconnects them."""
        from ClassScaleSegPanel.inputs.sample_data import model_for

        before, self.state.parameters = self.state.parameters, node
        if before is not None:
            before.disconnectGui(self._guiTag)  # type: ignore[attr-defined]  # of parameterNodeWrapper
            self.inputWatching.stop()
            self.state.input = None
        self.parameterWatching.watch((node,), vtk.vtkCommand.ModifiedEvent)
        if node is not None:
            self.state.input, self.state.listed = (node.inputVolume, model_for(node.inputVolume)), None
            self.classList.set_table(None)
            names = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
            bound = {name: widget for name, widget in names.items() if name}
            # not connectGui(), which returns no tag before Slicer 5.10, so that it could not be undone
            self._guiTag = node.connectParametersToGui(bound)  # type: ignore[attr-defined]
            self.render()

    def store(self, **choices: "str | float | vtkMRMLNode | None") -> None:
        """Store what the user has chosen in the parameter node, by the name of the parameter, and show it."""
        if self.state.parameters is not None and choices:
            with slicer.util.NodeModify(self.state.parameters) as node:
                for name, choice in choices.items():
                    setattr(node, name, choice)
                node.Modified()  # also if nothing changes there: no class and all classes are stored alike

    def onModels(self, identifiers: "tuple[str, ...]") -> None:
        """Store the models that the user has chosen."""
        self.store(model=identifiers[0], moreModels="\n".join(identifiers[1:]))

    def onServers(self, servers: "tuple[KnownServer, ...]") -> None:
        """Offer the user's servers as devices; ask the one that is selected again if it was added or changed."""
        self.devices.set_servers(servers)
        view = self.state.server
        if view is not None and (view.fault or view.server not in servers):
            self.servers.ask()
        else:
            self.render()

    def onChannel(self, number: int, volume: "vtkMRMLNode | None") -> None:
        """Store the volume that the user has chosen in a row of a channel."""
        from ClassScaleSegPanel.inputs.channels import channel_volume, set_channel_volume

        parameters = self.state.parameters
        if parameters is not None and channel_volume(parameters, number) is not volume:
            with slicer.util.NodeModify(parameters) as node:
                set_channel_volume(node, number, volume)
                node.Modified()

    def onQueued(self) -> None:
        """Note which volumes are to be segmented one after the other."""
        self.state.queued = tuple(self.queue.chosen())
        self.render()

    def onProgress(self) -> None:
        """Show how far the volumes of a queue are."""
        from ClassScaleSegLib.scene.queue import SceneQueue

        if isinstance(self.state.run, SceneQueue):
            self.queue.follow(self.state.run)
            self.state.queued = tuple(self.queue.chosen())

    def settle(self, node: "ClassScaleSegParameterNode") -> None:
        """Follow the parameters, which the user, a scene or a script may have changed.

        A sample volume that was newly selected brings its model. Classes that the model lacks make it all classes.
        """
        from ClassScaleSegPanel.inputs.sample_data import model_for
        from ClassScaleSegPanel.runs.request import model_ids

        state, seen = self.state, (node.inputVolume, model_for(node.inputVolume))
        self.servers.follow(node.device)
        if state.input != seen:  # a volume can be in the scene before its file name is
            state.input = seen
            if seen[1] is not None and (state.server is None or seen[1] in (state.server.models or {})):
                node.model, node.moreModels = seen[1], ""
        self.models.follow()
        if [model.id for model in state.models] != list(model_ids(node)):
            self.models.open(model_ids(node))
        self.models.open_locating(node.locateWith)
        self.channels.fill(node, state.channels)
        if state.listed is not state.table:
            state.listed = state.table
            self.classList.set_table(state.table, {value: owner for value, (owner, _own) in state.owners.items()})
        # without the table of the model the names cannot be checked, so they are kept
        if state.table is not None and node.classes != self.classList.value():
            names = node.classes.splitlines()
            if self.classList.choose(names or None):
                self.classList.choose(None)
                node.classes = ""
        if node.segmentation is not state.output:  # the user may list another one meanwhile
            state.output = node.segmentation
            if node.segmentation is not None and node.segmentation is not state.node:
                self.results.show_node(node.segmentation)

    def render(self, caller: Any = None, event: str | None = None) -> None:
        """Show the parameters and the state in the widgets, which send no signals meanwhile."""
        from ClassScaleSegLib.scene.sequence import browser_of
        from ClassScaleSegPanel.runs.apply_line import need_text
        from ClassScaleSegPanel.widgets.keyboard import show_buttons
        from ClassScaleSegPanel.widgets.texts import tip

        ui, state, node = self.ui, self.state, self.state.parameters
        self.runs.render()
        if node is None:
            return
        self.settle(node)
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self.inputWatching.watch((node.inputVolume, node.region), vtk.vtkCommand.ModifiedEvent, moved)
        self.models.render()
        self.modelList.render(node.overlap)
        self.devices.render(node.device)
        self.interpolation.render(node.interpolation)
        self.locating.render(node.locateWith, self.models.single_models(), self.models.usual_locating())
        self.channels.render(node, state.channels)
        ui.allFramesCheckBox.visible = node.inputVolume is not None and browser_of(node.inputVolume) is not None
        text, ready = need_text(state, node, self.classList.ticked)
        ui.needLabel.text = text
        show_buttons(ui, ready, state.run is not None, text, ui.statusLabel.text)
        ui.applyButton.toolTip = _("Segment the volume.") if ready else tip(text)
        self.queue.render()

    def onInputModified(self, caller: "vtkMRMLNode", event: str) -> None:
        """Update the panel, because the volume or the region was moved or its contents have changed."""
        self.render()

    def onRegionAdded(self, region: vtkMRMLMarkupsROINode) -> None:
        """Fit a region that the user has just created around the volume."""
        from ClassScaleSegLib.scene.volume import fit_region

        fit_region(region, self.state.parameters.inputVolume if self.state.parameters is not None else None)

    def onFinished(self, run: "SceneRun | SceneQueue") -> None:
        """Show the result of a run, and select it for the next one, also if the module is not open.

        Of a queue the last result is shown. None is selected, because the next run must not replace it.
        """
        from ClassScaleSegLib.scene.run import SceneRun

        latest = None if isinstance(run, SceneRun) else run.latest
        shown = run if isinstance(run, SceneRun) else latest.run if latest is not None else None
        if shown is None:
            return
        self.results.show(shown.node, (shown.results[0], shown.statistics[0]))
        parameters = self.state.parameters or self.logic.getParameterNode()
        parameters.segmentation = shown.node if shown is run else None
        self.ui.resultCollapsibleButton.collapsed = False


class ClassScaleSegLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for the Python console and for other modules."""

    def getParameterNode(self) -> ClassScaleSegParameterNode:
        """Return the settings of the panel in the current scene."""
        node = super().getParameterNode()
        if not node.HasObserver(vtk.vtkCommand.ModifiedEvent):
            # VTK calls the first observer of a node last of all. Without this one, that would be the observer of a
            # parameter, which would then have its new value only after the widgets have shown it.
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: None)
        return ClassScaleSegParameterNode(node)  # type: ignore[call-arg]

    def segment(
        self,
        volume: vtkMRMLScalarVolumeNode | Sequence[vtkMRMLScalarVolumeNode],
        model: "str | Path | Sequence[str | Path]",
        *,
        progress: "Callable[[Event], None] | None" = None,
        **choices: Any,
    ) -> vtkMRMLSegmentationNode:
        """Segment a volume, wait for the result, and return the segmentation node.

        All arguments but ``volume`` and ``model`` are optional:

            logic.segment(volumeNode, "totalsegmentator-3mm", classes=["liver", "spleen"], device="cpu")

        :param volume: the volume node, or a list with one volume node per channel of the model.
        :param model: name or id in the catalogue, or the path of a model folder, an exported zip or a bundle; or a list
            of them, which make one segmentation.
        :param progress: called with each ``ClassScaleSegLib.process.child.Event`` of the run.
        :param choices: for the nodes ``region``, ``all_frames``, ``segmentation``, ``replace``, ``confidence``,
            ``statistics``, and for ``report`` (a folder), ``report_name`` and ``standard_names``, which
            ``ClassScaleSegLib.scene.run.Request`` explains; for the rest
            ``classes``, ``device``, ``step``, ``mirroring``, ``folds``, ``checkpoint``, ``configuration``,
            ``interpolation``, ``overlap``, ``memory_limit`` (GiB), ``threads``, ``keep_empty``, ``smooth`` (mm),
            ``remove_islands`` (mm^3), ``clean_classes``, ``locate_with``, ``locate_classes`` and ``locate_margin``
            (mm), which ``ClassScaleSegLib.Options`` explains. The device ``server:ADDRESS`` is a server, whose models
            are meant then.
        :raises ClassScaleSegLib.ClassScaleError: if the volume, the model or an argument is not suitable, Python
            packages are missing, or the run fails. The message says what to do. The scene is not changed.
        """
        return self.start(self.request(volume, model, **choices)).wait(progress)

    def request(
        self,
        volume: vtkMRMLScalarVolumeNode | Sequence[vtkMRMLScalarVolumeNode],
        model: "str | Path | Sequence[str | Path]",
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
        from ClassScaleSegPanel.install.packages import refuse_missing_dependencies, wanted_by

        refuse_missing_dependencies(wanted_by(request.models, request.options))
        run = SceneRun(request, slicer.modules.ClassScaleSegInstance.running)
        run.start()
        return run

    def startQueue(self, items: "Sequence[QueueItem]") -> "SceneQueue":
        """Start a queue of runs, and return it without waiting. Call its ``poll()`` from a timer, or ``wait()``.

        :param items: each has a name and makes a request, as from `request`.
        :raises ClassScaleSegLib.ClassScaleError: if another run is under way, or there is no item.
        """
        from ClassScaleSegLib.scene.queue import SceneQueue

        queue = SceneQueue(items, slicer.modules.ClassScaleSegInstance.running)
        queue.start()
        return queue

    def segmentAll(
        self,
        volumes: "Sequence[vtkMRMLScalarVolumeNode | Sequence[vtkMRMLScalarVolumeNode]]",
        model: "str | Path | Sequence[str | Path]",
        *,
        progress: "Callable[[Event], None] | None" = None,
        **choices: Any,
    ) -> "tuple[QueueItem, ...]":
        """Segment several volumes, one after the other. One that fails does not stop the rest.

        :param volumes: volume nodes; each may be a list with one volume node per channel of the model.
        :param model: as of `segment`.
        :param progress: as of `segment`; an event "begin" says which volume has its turn.
        :param choices: as of `segment`, but those that name nodes.
        :returns: for each volume its ``state``, "finished" or "failed", its ``error``, and its ``run``, whose ``node``
            is the segmentation.
        :raises ClassScaleSegLib.ClassScaleError: if packages are missing, or an argument is not suitable.
        """
        from ClassScaleSegLib.scene.queue import QueueItem
        from ClassScaleSegPanel.install.packages import refuse_missing_dependencies, wanted_by

        requests = [self.request(each, model, **choices) for each in volumes]
        for request in requests[:1]:
            refuse_missing_dependencies(wanted_by(request.models, request.options))
        named = [(request.volumes[0].GetName(), request) for request in requests]
        items = [QueueItem(str(n), name, partial(_same, request)) for n, (name, request) in enumerate(named)]
        queue = self.startQueue(items)
        queue.wait(progress)
        return queue.items

    def installDependencies(self, model: str | Path | None = None, wheels: str | Path | None = None) -> None:
        """Install PyTorch and other missing Python packages after asking the user, as Apply in the panel does.

        :param model: whose network may need a further package, such as monai; as in `segment`.
        :param wheels: folder with wheels of the packages, torch included: installs from there, without a network and
            without a question.
        :raises ClassScaleSegLib.ClassScaleError: if the user declines, or the installation fails. The message says what
            to do.
        """
        from ClassScaleSegPanel.install.packages import Wanted, ensure_dependencies, wanted_by

        ensure_dependencies(Wanted() if model is None else wanted_by([model]), wheels)

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

    def compare(self, reference: vtkMRMLSegmentationNode, other: vtkMRMLSegmentationNode) -> "Comparison":
        """Compare two segmentations, whoever made them: Dice and both volumes of each structure.

            for row in logic.compare(drawnNode, foundNode).rows:
                print(row.name, row.dice, row.difference_ml)

        :param reference: a segmentation node, on whose grid both are compared.
        :param other: the segmentation node that is compared with it.
        :returns: ``rows``, one for each structure, and whether ``other`` was ``resampled``; see
            ``ClassScaleSegLib.images.comparison``.
        :raises ClassScaleSegLib.ImageError: if a node has no structure, or cannot be read as label maps.
        """
        from ClassScaleSegLib.errors import ImageError
        from ClassScaleSegLib.scene.results import compare_nodes
        from ClassScaleSegLib.scene.segmentation_reader import open_segmentation

        opened = []
        for node in (reference, other):
            if (found := open_segmentation(node)) is None:
                raise ImageError(f"There is no structure in {node.GetName()}.")
            opened.append(found)
        return compare_nodes(*opened)

    def saveSegmentation(
        self, segmentationNode: vtkMRMLSegmentationNode, path: str | Path, tell: Callable[[str], object] = logging.info
    ) -> bool:
        """Save a segmentation to a file, and replace the file if there is one.

        Segments with label maps on one grid, as those of `segment`, are written by the module's own ``.seg.nrrd``
        writer, in layers if they overlap; hundreds take about a second. Everything else is left to Slicer's writer.

        :param segmentationNode: the node to save.
        :param path: the file, ending in ``.seg.nrrd``; or in ``.seg.dcm`` for a volume from Slicer's DICOM database.
        :param tell: called with each sentence on a DICOM file that the user should see.
        :returns: ``True`` if the module's own writer was used.
        :raises ClassScaleSegLib.OutputError: if the file cannot be written.
        """
        from ClassScaleSegLib.scene.results import save_segmentation

        return save_segmentation(segmentationNode, path, tell)


def _same(request: "Request") -> "Request":
    return request


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
