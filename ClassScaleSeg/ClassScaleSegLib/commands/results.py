"""The files of one case's results: checked before the long computation, and written after it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..catalog.download import sha256_of
from ..errors import OutputError
from ..files import replacing
from ..images.dicom_seg import DICOM_SUFFIX, DicomSeg, refuse_missing_highdicom
from ..images.dicom_source import read_source
from ..images.formats import (
    IMAGE_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    TABLE_SUFFIXES,
    check_writable,
    files_of,
    writable_geometry,
)
from ..images.geometry import Geometry
from ..images.reading import InputImage, read_image
from ..images.segmentation import Segmentation
from ..inference.progress import Progress
from ..process.job import Job
from .cases import Case
from .job_models import JobModels
from .reporting import Reporter


class CaseResults(NamedTuple):
    """Where the results of one case go.

    :ivar outputs: files of the segmentation. The first one tells that the case is finished.
    :ivar confidence: file of the confidence, if wanted.
    :ivar statistics: file of the statistics, if wanted.
    """

    outputs: tuple[Path, ...]
    confidence: Path | None
    statistics: Path | None

    @classmethod
    def of(cls, job: Job, case: Case, many: bool, overwrite: bool) -> CaseResults:
        """Return the files of a case; with many cases, the job names folders.

        :raises OutputExistsError: if a file exists and ``overwrite`` is false.
        :raises OutputError: if a file cannot be written, or would replace another result of the case.
        """
        outputs = (case.output, *map(Path, job.more_outputs))
        written: set[Path] = set()
        for output in outputs:
            check_writable(output, overwrite, SEGMENTATION_SUFFIXES)
            own = {file.absolute() for file in files_of(output)}
            if own & written:
                raise OutputError(f"{output} or its colour table would replace another result. Choose another name.")
            written |= own
        confidence = _side_file(job.confidence, case, many, ".nrrd")
        statistics = _side_file(job.statistics, case, many, ".csv")
        for file, suffixes in ((confidence, IMAGE_SUFFIXES), (statistics, TABLE_SUFFIXES)):
            if file is not None:
                check_writable(file, overwrite, suffixes)
        return cls(outputs, confidence, statistics)

    def accept(self, geometry: Geometry) -> None:
        """Refuse files whose format cannot hold the grid of the image.

        :raises OutputError: naming the file.
        """
        for path in (*self.outputs, self.confidence):
            if path is not None:
                writable_geometry(path, geometry)

    def dicom(self, job: Job, case: Case, reporter: Reporter, models: JobModels) -> DicomSeg | None:
        """Return what a DICOM segmentation of the case needs; ``None`` for other formats.

        :raises OutputError: if highdicom is missing, or the image is no series that a segmentation can refer to.
        :raises ImageError: if the headers of the series cannot be read.
        """
        if not any(output.name.lower().endswith(DICOM_SUFFIX) for output in self.outputs):
            return None
        refuse_missing_highdicom()
        series = read_source(case.files[0])
        used = tuple(replace(model, sha256=sha256_of(path) if path.is_file() else None) for model, path in models.used)
        return DicomSeg(
            series,
            job.options.dicom_seg,
            used,
            tell=lambda sentence: reporter.progress(Progress("write", 0, 1, message=sentence)),
        )

    def write(
        self,
        result: Segmentation,
        case: Case,
        models: JobModels,
        overwrite: bool,
        keep_empty: bool,
        dicom: DicomSeg | None,
    ) -> None:
        """Write all files. Confidence and statistics get their names after the segmentation has got its own.

        :raises OutputError: if a file cannot be written, or exists and ``overwrite`` is false.
        """
        with ExitStack() as stack:
            if self.confidence is not None:
                result.write_confidence(stack.enter_context(replacing(self.confidence, overwrite)))
            if self.statistics is not None:
                temporary = stack.enter_context(replacing(self.statistics, overwrite))
                image = _first_channel(case, models)
                assert image.voxels is not None  # an image that was just read has its voxels
                result.write_statistics(temporary, image=image.voxels[0])
                del image
            for output in reversed(self.outputs):  # the first one, which tells that a case is finished, comes last
                result.write(output, overwrite, keep_empty, dicom)

    def facts(self, result: Segmentation) -> dict[str, Any]:
        """Return what a program is told of the results: files, number of structures, and what was cleaned up."""
        facts: dict[str, Any] = {"output": self.outputs[0]}
        if len(self.outputs) > 1:
            facts["more_outputs"] = self.outputs[1:]
        sides = {"confidence": self.confidence, "statistics": self.statistics}
        facts |= {kind: file for kind, file in sides.items() if file is not None}
        facts["structures"] = sum(row.voxels > 0 for row in result.statistics())
        if result.changes is not None:
            facts["changes"] = [asdict(change) for change in result.changes]
        return facts


def _side_file(wanted: str | Path | None, case: Case, many: bool, suffix: str) -> Path | None:
    if wanted is None:
        return None
    return Path(wanted) / f"{case.name}{suffix}" if many else Path(wanted)


def _first_channel(case: Case, models: JobModels) -> InputImage:
    """Read the image anew for its intensities: during the segmentation its voxels were freed."""
    channels = models.channels if len(case.files) == 1 else 1
    return read_image(case.files[0], channels, flat=models.flat, nibabel=models.nibabel)
