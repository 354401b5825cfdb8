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
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    import qt
    from ClassScaleSegLib.images.comparison import ClassComparison, Comparison
    from ClassScaleSegLib.process import Event
    from ClassScaleSegLib.scene.correction import Corrected
    from ClassScaleSegLib.scene.queue import QueueItem, SceneQueue
    from ClassScaleSegLib.scene.request import Request
    from ClassScaleSegLib.scene.run import SceneRun
    from ClassScaleSegPanel.panel import Panel
    from ClassScaleSegPanel.parameters import ClassScaleSegParameterNode
    from slicer import vtkMRMLNode, vtkMRMLScene


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


class ClassScaleSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """What Slicer tells the panel: the module is opened or left, the scene and its nodes change.

    :ivar logic: the module's logic, made by `setup`.
    :ivar panel: the widgets, made by `setup`.
    """

    logic: "ClassScaleSegLogic"
    panel: "Panel"

    def __init__(self, parent: "qt.QWidget | None" = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Make the widgets; called once, when the module is first opened."""
        from ClassScaleSegPanel.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/ClassScaleSeg.ui"))
        self.layout.addWidget(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = ClassScaleSegLogic()
        self.panel = Panel(widget, self.logic)
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
        self.panel.open()

    def cleanup(self) -> None:
        """Stop the run and all observers, because the application closes or the module is reloaded."""
        self.panel.close()
        self.removeObservers()

    def onReload(self) -> None:
        """Reload the module, its library and its panel, so that changes to their files take effect."""
        self.panel.runs.stop()
        for name in list(sys.modules):
            if name.partition(".")[0] in ("ClassScaleSegLib", "ClassScaleSegPanel"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self) -> None:
        """Show the current parameters; called each time the module is opened."""
        self.panel.open()

    def exit(self) -> None:
        """Stop following the parameters; called each time the module is left. A run continues."""
        self.panel.follow(None)

    def onSceneStartClose(self, caller: "vtkMRMLScene", event: str) -> None:
        """Stop the run before its nodes are removed, and forget the result."""
        self.panel.forget_scene()

    def onSceneStartChange(self, caller: "vtkMRMLScene", event: str) -> None:
        """Keep the widgets from writing into the parameter node while the scene is incomplete."""
        self.panel.follow(None)

    def onSceneEndChange(self, caller: "vtkMRMLScene", event: str) -> None:
        """Show the parameters of the changed scene, if the module is open. A correction that came with it goes on."""
        self.panel.channels.forget()
        if self.parent.isEntered:
            self.panel.open(loaded=True)
            self.panel.channels.look_again()  # its lists may learn of the new volumes only after this
        self.panel.results.correcting.go_on_soon()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller: "vtkMRMLScene", event: str, node: "vtkMRMLNode") -> None:
        """Forget a node that is removed."""
        self.panel.forget(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller: "vtkMRMLScene", event: str, node: "vtkMRMLNode") -> None:
        """Select another volume if that was the selected one."""
        self.panel.select_volume()
        self.panel.look_again()
        self.panel.results.colors.render()  # of the confidence of each voxel, if it was that

    def onNodeAdded(self, caller: "vtkMRMLScene", event: str) -> None:
        """Look whether a new volume is a channel, or a new segmentation a reference."""
        self.panel.look_again()


class ClassScaleSegLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for the Python console and for other modules."""

    def getParameterNode(self) -> "ClassScaleSegParameterNode":
        """Return the settings of the panel in the current scene."""
        from ClassScaleSegPanel.parameters import ClassScaleSegParameterNode

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
        :param progress: called with each ``ClassScaleSegLib.process.Event`` of the run.
        :param choices: for the nodes ``region``, ``all_frames``, ``segmentation``, ``replace``, ``confidence``,
            ``statistics``, and for ``report`` (a folder), ``report_name`` and ``standard_names``, which
            ``ClassScaleSegLib.scene.request.Request`` explains; for the rest
            ``classes``, ``device``, ``step``, ``mirroring``, ``bfloat16``, ``folds``, ``checkpoint``,
            ``configuration``, ``interpolation``, ``overlap``, ``memory_limit`` (GiB), ``threads``, ``keep_empty``,
            ``smooth`` (mm), ``remove_islands`` (mm^3), ``clean_classes``, ``locate_with``, ``locate_classes`` and
            ``locate_margin`` (mm), which ``ClassScaleSegLib.Options`` explains. The device ``server:ADDRESS`` is a
            server, whose models are meant then.
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
        from ClassScaleSegLib.scene.request import request_for

        return request_for(volume, model, choices)

    def start(self, request: "Request") -> "SceneRun":
        """Start a run, and return it without waiting for the result.

        Then call ``poll()`` of the run from a timer until its ``state`` is no longer "running", or call ``wait()``.

        :param request: what to segment, from `request`.
        :raises ClassScaleSegLib.ClassScaleError: if another run is under way, Python packages are missing, or the
            request cannot be met. The message says what to do.
        """
        from ClassScaleSegLib.scene.run import SceneRun
        from ClassScaleSegPanel.install.missing import refuse_missing_dependencies, wanted_by

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
        from ClassScaleSegPanel.install.missing import refuse_missing_dependencies, wanted_by

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
        from ClassScaleSegPanel.install.missing import Wanted, wanted_by
        from ClassScaleSegPanel.install.packages import ensure_dependencies

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
        self, segmentationNode: vtkMRMLSegmentationNode, segmentID: str, leastSure: bool = False
    ) -> tuple[float, float, float] | None:
        """Centre the slice views and 3D views on a segment.

        :param segmentationNode: the node with the segment.
        :param segmentID: id of the segment, such as "Segment_5".
        :param leastSure: on the place in it where the model was least sure, if the volume with the confidence of its
            voxels is in the scene.
        :returns: the centre, RAS in mm; ``None``, with no view moved, if the segment is empty or does not exist.
        """
        from ClassScaleSegLib.scene.confidence_volume import centre_least_sure
        from ClassScaleSegLib.scene.view import centre_views

        return (centre_least_sure if leastSure else centre_views)(segmentationNode, segmentID)

    def colorByConfidence(self, segmentationNode: vtkMRMLSegmentationNode, on: bool = True) -> bool:
        """Colour segments by the mean confidence of the model in them, in all views, or by their own colours again.

        Yellow is a mean of 0.5 or less, violet of 1. What is saved has the segments' own colours.

        :param segmentationNode: made with a ``confidence``; segments without one keep their own colours.
        :returns: whether they are coloured by it: ``False`` also if no segment has one.
        """
        from ClassScaleSegLib.scene.confidence_colors import show_confidence

        return show_confidence(segmentationNode, on)

    def showConfidenceMap(
        self,
        segmentationNode: vtkMRMLSegmentationNode,
        on: bool = True,
        confidenceNode: vtkMRMLScalarVolumeNode | None = None,
    ) -> bool:
        """Show in the slice views where the model was unsure, or show there what they had before again.

        Voxels have the colours of `colorByConfidence`, from yellow for 0.5 or less; those of more than 0.9 are
        transparent. The segments are faint outlines meanwhile.

        :param segmentationNode: made with a ``confidence``, which is still in the scene.
        :param confidenceNode: the volume with the confidence, if both were loaded from files. It is remembered.
        :returns: whether that is shown: ``False`` also if there is no such volume, or no slice view.
        """
        from ClassScaleSegLib.scene.confidence_map import show_confidence_map
        from ClassScaleSegLib.scene.confidence_volume import remember_confidence

        if confidenceNode is not None:
            remember_confidence(segmentationNode, confidenceNode)
        return show_confidence_map(segmentationNode, on)

    def structuresToCheck(self, segmentationNode: vtkMRMLSegmentationNode) -> list[str]:
        """Return the ids of the segments that nobody has checked, those of which the model was least sure first.

        for segmentID in logic.structuresToCheck(segmentationNode)[:20]:
            logic.centerViews(segmentationNode, segmentID, leastSure=True)
            ...
            logic.noteChecked(segmentationNode, segmentID)
        """
        from ClassScaleSegLib.scene.checked import checked_structures, least_sure_first

        checked = set(checked_structures(segmentationNode))
        return [each for each in least_sure_first(segmentationNode) if each not in checked]

    def noteChecked(self, segmentationNode: vtkMRMLSegmentationNode, segmentID: str, checked: bool = True) -> None:
        """Note that somebody has checked a segment, or that it has to be checked again.

        It is Slicer's status of the segment, "Completed", which scenes and files keep. Of a sequence, the frame that is
        shown has it.

        :raises ClassScaleSegLib.ImageError: if there is no such segment.
        """
        from ClassScaleSegLib.errors import ImageError
        from ClassScaleSegLib.scene.checked import mark_checked

        if segmentationNode.GetSegmentation().GetSegment(segmentID) is None:
            raise ImageError(f"{segmentationNode.GetName()} has no segment {segmentID}.")
        mark_checked(segmentationNode, segmentID, checked)

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
        from ClassScaleSegLib.scene.results import compare_nodes
        from ClassScaleSegLib.scene.segmentation_reader import open_structures

        return compare_nodes(open_structures(reference), open_structures(other))

    def showDifferences(
        self,
        reference: vtkMRMLSegmentationNode,
        other: vtkMRMLSegmentationNode,
        rows: "Sequence[ClassComparison] | None" = None,
    ) -> vtkMRMLSegmentationNode:
        """Show where two segmentations differ, in a segmentation of three segments, and centre the views on it.

            rows = [row for row in logic.compare(drawnNode, foundNode).rows if row.dice is not None and row.dice < 0.8]
            logic.showDifferences(drawnNode, foundNode, rows)

        :param reference: a segmentation node, on whose grid both are compared.
        :param other: the segmentation node that is compared with it.
        :param rows: the structures that count, some of the rows of `compare`; ``None``: all.
        :returns: the node with the segments "both", "reference" and "other", the same one each time for a reference.
            The two segmentations are hidden until it is hidden or removed.
        :raises ClassScaleSegLib.ImageError: as `compare`. The scene is not changed.
        """
        from ClassScaleSegLib.scene.differences import show_differences
        from ClassScaleSegLib.scene.results import compare_nodes
        from ClassScaleSegLib.scene.segmentation_reader import open_structures

        opened = open_structures(reference), open_structures(other)
        counted = compare_nodes(*opened).rows if rows is None else rows
        return show_differences(reference, other, opened, counted).node

    def loadStructureSet(
        self,
        path: str | Path,
        like: vtkMRMLSegmentationNode,
        tell: Callable[[str], object] = logging.info,
    ) -> vtkMRMLSegmentationNode:
        """Load an RT Structure Set, whose contours are filled on the grid of the volume of a segmentation.

            drawnNode = logic.loadStructureSet("plan.rtstruct.dcm", segmentationNode)
            logic.compare(drawnNode, segmentationNode)

        :param path: the DICOM file.
        :param like: the segmentation; its own grid counts if its volume is not in the scene.
        :param tell: called with each sentence on how contours were understood.
        :returns: a new node.
        :raises ClassScaleSegLib.ImageError: if the file cannot be read, or its contours are of another image.
        """
        from ClassScaleSegLib.scene.structure_sets import add_structure_set

        return add_structure_set(like, path, tell)

    def correct(
        self, segmentationNode: vtkMRMLSegmentationNode, segmentID: str, volume: vtkMRMLScalarVolumeNode | None = None
    ) -> vtkMRMLSegmentationNode:
        """Prepare Slicer's Segment Editor to correct one structure of a segmentation, with all others locked.

            logic.correct(segmentationNode, "Segment_17")
            slicer.util.selectModule("SegmentEditor")
            ...
            logic.finishCorrection()

        The structure is edited in a node of its own, whose second segment stands for all other structures. The
        segmentation itself changes at the end, which comes also when the user opens this module. Of a sequence, the
        frame that is shown is corrected.

        :param segmentationNode: the node with the structure.
        :param segmentID: id of its segment, such as "Segment_17".
        :param volume: that is shown; by default that of the segmentation.
        :returns: the node that is edited.
        :raises ClassScaleSegLib.ImageError: if there is no such segment, the segmentation does not consist of label
            maps, or another correction is not finished. The scene is not changed.
        """
        from ClassScaleSegLib.scene.correction import begin_correction, edit
        from ClassScaleSegLib.scene.source_volumes import first_volume

        node = begin_correction(segmentationNode, segmentID)
        edit(node, volume or first_volume(segmentationNode))
        return node

    def finishCorrection(self, discard: bool = False) -> "Corrected | None":
        """Take what was painted over into the structure that `correct` has named, and remove the node of its own.

        :param discard: leave the structure as it was instead.
        :returns: what has changed; ``None`` if nothing is being corrected, or it was discarded.
        :raises ClassScaleSegLib.ImageError: if the structure is not there any more. What was painted stays as a
            segmentation.
        """
        from ClassScaleSegLib.scene.correction import correction_in, discard_correction, finish_correction

        node = correction_in(slicer.mrmlScene)
        if node is not None and discard:
            discard_correction(node)
        return None if node is None or discard else finish_correction(node)

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

    def saveForTraining(
        self,
        segmentationNode: vtkMRMLSegmentationNode,
        folder: str | Path,
        *,
        volume: vtkMRMLScalarVolumeNode | Sequence[vtkMRMLScalarVolumeNode] | None = None,
        replace: bool = False,
        tell: Callable[[str], object] = logging.info,
    ) -> str:
        """Save a segmentation, such as a corrected result, with its volume as a case for training a network.

            logic.saveForTraining(segmentationNode, "/data/corrected")

        The folder gets ``images/NAME_0000.nii.gz``, one file per channel, and ``segmentations/NAME.seg.nrrd`` on the
        same grid, for ``classscaleseg-train finetune``. A segment without a voxel says that the image has no such
        structure; a structure without a segment may be in it.

        :param folder: of all cases; it need not exist.
        :param volume: the volume, or a list with one volume per channel; by default that from which the segmentation
            was made.
        :param replace: replace the case of the same volume, if the folder has one; otherwise that is an error.
        :param tell: called with each sentence on what was changed to fit the grid of the volume.
        :returns: the name of the case: that of the volume, with a number if another volume's case is called so.
        :raises ClassScaleSegLib.ImageError: if the volume is not known, or does not go with the segmentation.
        :raises ClassScaleSegLib.OutputError: if a file cannot be written. Nothing is left incomplete.
        """
        from ClassScaleSegLib.scene.training import training_case, write_case

        given = () if volume is None else tuple(volume) if isinstance(volume, (list, tuple)) else (volume,)
        case = training_case(segmentationNode, folder, given)
        write_case(case, replace)
        for notice in case.notices:
            tell(notice)
        return case.name


def _same(request: "Request") -> "Request":
    return request


class ClassScaleSegTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer: segments the embedded sample with the embedded model."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_sample_is_segmented(self) -> None:
        from ClassScaleSegLib.resources import resource
        from ClassScaleSegPanel.parameters import SAMPLE

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
