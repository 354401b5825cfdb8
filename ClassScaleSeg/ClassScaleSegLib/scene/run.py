"""Segment volume nodes in a child process, and put the result into a segmentation node, for the panel and for scripts.

    run = SceneRun(Request((volume,), "toy-120"))
    run.start()
    run.wait()                # or, in an application, call run.poll() from a timer
    run.node

The scene does not change before the result is complete. The temporary folder is removed however the run ends.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.chosen import Choice, choose
from ..errors import Cancelled, ClassScaleError, ImageError, OutputError, OutputExistsError
from ..files import unwritable
from ..images.dicom.seg import UsedModel
from ..labels.table import LabelTable
from ..process.job import Event, Job
from ..process.segmentation import SegmentationProcess
from ..remote.credentials import TOKEN
from .confidence_volume import remember_confidence
from .dicom import remember_origin
from .report import OriginOfVolumes, check_report, reported_as
from .request import Request
from .results import (
    fill_confidence_node,
    measure_result,
    read_result,
    removed_on_failure,
    show_result,
)
from .sequence import add_segmentations, browser_of, frames
from .source_volumes import remember_volumes
from .table_nodes import fill_table_node
from .volume import check_volume, geometry_of, refuse_overwriting, region_of, write_volume

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLNode,
        vtkMRMLSegmentationNode,
    )

    from ..images.counts import LabelVolume
    from ..images.geometry import Geometry
    from ..images.segmentation import Segmentation
    from .volume import Region

_MARGIN = 64 << 20  # bytes for the statistics, the log, and what file systems reserve


class SceneRun:
    """One run of a request.

    :ivar state: "new", "running", "finished", "failed" or "cancelled".
    :ivar node: the segmentation node, once the run has finished.
    :ivar results: a `Segmentation` per frame, with the names of the segments, once the run has finished.
    :ivar statistics: the statistics of each of the ``results``.
    :ivar error: why the run failed, in a sentence; ``None`` unless it did.
    :ivar notice: what the user should know about a run that finished, usually empty.
    :ivar page: the page of the report, once it is written.
    :param running: the runs that are under way, of which only one is allowed at a time.
    """

    def __init__(self, request: Request, running: list[SceneRun] | None = None) -> None:
        self._running = [] if running is None else running
        self.request, self.state, self.notice = request, "new", ""
        self.error: str | None = None
        self.node: vtkMRMLSegmentationNode | None = None
        self.page: Path | None = None
        self.results: list[Segmentation] = []
        self.statistics: list[list[LabelVolume]] = []
        self._process: SegmentationProcess | None = None
        self._origin: OriginOfVolumes | None = None  # that the child process is started with, once it is known
        self._grids: list[tuple[Region | None, Geometry]] = []  # one per frame
        self._models: tuple[UsedModel, ...] = ()
        self._channels: tuple[str, ...] = ()  # the model's names of the volumes
        self._known: LabelTable | None = None  # all classes of the models, if they get standard names
        self._images: list[Path] = []  # the file of the first channel, one per frame
        self._names: dict[str, str] = {}  # of the volumes, by the files that the child process gets
        self._name = ""

    def start(self) -> None:
        """Check the request, write the images to a temporary folder, and start the child process.

        With a report of a region, the child process is started later, by :meth:`poll` or :meth:`wait`.

        :raises ClassScaleError: if another run is under way, the request cannot be met, or the images cannot be
            written. The scene is not changed, and the temporary folder is removed.
        """
        if self._running:
            raise ClassScaleError("A segmentation is already running. Wait until it ends, or cancel it.")
        request = self.request
        for volume in request.volumes or (None,):
            check_volume(volume)
        server = request.segmented_by
        choice = (choose if server is None else server.choose)(request.models, request.options)
        channels = choice.summaries[0].channels
        if len(request.volumes) != channels:
            raise ImageError(
                f"The model needs {channels} volume(s), one per channel, and {len(request.volumes)} are given."
            )
        self._refuse_existing_segments()
        refuse_overwriting(request.volumes, request.confidence)
        check_report(request.report, request.all_frames)
        self._name = request.volumes[0].GetName()
        self._models = tuple(UsedModel(summary.name, summary.licence) for summary in choice.summaries)
        self._known = choice.table if request.standard_names else None
        # empty for a server without one, which must not get that of another server
        environment = {} if server is None else {TOKEN: server.token or ""}
        self._process = process = SegmentationProcess(environment=environment)
        try:
            process.job = self._job(choice, process.work_folder)
            if server is not None:
                job = replace(process.job, server=server.address, server_ca=server.ca, insecure=server.insecure)
                process.job = job
            if request.report is not None and request.region is not None:
                self._origin = OriginOfVolumes(request.volumes)
            else:
                process.start()
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise unwritable(process.work_folder, error) from error
            raise
        self._running.append(self)
        self.state = "running"

    def _refuse_existing_segments(self) -> None:
        node = self.request.segmentation
        if node is not None and node.GetSegmentation().GetNumberOfSegments() and not self.request.replace:
            raise OutputExistsError(
                f"{node.GetName()} already has segments. Select another segmentation, or replace them (replace=True)."
            )
        if self.request.all_frames and self.request.confidence is not None:
            raise OutputError(
                "Confidence is computed for a single volume, not for a sequence. Select no confidence volume."
            )

    def _job(self, choice: Choice, folder: Path) -> Job:
        """Write the images into ``folder``, and return the job that segments them."""
        request = self.request
        images = folder / "images"
        images.mkdir()
        if request.all_frames:
            for frame in frames(request.volumes[0]):
                self._write_images(images, f"frame{frame:06}")
            (folder / "results").mkdir()
            paths: tuple[Path, ...] = (images,)
            output = folder / "results"
        else:
            paths, output = self._write_images(images, "image"), folder / "result.seg.nrrd"
        confidence = folder / "confidence.nrrd" if request.confidence is not None else None
        models, names, options = choice.as_files
        job = Job(paths, models, output, confidence, options=options, model_names=names)
        if request.report is None:
            return job
        return replace(job, report=request.report, reported=reported_as(request.volumes, request.report_name))

    def _write_images(self, folder: Path, name: str) -> tuple[Path, ...]:
        volumes, roi = self.request.volumes, self.request.region
        region = None if roi is None else region_of(volumes[0], roi)
        first = volumes[0].GetImageData()
        files = []
        for channel, volume in enumerate(volumes):
            image = volume.GetImageData()
            if image.GetDimensions() != first.GetDimensions():
                raise ImageError(
                    f"{volume.GetName()} has {image.GetDimensions()} voxels and {volumes[0].GetName()} "
                    f"{first.GetDimensions()}. All channels need the same grid. Resample one of the volumes to the "
                    "grid of the other, for example with Slicer's module Resample Scalar/Vector/DWI Volume."
                )
            need = image.GetNumberOfPoints() * (image.GetScalarSize() + 2) + _MARGIN
            free = shutil.disk_usage(folder).free
            if free < need:
                raise OutputError(
                    f"The temporary folder {folder.parents[1]} has {free / 1e9:.1f} GB free, and about "
                    f"{need / 1e9:.1f} GB are needed. Make room there, and run again."
                )
            files.append(folder / f"{name}_{channel:04}.nrrd")
            self._names[str(files[-1])] = volume.GetName()
            write_volume(volume, files[-1], region)
        self._grids.append((region, geometry_of(volumes[0])))
        self._images.append(files[0])
        return tuple(files)

    def poll(self) -> list[Event]:
        """Return the events since the last call, without waiting for more.

        Once the child process has ended, fill the nodes and set ``state``.
        """
        process = self._process
        if process is None or self.state != "running":
            return []
        if not self._inputs_exist():
            self.cancel()
            self._fail(f"{self._name} was removed from the scene, so its segmentation was stopped.")
            return []
        if self._origin is not None:
            try:
                self._start_with(process, self._origin.get())
            except ClassScaleError as error:
                self._fail(str(error))
                self._close()
            if self._origin is not None or self.state != "running":
                return []
        events = process.poll()
        if process.state != "running":
            events += self._conclude(process)
        return events

    def _start_with(self, process: SegmentationProcess, origin: str | None) -> None:
        """Start the child process once it is known of which image the report is."""
        if origin is not None:
            job = process.job
            assert job is not None and job.reported is not None  # start() has set it
            process.job = replace(job, reported=replace(job.reported, origin=origin))
            self._origin = None
            process.start()

    def wait(self, on_event: Callable[[Event], None] | None = None) -> vtkMRMLSegmentationNode:
        """Block until the run has ended, and return the segmentation node.

        :param on_event: called with each `Event`. If it raises, or Ctrl-C is pressed, the run is cancelled.
        :raises ClassScaleError: if the run failed.
        :raises Cancelled: if the run was cancelled.
        """
        process = self._process
        try:
            if process is not None and self.state == "running":
                if self._origin is not None:
                    self._start_with(process, self._origin.get(None))
                process.wait(on_event)
                for event in self._conclude(process):
                    if on_event is not None:
                        on_event(event)
        except BaseException:
            self.cancel()
            raise
        if self.state == "cancelled":
            raise Cancelled("The segmentation was cancelled. The scene was not changed.")
        if self.state == "failed":
            raise ClassScaleError(self.error)
        return self.node

    def cancel(self) -> None:
        """End the child process with all its children, and remove the temporary folder.

        A run that has ended keeps its state and its result.
        """
        if self.state == "running":
            self.state = "cancelled"
        self._close()

    @property
    def log(self) -> str:
        """What the child process has printed so far, and the notice, for people to read or copy."""
        return "\n".join(filter(None, (self._process.log if self._process is not None else "", self.notice)))

    def _conclude(self, process: SegmentationProcess) -> list[Event]:
        """Put the result of the process into the scene, and set ``state``. Return the notice as an event, if any."""
        if process.state == "finished":
            try:
                if not self._inputs_exist():
                    raise ImageError(f"{self._name} was removed from the scene, so its segmentation was discarded.")
                with removed_on_failure(self.request.volumes[0].GetScene()):
                    assert process.job is not None  # start() has set it
                    self._fill(process.job)
                self.state = "finished"
                self._note_report(process.result)
            except ClassScaleError as error:
                self._fail(str(error))
            except MemoryError:
                self._fail("Memory ran out while the result was loaded. Close other programs or scenes, and run again.")
            except Exception as error:  # a bug here or in an observer of the scene; must not repeat at every poll
                logging.exception("The result of a segmentation could not be shown")
                self._fail(
                    f"The result could not be shown ({type(error).__name__}: {error}). This is an error in the module. "
                    "Please report it, with Slicer's error log (View > Error Log)."
                )
        elif process.state == "cancelled":
            self.state = "cancelled"
        else:
            self._fail(self._named(process.error or "The segmentation process failed without a message. See the log."))
        self._close()
        return [Event("message", text=self.notice)] if self.notice and self.state == "finished" else []

    def _note_report(self, result: dict[str, Any]) -> None:
        """Note the page of the report, or why there is none."""
        if page := result.get("report"):
            self.page = Path(page)
        if fault := result.get("report_fault"):
            self.notice = " ".join(filter(None, (self.notice, f"The report is not written. {self._named(fault)}")))

    def _fill(self, job: Job) -> None:
        import slicer

        request, volume = self.request, self.request.volumes[0]
        loaded = []
        for frame, grid in enumerate(self._grids):
            file = Path(job.output, f"frame{frame:06}.seg.nrrd") if request.all_frames else Path(job.output)
            loaded.append(read_result(file, job.confidence, *grid, self._known))
        results, statistics = [result for result, _rows in loaded], [rows for _result, rows in loaded]
        choices = (request.options.keep_empty, request.replace)
        if request.all_frames and browser_of(volume) is not None:
            nodes = []
            for result in loaded:
                nodes.append(slicer.vtkMRMLSegmentationNode())
                nodes[-1].SetName(f"{self._name} segmentation")
                show_result(nodes[-1], result, volume, *choices)
                remember_origin(nodes[-1], self._models, result[1])
            node = add_segmentations(volume, nodes, f"{self._name} segmentation")
        else:
            node = self._target()
            show_result(node, loaded[0], volume, *choices)
            remember_origin(node, self._models, statistics[0])
        remember_volumes(node, request.volumes, request.region is not None)
        confidence = request.confidence if _is_in_scene(request.confidence) else None
        if confidence is not None and results[0].confidence is not None:
            fill_confidence_node(confidence, results[0].confidence, self._grids[0][1])
        remember_confidence(node, confidence)
        if _is_in_scene(request.statistics):
            regions = [region for region, _grid in self._grids]
            fill_table_node(request.statistics, statistics, list(map(measure_result, results, self._images, regions)))
        self.node, self.results, self.statistics = node, results, statistics

    def _target(self) -> vtkMRMLSegmentationNode:
        """Return the requested node, or a new one if that was removed or got segments during the run."""
        node, scene = self.request.segmentation, self.request.volumes[0].GetScene()
        if not _is_in_scene(node):
            node = None
        if node is not None and (self.request.replace or not node.GetSegmentation().GetNumberOfSegments()):
            return node
        name = scene.GenerateUniqueName(f"{self._name} segmentation")
        if node is not None:
            self.notice = f"Segments were added to {node.GetName()} during the run, so the result is in {name}."
        return scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)

    def _inputs_exist(self) -> bool:
        return all(_is_in_scene(volume) and volume.GetImageData() is not None for volume in self.request.volumes)

    def _named(self, sentence: str) -> str:
        """Return what the child process tells, with the names of volumes for their files, which nobody knows."""
        for file, name in self._names.items():
            sentence = sentence.replace(file, name)
        return sentence

    def _fail(self, sentence: str) -> None:
        self.state, self.error = "failed", sentence

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
        if self in self._running:
            self._running.remove(self)


def _is_in_scene(node: vtkMRMLNode | None) -> bool:
    return node is not None and node.GetScene() is not None and node.GetScene().IsNodePresent(node)
