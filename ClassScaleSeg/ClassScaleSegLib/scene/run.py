"""One run: from volume nodes through the child process to a segmentation node. Used by the panel and by scripts alike.

    run = SceneRun(Request((volume,), "toy-120"))
    run.start()
    run.wait()                # or, in an application: a timer that calls run.poll()
    run.node

Nothing in the scene changes before the result is there, and nothing is left in the temporary folder, however it ends.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.catalog import resolve_model
from ..errors import Cancelled, ClassScaleError, ImageError, OutputError, OutputExistsError
from ..files import unwritable
from ..models.summary import summarize
from ..process.process import Event, Job, SegmentationProcess
from .results import fill_confidence_node, fill_table_node, read_result, removed_on_failure, show_result
from .sequence import add_segmentations, browser_of, frames
from .volume import check_volume, geometry_of, region_of, write_volume

if TYPE_CHECKING:
    from ..images.geometry import Geometry
    from ..images.segmentation import Segmentation
    from .volume import Region

_MARGIN = 64 << 20  # for the statistics, the log, and what file systems keep


@dataclass(frozen=True)
class Request:
    """What to segment, with what, and where the result goes.

    :ivar volumes: scalar volume nodes, one a channel.
    :ivar model: path, or id or name of the catalogue.
    :ivar region: ``vtkMRMLMarkupsROINode``: only voxels in it are segmented.
    :ivar all_frames: of the sequence that the first volume belongs to.
    :ivar segmentation: node to fill; a new one if ``None``.
    :ivar replace: the segments it has.
    :ivar confidence, statistics: nodes to fill, if wanted.
    :ivar options: further fields of `Job`, such as ``classes``, ``device``, ``step``, ``mirroring``, ``folds``,
        ``memory_limit``, ``threads``.
    :raises ClassScaleError: if ``options`` names something that there is not.
    """

    volumes: tuple[Any, ...]
    model: str | Path
    region: Any = None
    all_frames: bool = False
    segmentation: Any = None
    replace: bool = False
    confidence: Any = None
    statistics: Any = None
    standard_names: bool = True
    keep_empty: bool = False
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        own = {field.name for field in fields(Request)}
        known = {field.name for field in fields(Job)} - own - {"images", "output"}
        if unknown := sorted(set(self.options or ()) - known):
            listed = ", ".join(sorted(known | own - {"volumes", "model", "options"}))
            raise ClassScaleError(f"There is no option {', '.join(unknown)}. The options are {listed}.")


def request_for(volumes: Any, model: str | Path, choices: dict[str, Any]) -> Request:
    """The request of one volume node, or a list of them; ``choices`` are its own fields, or options of the `Job`.

    :raises ClassScaleError: if a choice is neither.
    """
    own = {field.name for field in fields(Request)} - {"volumes", "model", "options"}
    kept = {name: choice for name, choice in choices.items() if name in own}
    options = {name: choice for name, choice in choices.items() if name not in own}
    volumes = tuple(volumes) if isinstance(volumes, (list, tuple)) else (volumes,)
    return Request(volumes, model, **kept, options=options)


class SceneRun:
    """:ivar state: "new", "running", "finished", "failed" or "cancelled".
    :ivar node: the segmentation node at the end.
    :ivar results: a `Segmentation` for each frame, as shown.
    :ivar error: a sentence, if it failed.
    :ivar notice: what the user should know of a run that finished, mostly nothing.
    """

    current: SceneRun | None = None  # the one that runs, in this application

    def __init__(self, request: Request):
        self.request, self.state, self.error, self.notice = request, "new", None, ""
        self.node: Any = None
        self.results: list[Segmentation] = []
        self._process: SegmentationProcess | None = None
        self._regions: list[Region | None] = []  # these two: one a frame
        self._geometries: list[Geometry] = []
        self._name = ""

    def start(self) -> None:
        """Check the request, write the images, start the process.

        :raises ClassScaleError: a sentence; nothing is left behind.
        """
        if SceneRun.current is not None and SceneRun.current.state == "running":
            raise ClassScaleError("A segmentation is running already. Wait until it ends, or cancel it.")
        request = self.request
        for volume in request.volumes or (None,):
            check_volume(volume)
        model = resolve_model(str(request.model))
        channels = summarize(model[0]).channels
        if len(request.volumes) != channels:
            raise ImageError(f"The model reads {channels} volume(s), one a channel; {len(request.volumes)} are chosen.")
        self._refuse_existing_segments()
        self._name = request.volumes[0].GetName()
        self._process = SegmentationProcess()
        try:
            self._process.job = self._job(model, self._process.work_folder)
            self._process.start()
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise unwritable(self._process.work_folder, error) from error
            raise
        SceneRun.current, self.state = self, "running"

    def _refuse_existing_segments(self) -> None:
        node = self.request.segmentation
        if node is not None and node.GetSegmentation().GetNumberOfSegments() and not self.request.replace:
            raise OutputExistsError(
                f"{node.GetName()} has segments already. Choose a new segmentation, or replace them."
            )
        if self.request.all_frames and self.request.confidence is not None:
            raise OutputError(
                "Confidence is computed for a single volume, not for a sequence. Choose no confidence volume."
            )

    def _job(self, model: tuple[Path, ...], folder: Path) -> Job:
        """Write the images into ``folder``, and say what is to be made of them."""
        request = self.request
        images = folder / "images"
        images.mkdir()
        if request.all_frames:
            for frame in frames(request.volumes[0]):
                self._write_images(images, f"frame{frame:06}")
            (folder / "results").mkdir()
            paths, output = (images,), folder / "results"
        else:
            paths, output = self._write_images(images, "image"), folder / "result.seg.nrrd"
        confidence = folder / "confidence.nrrd" if request.confidence is not None else None
        chosen = model if len(model) > 1 else model[0]
        more = request.options or {}
        return Job(paths, chosen, output, confidence=confidence, keep_empty=request.keep_empty, **more)

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
                    f"{first.GetDimensions()}. All channels must lie on one grid; resample one of them."
                )
            need = image.GetNumberOfPoints() * (image.GetScalarSize() + 2) + _MARGIN
            free = shutil.disk_usage(folder).free
            if free < need:
                raise OutputError(
                    f"The temporary folder {folder.parents[1]} has {free / 1e9:.1f} GB free, and about "
                    f"{need / 1e9:.1f} GB are needed. Make room there and run again."
                )
            files.append(folder / f"{name}_{channel:04}.nrrd")
            write_volume(volume, files[-1], region)
        self._regions.append(region)
        self._geometries.append(geometry_of(volumes[0]))
        return tuple(files)

    def poll(self) -> list[Event]:
        """What happened since the last call; never blocks for long. At the end fills the nodes and sets ``state``."""
        if self.state != "running":
            return []
        if not self._inputs_are_there():
            self.cancel()
            self._fail(f"{self._name} was removed while it was segmented, so the segmentation was stopped.")
            return []
        events = self._process.poll()
        if self._process.state != "running":
            events += self._conclude()
        return events

    def wait(self, on_event: Callable[[Event], None] | None = None) -> Any:
        """Block until the end; returns the segmentation node.

        :raises ClassScaleError: if it failed.
        :raises Cancelled: if it was cancelled.
        """
        try:
            if self.state == "running":
                self._process.wait(on_event)
                for event in self._conclude():
                    if on_event is not None:
                        on_event(event)
        except BaseException:
            self.cancel()
            raise
        if self.state == "cancelled":
            raise Cancelled("Cancelled; nothing was changed.")
        if self.state == "failed":
            raise ClassScaleError(self.error)
        return self.node

    def cancel(self) -> None:
        """End the process with all its children and remove the temporary folder. Does nothing once it has ended."""
        if self.state == "running":
            self.state = "cancelled"
        self._close()

    @property
    def log(self) -> str:
        return "\n".join(filter(None, (self._process.log if self._process is not None else "", self.notice)))

    def _conclude(self) -> list[Event]:
        """Take the result over, whatever happens then; returns what is to be told."""
        if self._process.state == "finished":
            try:
                if not self._inputs_are_there():
                    raise ImageError(f"{self._name} was removed while it was segmented; the result was dropped.")
                with removed_on_failure(self.request.volumes[0].GetScene()):
                    self._fill()
                self.state = "finished"
            except ClassScaleError as error:
                self._fail(str(error))
            except MemoryError:
                self._fail("Memory ran out while the result was loaded. Close other scenes or programs, and run again.")
            except Exception as error:  # a bug, of ours or of an observer of the scene: once, and not at every poll
                logging.exception("The result of a segmentation could not be shown")
                self._fail(
                    f"The result could not be shown ({type(error).__name__}: {error}). This is a fault of the module: "
                    "please report it, with the application's log."
                )
        elif self._process.state == "cancelled":
            self.state = "cancelled"
        else:
            self._fail(self._process.error or "The segmentation process failed without a message; see the log.")
        self._close()
        return [Event("message", text=self.notice)] if self.notice and self.state == "finished" else []

    def _fill(self) -> None:
        import slicer

        request, volume, folder = self.request, self.request.volumes[0], self._process.work_folder
        if request.all_frames:
            files = [folder / "results" / f"frame{index:06}.seg.nrrd" for index in range(len(self._regions))]
        else:
            files = [folder / "result.seg.nrrd"]
        confidence = folder / "confidence.nrrd" if request.confidence is not None else None
        loaded = [
            read_result(file, confidence, region, geometry)
            for file, region, geometry in zip(files, self._regions, self._geometries, strict=True)
        ]
        choices = (request.standard_names, request.keep_empty, request.replace)
        results = []
        if request.all_frames and browser_of(volume) is not None:
            nodes = []
            for result in loaded:
                nodes.append(slicer.vtkMRMLSegmentationNode())
                nodes[-1].SetName(f"{self._name} segmentation")
                results.append(show_result(nodes[-1], result, volume, *choices))
            node = add_segmentations(volume, nodes, f"{self._name} segmentation")
        else:
            node = self._target()
            results.append(show_result(node, loaded[0], volume, *choices))
        if self._present(request.confidence):
            fill_confidence_node(request.confidence, loaded[0].confidence, self._geometries[0])
        if self._present(request.statistics):
            fill_table_node(request.statistics, results)
        self.node, self.results = node, results

    def _target(self) -> Any:
        """The node to fill: the one asked for, or a new one if that is gone or has got segments during the run."""
        node, scene = self.request.segmentation, self.request.volumes[0].GetScene()
        usable = self._present(node)
        filled = usable and node.GetSegmentation().GetNumberOfSegments() and not self.request.replace
        if usable and not filled:
            return node
        new = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{self._name} segmentation"))
        if filled:
            self.notice = f"{node.GetName()} has got segments meanwhile, so the result is in {new.GetName()}."
        return new

    def _inputs_are_there(self) -> bool:
        return all(self._present(volume) and volume.GetImageData() is not None for volume in self.request.volumes)

    @staticmethod
    def _present(node: Any) -> bool:
        """Whether the node is there and its scene has not let go of it."""
        return node is not None and node.GetScene() is not None and node.GetScene().IsNodePresent(node)

    def _fail(self, sentence: str) -> None:
        self.state, self.error = "failed", sentence

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
        if SceneRun.current is self:
            SceneRun.current = None
