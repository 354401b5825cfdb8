"""All parts of the panel, and what connects them: a signal changes parameters or state, and `render` shows both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
import vtk
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.remote.servers import Servers
from ClassScaleSegLib.scene.queue import SceneQueue
from ClassScaleSegLib.scene.run import SceneRun
from ClassScaleSegLib.scene.sequence import browser_of
from ClassScaleSegLib.scene.volume import first_volume, fit_region
from slicer.i18n import tr as _

from .archives.fetching import FetchDialog
from .archives.watching import WatchDialog
from .inputs.channel_rows import ChannelRows
from .inputs.channels import channel_volume, forget_volume, set_channel_volume
from .inputs.sample_data import model_for
from .models.chooser import ModelChooser
from .models.class_list import ClassList
from .models.drop import ModelDrop
from .models.locate_list import LocateList
from .models.model_list import ModelList
from .parameters import NODES
from .results.case_comparison import CaseComparison
from .results.case_review import CaseReview
from .results.compare_panel import ComparePanel
from .results.result_panel import ResultPanel
from .runs.apply_line import need_text
from .runs.device_list import DeviceList
from .runs.last_choice import LastChoice
from .runs.queue_panel import QueuePanel
from .runs.report_folder import ReportFolder
from .runs.request import model_ids, watching_with
from .runs.run_panel import RunPanel
from .servers.dialog import ServerDialog
from .servers.watch import ServerWatch
from .state import PanelState
from .training.dialog import TrainingDialog
from .training.models_dialog import ModelsDialog
from .widgets.choice_list import ChoiceList
from .widgets.keyboard import arrange, show_buttons
from .widgets.texts import Wrapping, tip
from .widgets.watching import Watching
from .widgets.whole_texts import WholeTexts

if TYPE_CHECKING:
    import qt
    from ClassScaleSegLib.remote.servers import KnownServer
    from slicer import vtkMRMLMarkupsROINode, vtkMRMLNode, vtkMRMLSegmentationNode

    from ClassScaleSeg import ClassScaleSegLogic

    from .parameters import ClassScaleSegParameterNode


class Panel:
    """The panel. `ClassScaleSegWidget` makes it, and tells it what happens to the module and to the scene.

    :ivar widget: what the .ui file describes.
    :ivar ui: the widgets in it, by name.
    :ivar state: the parameter node, and what the panel shows that is not saved with the scene.
    """

    def __init__(self, widget: qt.QWidget, logic: ClassScaleSegLogic) -> None:
        """Make all parts in the widgets of the .ui file; nothing is shown before `open`."""
        self.widget, self.logic, self.state = widget, logic, PanelState()
        self.ui: Any = slicer.util.childWidgetVariables(widget)
        self._gui_tag: int | None = None
        labels = (self.ui.channelHintLabel, self.ui.modelFactsLabel, self.ui.needLabel, self.ui.statusLabel)
        self.wrapping = [Wrapping(label) for label in labels]
        self.parameter_watching, self.input_watching = Watching(self.render), Watching(self.render)
        self.channels = ChannelRows(self.ui, self._on_channel, self.render)
        self.class_list = ClassList(lambda classes: self.store(classes=classes))
        self.ui.classesCollapsibleButton.layout().addWidget(self.class_list.table.widget)
        self.comparing = ComparePanel(self.ui, self.state, logic, lambda node: self.results.show_instead(node))
        self.case_comparison = CaseComparison(self.ui.compareCasesButton, logic)
        self.case_review = CaseReview(self.ui.reviewCasesButton, self._show_case)
        self.results = ResultPanel(self.ui, self.state, logic, self.comparing.follow, self.comparing.compare_with)
        servers = Servers()
        self.servers = ServerWatch(self.state, servers, self.render)
        self.devices = DeviceList(
            self.ui, self.state, lambda device: self.store(device=device), lambda: self.servers.again()
        )
        self.server_dialog = ServerDialog(self.ui.serversButton, servers, self.on_servers)
        self.locating = LocateList(self.ui, lambda identifier: self.store(locateWith=identifier))
        self.interpolation = ChoiceList(
            self.ui.interpolationComboBox,
            {"linear": _("Between all classes"), "nearest": _("Nearest class")},
            lambda choice: self.store(interpolation=choice),
        )
        self.runs = RunPanel(
            self.ui,
            self.state,
            logic,
            self.render,
            lambda: self.queue.follow(self.state.run),
            self._on_finished,
            lambda: self.models.reload(),
        )
        self.archive = FetchDialog(lambda fetched: self.queue.add_fetched(fetched))
        self.watch = WatchDialog(lambda: watching_with(self.state), self._show_watched)
        self.queue = QueuePanel(self.ui, self.state, self.render, self.archive.open, self.watch.open)
        self.reports = ReportFolder(self.ui, self.state)
        self.models = ModelChooser(self.ui, self.state, Catalog(), self.choose_models, self.render)
        self.model_list = ModelList(
            self.ui,
            self.state,
            lambda: self.models.installed(),
            self.choose_models,
            lambda overlap: self.store(overlap=overlap),
            self.render,
        )
        menu = self.ui.modelMenuButton.menu()
        self.training = TrainingDialog(self.ui.trainButton, Catalog(), self._shown_model, self.models.use)
        self.model_comparison = ModelsDialog(self.ui.compareModelsButton, Catalog(), self._shown_model)
        self.last_choice = LastChoice(menu, self.state, self.class_list, lambda choices: self.store(**choices))
        self.model_drop = ModelDrop(self.models.add)
        widget.installEventFilter(self.model_drop)
        self.ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._on_region_added)
        self.ui.applyButton.connect("clicked(bool)", lambda: self.runs.apply() if self.reports.agreed() else None)
        self.ui.cancelButton.connect("clicked(bool)", lambda: self.runs.cancel())
        arrange(widget)
        self.whole_texts = WholeTexts()
        self.whole_texts.watch(widget)

    def close(self) -> None:
        """Stop the run, timers, threads and observers, because the application closes or the module is reloaded."""
        self.runs.stop()
        self.models.close()
        self.servers.close()
        self.server_dialog.close()
        self.training.end()
        self.model_comparison.end()
        self.archive.end()
        self.watch.end()
        self.channels.close()
        self.results.close()
        self.comparing.close()
        self.case_comparison.close()
        self.case_review.end()
        self.widget.removeEventFilter(self.model_drop)
        self.follow(None)

    # --- the module and its scene

    def open(self, loaded: bool = False) -> None:
        """Show the parameter node of the scene, and select the first volume if none is selected.

        :param loaded: the module is open already, and the scene has changed: a correction that came with it goes on.
            Otherwise what was corrected meanwhile is taken over.
        """
        self.server_dialog.read()
        self.follow(self.logic.getParameterNode())
        if loaded:
            self.results.follow()
        else:
            self.results.take_over()
        self.comparing.render()
        self.select_volume()

    def follow(self, node: ClassScaleSegParameterNode | None) -> None:
        """Connect the widgets with a parameter node; ``None`` disconnects them."""
        before, self.state.parameters = self.state.parameters, node
        if before is not None:
            before.disconnectGui(self._gui_tag)  # type: ignore[attr-defined]  # of parameterNodeWrapper
            self.input_watching.stop()
            self.state.input = None
        self.parameter_watching.watch((node,), vtk.vtkCommand.ModifiedEvent)
        if node is not None:
            self.state.input, self.state.listed = (node.inputVolume, model_for(node.inputVolume)), None
            self.class_list.set_table(None)
            names = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
            bound = {name: widget for name, widget in names.items() if name}
            # not connectGui(), which returns no tag before Slicer 5.10, so that it could not be undone
            self._gui_tag = node.connectParametersToGui(bound)  # type: ignore[attr-defined]
            self.render()

    def select_volume(self) -> None:
        """Select the first volume of the scene if none is selected."""
        parameters = self.state.parameters
        if parameters is not None and parameters.inputVolume is None:
            first = first_volume(slicer.mrmlScene, parameters.confidence)
            if first is not None:
                self.store(inputVolume=first)

    def forget_scene(self) -> None:
        """Stop the run before its nodes are removed, and forget the result, because the scene is closed."""
        self.follow(None)
        self.state.status = ""
        self.runs.stop(_("The scene was closed, so the segmentation was stopped."))
        self.state.output, self.state.page = None, None
        self.results.show(None, None)
        self.results.forget(None)
        self.queue.empty()
        self.comparing.reset()
        self.case_comparison.reset()
        self.case_review.forget(None)
        self.channels.forget()
        self.render()

    def forget(self, node: vtkMRMLNode) -> None:
        """Forget a node that is removed: as a parameter, and as the result that is listed."""
        self.comparing.forget(node)
        self.case_comparison.forget(node)
        self.case_review.forget(node)
        self.results.forget(node)
        if node is self.state.output:
            self.state.output = None
        if node is self.state.node:
            self.results.show(None, None)
            if self.state.run is None:
                self.state.status = ""
            self.runs.render()
        self.queue.forget(node.GetID())
        if self.state.parameters is not None:
            forget_volume(self.state.parameters, node)
            self.store(**{name: None for name in NODES if getattr(self.state.parameters, name) is node})

    def look_again(self) -> None:
        """Look at the volumes and segmentations of the scene once the application is idle: some have come or gone."""
        self.channels.look_again()
        self.case_comparison.look_again()
        self.results.correcting.render()

    # --- what the user has chosen

    def store(self, **choices: str | float | vtkMRMLNode | None) -> None:
        """Store what the user has chosen in the parameter node, by the name of the parameter, and show it."""
        if self.state.parameters is not None and choices:
            with slicer.util.NodeModify(self.state.parameters) as node:
                for name, choice in choices.items():
                    setattr(node, name, choice)
                node.Modified()  # also if nothing changes there: no class and all classes are stored alike

    def choose_models(self, identifiers: tuple[str, ...]) -> None:
        """Store the models that the user has chosen."""
        self.store(model=identifiers[0], moreModels="\n".join(identifiers[1:]))

    def _shown_model(self) -> str:
        """Return the id of the model that the panel shows; empty if there is none."""
        return self.state.shown.id if self.state.shown is not None else ""

    def on_servers(self, servers: tuple[KnownServer, ...]) -> None:
        """Offer the user's servers as devices; ask the one that is selected again if it was added or changed."""
        self.devices.set_servers(servers)
        view = self.state.server
        if view is not None and (view.fault or view.server not in servers):
            self.servers.ask()
        else:
            self.render()

    def _on_channel(self, number: int, volume: vtkMRMLNode | None) -> None:
        """Store the volume that the user has chosen in a row of a channel."""
        parameters = self.state.parameters
        if parameters is not None and channel_volume(parameters, number) is not volume:
            with slicer.util.NodeModify(parameters) as node:
                set_channel_volume(node, number, volume)
                node.Modified()

    def _on_region_added(self, region: vtkMRMLMarkupsROINode) -> None:
        """Fit a region that the user has just created around the volume."""
        fit_region(region, self.state.parameters.inputVolume if self.state.parameters is not None else None)

    # --- what a run does

    def _on_finished(self, run: SceneRun | SceneQueue) -> None:
        """Show the result of a run, and select it for the next one, also if the module is not open.

        Of a queue the last result is shown. None is selected, because the next run must not replace it.
        """
        latest = None if isinstance(run, SceneRun) else run.latest
        shown = run if isinstance(run, SceneRun) else latest.run if latest is not None else None
        if shown is None:
            return
        self.results.show(shown.node, (shown.results[0], shown.statistics[0]))
        self.case_comparison.look_again()
        parameters = self.state.parameters or self.logic.getParameterNode()
        parameters.segmentation = shown.node if shown is run else None
        self.ui.resultCollapsibleButton.collapsed = False

    def _show_watched(self) -> None:
        """Show what is known of the archive that is watched, and that it is once its window is closed."""
        told = self.watch.told
        self.queue.show_watched(told)
        if told and self.watch.dialog is None:
            self.ui.queueCollapsibleButton.collapsed = False

    def _show_case(self, node: vtkMRMLSegmentationNode, other: vtkMRMLSegmentationNode | None) -> None:
        """List the segmentation of a case that was opened, and choose the one to compare it with."""
        self.results.show_node(node)
        self.ui.resultCollapsibleButton.collapsed = False
        if other is not None:
            self.comparing.compare_with(other)

    # --- what is shown

    def settle(self, node: ClassScaleSegParameterNode) -> None:
        """Follow the parameters, which the user, a scene or a script may have changed.

        A sample volume that was newly selected brings its model.
        """
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
        self.class_list.follow(node, state)
        if node.segmentation is not state.output:  # the user may list another one meanwhile
            state.output = node.segmentation
            if node.segmentation is not None and node.segmentation is not state.node:
                self.results.show_node(node.segmentation)

    def render(self, caller: Any = None, event: str | None = None) -> None:
        """Show the parameters and the state in the widgets, which send no signals meanwhile."""
        ui, state, node = self.ui, self.state, self.state.parameters
        self.runs.render()
        if node is None:
            return
        self.settle(node)
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self.input_watching.watch((node.inputVolume, node.region), vtk.vtkCommand.ModifiedEvent, moved)
        self.models.render()
        self.model_list.render(node.overlap)
        self.devices.render(node.device)
        self.interpolation.render(node.interpolation)
        self.locating.render(node.locateWith, self.models.single_models(), self.models.usual_locating())
        self.channels.render(node, state.channels)
        ui.allFramesCheckBox.visible = node.inputVolume is not None and browser_of(node.inputVolume) is not None
        text, ready = need_text(state, node, self.class_list.ticked)
        ui.needLabel.text = text
        show_buttons(ui, ready, state.run is not None, text, ui.statusLabel.text)
        ui.applyButton.toolTip = _("Segment the volume.") if ready else tip(text)
        self.queue.render()
