"""The report of a job: what ``classscaleseg segment --report`` notes of each case, and ``classscaleseg report``."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ..catalog.download import sha256_of
from ..errors import ClassScaleError, LabelTableError
from ..images.dicom_headers import modality_of
from ..images.dicom_seg import UsedModel
from ..images.segmentation import Segmentation
from ..inference.devices import choose_device
from ..inference.progress import Progress
from ..inference.several_models import common_table
from ..process.job import Job
from ..report.facts import Run
from ..report.recording import Recorder
from ..report.report import Report
from .cases import Case
from .job_models import JobModels
from .reporting import Reporter
from .results import CaseResults, Measured


class JobReport:
    """Adds the cases of a job to its report.

    :param folder: of the report.
    :param overwrite: replace cases that it has already.
    """

    def __init__(self, folder: str | Path, job: Job, models: JobModels, overwrite: bool) -> None:
        self.files = Report(folder, overwrite)
        self._job, self._models = job, models
        self._noted = Recorder()
        self._added = False

    def begin(self, case: Case, reporter: Reporter) -> Reporter:
        """Begin to note how a case is segmented.

        :returns: what the segmentation should report to; it passes everything on to ``reporter``.
        :raises OutputError: if the report cannot get this case.
        """
        self.files.check(case.name)
        self._noted = Recorder()
        return _NotingReporter(reporter, self._noted)

    def add(self, case: Case, result: Segmentation, measured: Measured, results: CaseResults) -> Path:
        """Add a case that was segmented, and return the page that it will be on.

        :raises OutputError: if its file cannot be written.
        """
        run = self._noted.run(self._device, str(self._job.options), self._used)
        try:
            self._write(case, result, measured, results.outputs, self._noted.messages, run)
        except ClassScaleError as error:
            raise type(error)(f"{results.outputs[0]} is written, but the case is not in the report. {error}") from error
        return self.files.index

    def add_finished(self, case: Case) -> None:
        """Add a case that an earlier run has segmented, unless the report has it. How it was made is not known.

        :raises ClassScaleError: if its image or its segmentation cannot be read.
        """
        if not self.files.has(case.name):
            result = self._finished(case.output)
            self._write(case, result, Measured(result, case, self._models), (case.output,), (), None)

    def add_failed(self, case: Case, error: ClassScaleError) -> None:
        """Add a case without a result.

        :raises OutputError: if its file cannot be written.
        """
        self.files.add_failed(case.name, error, case.files)
        self._added = True

    def write(self) -> Path | None:
        """Write the page, if a case was added.

        :raises OutputError: if it cannot be written.
        """
        return self.files.write() if self._added else None

    def _write(
        self,
        case: Case,
        result: Segmentation,
        measured: Measured,
        outputs: Sequence[Path],
        messages: Sequence[str],
        run: Run | None,
    ) -> None:
        modality = modality_of(case.files[0])
        self.files.add(
            case.name,
            result,
            measured.voxels,
            measures=measured.measures,
            modality=modality,
            ct=(modality or self._models.summaries[0].modality) == "CT",
            images=case.files,
            outputs=outputs,
            warnings=self._models.advice(result.geometry, modality),
            messages=messages,
            run=run,
        )
        self._added = True

    def _finished(self, file: Path) -> Segmentation:
        """Read a result with all classes of the job, of which a ``.seg.nrrd`` may name only those that were found."""
        tables = [one.table for one in self._models.summaries]
        try:
            table = tables[0] if len(tables) == 1 else common_table(tables)
            classes = self._job.options.classes
            return Segmentation.from_image(file, table if classes is None else table.select(classes))
        except LabelTableError:  # it was made with another model or other classes
            return Segmentation.from_image(file)

    @cached_property
    def _used(self) -> list[UsedModel]:
        used = self._models.used
        return [replace(model, sha256=sha256_of(path) if path.is_file() else None) for model, path in used]

    @cached_property
    def _device(self) -> str:
        name = choose_device(self._job.options.device)
        if name.startswith("cuda"):
            about = sys.modules["torch"].cuda.get_device_name(name)
        else:
            about = platform.processor() or platform.machine()
        return f"{name} ({about})" if about else name


class _NotingReporter(Reporter):
    """Passes progress on to another reporter, and notes it for the report."""

    def __init__(self, reporter: Reporter, recorder: Recorder) -> None:
        super().__init__(reporter.faults)
        self._reporter, self._recorder = reporter, recorder

    def progress(self, report: Progress) -> None:
        self._recorder.note(report.stage, report.message)
        self._reporter.progress(report)
