"""The report of a job: what ``classscaleseg segment --report`` notes of each case, and ``classscaleseg report``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Cancelled, ClassScaleError, OutputError
from ..images.dicom.headers import modality_of
from ..images.image_file import read_file
from ..images.segmentation import Segmentation
from ..images.suffixes import RTSTRUCT_SUFFIX, SEGMENTATION_SUFFIXES
from ..inference.progress import Progress
from ..options import WHOLE_IMAGE, Options
from ..process.fault_log import FaultLog
from ..process.job import Job
from ..report.case_files import case_path, origin_of_voxels, read_case
from ..report.facts import Run
from ..report.recording import Recorder
from ..report.report import Report
from .cases import Case
from .job_models import JobModels
from .reporting import Reporter
from .results import CaseResults, Measured, read_finished


class JobReport:
    """Adds the cases of a job to its report.

    :param folder: of the report.
    :param overwrite: replace cases that it has already; done anyway if the job says what the report calls its case.
    :param many: the job is of many cases. A single one has the name of its result: several folders may hold images of
        one name, such as a patient's ``CT``.
    """

    def __init__(self, folder: str | Path, job: Job, models: JobModels, overwrite: bool, many: bool) -> None:
        self.files = Report(folder, overwrite or job.reported is not None)
        self._job, self._models, self._many = job, models, many
        self._noted, self._faults = Recorder(), FaultLog("classscaleseg")
        self._added = False
        self._origin: str | None = None if job.reported is None else job.reported.origin

    def begin(self, case: Case, reporter: Reporter) -> Reporter:
        """Begin to note how a case is segmented.

        :returns: what the segmentation should report to; it passes everything on to ``reporter``.
        :raises OutputError: if the report cannot get this case.
        """
        self.files.check(self._name(case), **self._same(case))
        self._noted, self._faults = Recorder(), reporter.faults
        return _NotingReporter(reporter, self._noted)

    def add(self, case: Case, result: Segmentation, measured: Measured, results: CaseResults) -> dict[str, Any]:
        """Add a case that was segmented.

        :returns: what is to be told of it: ``report``, the page, if it was the only case; with many, the page is
            written at the end. If the job says what the report calls its case, a fault is told as ``report_fault``: the
            result of such a job is in a temporary folder, and would be lost with an exception.
        :raises OutputError: if a file cannot be written.
        :raises Cancelled: after Ctrl-C, saying that there is a result.
        """
        try:
            run = self._noted.run(self._models.device, str(self._options), self._models.used)
            self._write(case, result, measured, results.outputs, self._noted.messages, run)
            return {} if self._many or (page := self.write()) is None else {"report": page}
        except KeyboardInterrupt:
            said = f"Cancelled. {results.outputs[0]} is written, but the report does not have it."
            raise Cancelled(said) from None
        except Exception as error:
            if self._job.reported is not None and not isinstance(error, Cancelled):
                known = isinstance(error, ClassScaleError)
                sentence = error if known else self._faults.sentence("The report", error)
                return {"report_fault": str(sentence)}
            if isinstance(error, ClassScaleError):
                raise type(error)(f"{results.outputs[0]} is written, but the report is not. {error}") from error
            raise

    def add_finished(self, case: Case, reporter: Reporter) -> None:
        """Add a case that an earlier run has segmented, unless the report has it, and had it after the result was made
        or changed last. How it was made is not known.

        :raises ClassScaleError: if its image or its segmentation cannot be read, they have different grids, or the
            report has another case of its name.
        """
        self.files.refuse_other(self._name(case), **self._same(case))
        if self.files.has(self._name(case)) and not self._is_other(case):
            return
        if case.output.name.lower().endswith(RTSTRUCT_SUFFIX):
            said = f"{case.output} is not in the report: a structure set cannot be read again."
            reporter.progress(Progress("read", 0, 1, message=said))
            return
        result, messages = read_finished(case.output, self._models.table)
        measured = Measured(result, case, self._models)
        confidence = CaseResults.of(self._job, case, self._many).confidence
        self._write(case, measured.fit(confidence), measured, (case.output,), messages, None)

    def add_failed(self, case: Case, error: ClassScaleError) -> None:
        """Add a case without a result.

        :raises OutputError: if its file cannot be written.
        """
        sentence = str(error)
        for file, name in zip(case.files, self._image_names, strict=False):
            sentence = sentence.replace(str(file), name)
        same = self._same(case)
        self.files.add_failed(self._name(case), sentence, case.files, image_names=self._image_names, **same)
        self._added = True

    def changed(self) -> None:
        """Note that other processes have added cases."""
        self._added = True

    def write(self) -> Path | None:
        """Write the page, if a case was added, by this run or by one that was stopped before it wrote the page.

        :raises OutputError: if it cannot be written.
        """
        if not self._added and not self.files.outdated:
            return None
        self._added = False
        return self.files.write()

    def _is_other(self, case: Case) -> bool:
        """Tell whether a result is another one than the report has of its case; of old reports, whether it is newer."""
        try:
            same = read_case(case_path(self.files.folder, self._name(case))).is_of(case.output)
            if same is not None:
                return not same
            return case.output.stat().st_mtime_ns > case_path(self.files.folder, self._name(case)).stat().st_mtime_ns
        except (OSError, OutputError):
            return True

    def _name(self, case: Case) -> str:
        """Return the name of a case in the report."""
        if self._job.reported is not None:
            return self.files.name_for(self._job.reported.name, self._origin_of(case))
        name = case.output.name
        ends = () if self._many else (end for end in SEGMENTATION_SUFFIXES if name.lower().endswith(end))
        return next((name[: -len(end)] for end in ends), case.name)

    def _same(self, case: Case, outputs: Sequence[Path] = ()) -> dict[str, Any]:
        """Return by what the report knows that a case is the same: the files of its result, if they will stay.

        :param outputs: these files, if they are not the one of the case.
        """
        if self._job.reported is not None:
            return {"origin": self._origin_of(case)}
        return {"outputs": outputs or (case.output,)}

    def _origin_of(self, case: Case) -> str:
        """Return by what the only case is known. Of an image that cannot be read nothing is; the run says why."""
        if self._origin is None:
            try:
                self._origin = origin_of_voxels(_voxels(case.files))
            except ClassScaleError:
                return ""
        return self._origin

    @property
    def _image_names(self) -> tuple[str, ...]:
        return () if self._job.reported is None else self._job.reported.images

    @property
    def _options(self) -> Options:
        """The options of the job; of a case that is in no file, with the name of a coarse model instead of its file."""
        options = self._job.options
        if self._job.reported is None or options.locate_with in (None, WHOLE_IMAGE):
            return options
        return replace(options, locate_with=self._models.locating[0].name)

    def _write(
        self,
        case: Case,
        result: Segmentation,
        measured: Measured,
        outputs: Sequence[Path],
        messages: Sequence[str],
        run: Run | None,
    ) -> None:
        reported = self._job.reported
        modality = modality_of(case.files[0]) if reported is None else reported.modality
        self.files.add(
            self._name(case),
            result,
            measured.voxels,
            measures=measured.measures,
            modality=modality,
            ct=(modality or self._models.summaries[0].modality) == "CT",
            images=case.files,
            image_names=self._image_names,
            **self._same(case, outputs),
            warnings=self._models.advice(result.geometry, modality),
            messages=messages,
            run=run,
        )
        self._added = True


def _voxels(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """Return the voxels of each file, which are valid until the next ones are asked for."""
    for file in files:
        volume = read_file(file)
        yield volume.voxels


class _NotingReporter(Reporter):
    """Passes progress on to another reporter, and notes it for the report."""

    def __init__(self, reporter: Reporter, recorder: Recorder) -> None:
        super().__init__(reporter.faults)
        self._reporter, self._recorder = reporter, recorder

    def progress(self, report: Progress) -> None:
        self._recorder.note(report.stage, report.message)
        self._reporter.progress(report)
