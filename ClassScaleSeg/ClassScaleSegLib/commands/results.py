"""The files of one case's results: checked before the long computation, and written after it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..cohort.bids_derivative import side_files
from ..errors import ImageError, OutputError
from ..files import refuse_replacing, replacing
from ..images.contours import refuse_missing_contourpy
from ..images.dicom.seg import DicomSeg, refuse_missing_highdicom
from ..images.dicom.source import read_source
from ..images.formats import check_writable, files_of, writable_geometry
from ..images.geometry import Geometry
from ..images.measures import LabelMeasures
from ..images.reading import InputImage, read_image
from ..images.segmentation import Segmentation, read_on_grid
from ..images.statistics import write_statistics
from ..images.suffixes import (
    DICOM_SUFFIX,
    IMAGE_SUFFIXES,
    REPORT_SUFFIX,
    RTSTRUCT_SUFFIX,
    SEGMENTATION_SUFFIXES,
    STATISTICS_SUFFIXES,
)
from ..inference.progress import Progress
from ..labels.table import LabelTable
from ..process.job import Job
from .cases import Case
from .job_models import JobModels
from .reporting import Reporter

STATISTICS_FORMATS = (".csv",)  # of the statistics of many cases, by default
_CERTAIN = 1.001  # the most confidence: a probability of float32, rounded
_BIDS_TABLES = ("look-up table", "sidecar")


class Measured:
    """The image of a case and the measures of its structures, read and computed when they are first asked for."""

    def __init__(self, result: Segmentation, case: Case, models: JobModels) -> None:
        self._result, self._case, self._models = result, case, models

    @cached_property
    def _image(self) -> InputImage:
        """The first channel, read anew: during the segmentation its voxels were freed."""
        channels = self._models.channels if len(self._case.files) == 1 else 1
        return read_image(self._case.files[0], channels, flat=self._models.flat, nibabel=self._models.nibabel)

    def fit(self, confidence: Path | None = None) -> Segmentation:
        """Put a result that was read onto the grid of the image, of which its file may leave out the outer slices.

        :param confidence: file of its confidence, if there should be one.
        :returns: the result, whole; it is measured from now on.
        :raises ImageError: if it, or its confidence, is not of this image.
        """
        own, grid = self._result.geometry, self._image.geometry
        if own.size != grid.size:
            self._result = _on_grid(self._result, grid, self._case)
        elif own.distance(grid) > min(grid.spacing) / 2:
            raise _of_another_image(self._case)
        if confidence is not None and confidence.is_file():
            self._result = replace(self._result, confidence=_read_confidence(confidence, grid, self._case))
        return self._result

    @property
    def voxels(self) -> np.ndarray:
        """The intensities, ``(z, y, x)``, as long as this object lives."""
        assert self._image.voxels is not None  # an image that was just read has its voxels
        return self._image.voxels[0]

    @cached_property
    def measures(self) -> dict[int, LabelMeasures]:
        """As :meth:`Segmentation.measures` returns them."""
        return self._result.measures(self.voxels)

    def free_image(self) -> None:
        """Free the voxels; asking for them reads them again."""
        self.__dict__.pop("_image", None)


def _read_confidence(file: Path, grid: Geometry, case: Case) -> np.ndarray:
    """Read the confidence of a finished case, ``(z, y, x)``.

    :raises ImageError: if the file is damaged, or something else.
    """
    try:
        image = read_on_grid(file, grid)
        assert image.voxels is not None  # an image that was just read has its voxels
        if image.voxels.min() >= 0 and image.voxels.max() <= _CERTAIN:
            return image.voxels[0].copy()  # they end with the image
    except ImageError:
        pass
    raise ImageError(
        f"{file} is not the confidence of {case.output}, or is damaged. Segment {case.name} again (--overwrite)."
    )


def read_finished(file: Path, table: LabelTable) -> tuple[Segmentation, list[str]]:
    """Read a result and its own classes, and return what is to be said of them.

    A file may name only the classes that were found. The others of the job are added if the names agree.

    :param table: of the job.
    :raises ClassScaleError: if the file, or the colour table beside it, cannot be read.
    """
    beside = files_of(file)[1:]  # the colour table of an image
    known = LabelTable.from_csv(beside[0]) if beside and beside[0].is_file() else None
    result = Segmentation.from_image(file, known)
    own = result.table.foreground
    if all(label.value in table and table[label.value].name == label.name for label in own):
        return (replace(result, table=table) if known is None else result), []
    said = "The segmentation was there already, and names other classes than this run: it may be of another model."
    return result, [said]


def _on_grid(part: Segmentation, grid: Geometry, case: Case) -> Segmentation:
    own, turn = part.geometry.turned_like(grid)
    first = np.linalg.solve(grid.axes, np.subtract(own.origin, grid.origin))  # in voxels of the image, like the steps
    steps = np.linalg.solve(grid.axes, own.axes)
    places = [first[axis] + steps[axis, axis] * np.arange(own.size[axis]) for axis in range(3)]
    aside = (steps - np.diag(np.diag(steps))) @ (np.array(own.size) - 1)
    off = max(np.abs(aside).max(), *(np.abs(place - np.rint(place)).max() for place in places))
    z, y, x = (np.rint(place).astype(int) for place in reversed(places))
    if off > 0.25 or any(place[0] < 0 or place[-1] >= n for place, n in zip((x, y, z), grid.size, strict=True)):
        raise _of_another_image(case)
    labels, *more = (np.zeros(grid.size[::-1], np.uint16) for _layer in part.layers)
    for whole, layer in zip((labels, *more), part.layers, strict=True):
        whole[np.ix_(z, y, x)] = turn.apply(layer)
    return Segmentation(labels, part.table, grid, more_layers=tuple(more))


def _of_another_image(case: Case) -> ImageError:
    said = f"{case.output} is not on the grid of {case.files[0]}, which may have been replaced since."
    return ImageError(f"{said} Segment it again (--overwrite), or name another folder.")


def statistics_kind(name: str) -> str:
    """Return what records call statistics of a format.

    :param name: the suffix, or a file with it.

    >>> statistics_kind(".csv"), statistics_kind("ct.xlsx")
    ('statistics', 'statistics.xlsx')
    """
    suffix = next((suffix for suffix in STATISTICS_SUFFIXES if name.lower().endswith(suffix)), "")
    return "statistics" if suffix in STATISTICS_FORMATS else f"statistics{suffix}"


class CaseResults(NamedTuple):
    """Where the results of one case go.

    :ivar outputs: files of the segmentation. The first one gets its name last.
    :ivar confidence: file of the confidence, if wanted.
    :ivar statistics: files of the statistics.
    :ivar images: what is segmented, which no result replaces.
    """

    outputs: tuple[Path, ...]
    confidence: Path | None
    statistics: tuple[Path, ...]
    images: tuple[Path, ...] = ()

    @classmethod
    def of(
        cls,
        job: Job,
        case: Case,
        many: bool,
        more_formats: Sequence[str] = (),
        statistics_formats: Sequence[str] = STATISTICS_FORMATS,
    ) -> CaseResults:
        """Return the files of a case, unchecked; with many cases, the job names folders.

        :param more_formats: suffixes of further files of the segmentation, beside the first one.
        :param statistics_formats: suffixes of the statistics of one of many cases.
        """
        outputs = (case.output, *map(Path, job.more_outputs), *map(case.in_format, more_formats))
        confidence = _side_file(job.confidence, case, many, ".nrrd")
        formats = statistics_formats if many else [""]  # whose name is given
        given = (job.statistics, *job.more_statistics)
        wanted = [_side_file(file, case, many, suffix) for file in given for suffix in formats]
        return cls(outputs, confidence, tuple(file for file in wanted if file is not None), case.files)

    @property
    def by_kind(self) -> dict[str, Path]:
        """The file of each kind of result of one of many cases, of which none has two; the segmentation comes first."""
        kinds = self._by_suffix | ({} if self.confidence is None else {"confidence": self.confidence})
        return kinds | {statistics_kind(file.name): file for file in self.statistics}

    def beside(self, source: str | None) -> dict[str, Path]:
        """The files that accompany those of :attr:`by_kind`: the colour tables of images, and the tables of BIDS.

        :param source: of the case.
        """
        tables = {f"colours of {kind}": more for kind, file in self._by_suffix.items() for more in files_of(file)[1:]}
        return tables | ({} if source is None else dict(zip(_BIDS_TABLES, side_files(self.outputs[0]), strict=True)))

    @property
    def _by_suffix(self) -> dict[str, Path]:
        return {
            next(suffix for suffix in SEGMENTATION_SUFFIXES if _ends_with(output, suffix)): output
            for output in self.outputs
        }

    def check(self, overwrite: bool) -> None:
        """Check before the long computation that all files can be written.

        :raises OutputExistsError: if a file exists and ``overwrite`` is false.
        :raises OutputError: if a file cannot be written, or would replace the image or another result of the case; or
            if a report in DICOM is wanted without a DICOM segmentation.
        """
        for file in (*self.outputs, self.confidence, *self.statistics):
            if file is not None:
                refuse_replacing(file, self.images)
        written: set[Path] = set()
        for output in self.outputs:
            check_writable(output, overwrite, SEGMENTATION_SUFFIXES)
            own = {file.absolute() for file in files_of(output)}
            if own & written:
                raise OutputError(f"{output} or its colour table would replace another result. Choose another name.")
            written |= own
        sides = ((self.confidence, IMAGE_SUFFIXES), *((file, STATISTICS_SUFFIXES) for file in self.statistics))
        for file, suffixes in sides:
            if file is None:
                continue
            check_writable(file, overwrite, suffixes)
            if file.absolute() in written:
                raise OutputError(f"{file} would replace another result. Choose another name.")
            written.add(file.absolute())
        if self._reports and self._referred is None:
            raise OutputError(
                f"{self._reports[0]} would refer to a DICOM segmentation, and none is written. Add -o "
                f"NAME{DICOM_SUFFIX}, or write the statistics as .csv or .xlsx."
            )

    @property
    def _reports(self) -> list[Path]:
        return [file for file in self.statistics if _ends_with(file, REPORT_SUFFIX)]

    @property
    def _referred(self) -> Path | None:
        """The DICOM segmentation to which the reports refer."""
        return next((file for file in self.outputs if _ends_with(file, DICOM_SUFFIX)), None)

    def accept(self, geometry: Geometry) -> None:
        """Refuse files whose format cannot hold the grid of the image.

        :raises OutputError: naming the file.
        """
        for path in (*self.outputs, self.confidence):
            if path is not None:
                writable_geometry(path, geometry)

    def dicom(self, job: Job, case: Case, reporter: Reporter, models: JobModels) -> DicomSeg | None:
        """Return what the DICOM results of the case need; ``None`` if there are none.

        :raises OutputError: if a package is missing, or the image is no series to which they can refer.
        :raises ImageError: if the headers of the series cannot be read.
        """
        contours = any(_ends_with(output, RTSTRUCT_SUFFIX) for output in self.outputs)
        if self._referred is None and not contours:
            return None
        if self._referred is not None:
            refuse_missing_highdicom()
        if contours:
            refuse_missing_contourpy()
        series = read_source(case.files[0])
        said: set[str] = set()

        def tell(sentence: str) -> None:
            if sentence not in said:  # a segmentation and a structure set of one case have the same to say
                reporter.progress(Progress("write", 0, 1, message=sentence))
            said.add(sentence)

        return DicomSeg(series, job.options.dicom_seg, models.used, tell)

    def write(
        self,
        result: Segmentation,
        measured: Measured,
        overwrite: bool,
        keep_empty: bool,
        dicom: DicomSeg | None,
        found_by: Sequence[str],
    ) -> None:
        """Write all files. Confidence and statistics get their names after the segmentation has got its own.

        :param found_by: names of the models.
        :raises OutputError: if a file cannot be written, or exists and ``overwrite`` is false.
        """
        referred = self._referred if self._reports else None
        with ExitStack() as stack:
            if self.confidence is not None:
                result.write_confidence(stack.enter_context(replacing(self.confidence, overwrite)))
            tables = [stack.enter_context(replacing(file, overwrite)) for file in self.statistics]
            segmentation = None
            if referred is not None:  # it is complete before the reports, and has its name before they have theirs
                segmentation = stack.enter_context(replacing(referred, overwrite))
                result.write(segmentation, keep_empty=keep_empty, source=dicom)
            for table in tables:
                rows, measures = result.statistics(), measured.measures
                sure = self.confidence is not None
                write_statistics(table, rows, measures, result.table, overwrite, True, segmentation, sure)
            measured.free_image()
            for output in reversed(self.outputs):  # the first one, which tells that a case is finished, comes last
                if output != referred:
                    result.write(output, overwrite, keep_empty, dicom, found_by)

    def facts(self, result: Segmentation) -> dict[str, Any]:
        """Return what a program is told of the results: files, number of structures, and what was cleaned up."""
        facts = self.paths()
        facts["structures"] = sum(row.voxels > 0 for row in result.statistics())
        if result.changes is not None:
            facts["changes"] = [asdict(change) for change in result.changes]
        return facts

    def paths(self) -> dict[str, Any]:
        """Return the files, by the names under which a program is told of them."""
        facts: dict[str, Any] = {"output": self.outputs[0]}
        if len(self.outputs) > 1:
            facts["more_outputs"] = self.outputs[1:]
        if self.confidence is not None:
            facts["confidence"] = self.confidence
        if self.statistics:
            facts["statistics"] = self.statistics[0]
        if len(self.statistics) > 1:
            facts["more_statistics"] = self.statistics[1:]
        return facts


def _ends_with(file: Path, suffix: str) -> bool:
    return file.name.lower().endswith(suffix)


def _side_file(wanted: str | Path | None, case: Case, many: bool, suffix: str) -> Path | None:
    if wanted is None:
        return None
    return Path(wanted) / f"{case.name}{suffix}" if many else Path(wanted)
