"""Segment one case: check what is to be written, segment, measure, write, and note how it was made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..cohort.bids import refuse_missing_content
from ..cohort.bids_derivative import write_side_files
from ..cohort.records import Records
from ..errors import ImageError
from ..images.dicom.headers import modality_of
from ..images.geometry import Geometry
from ..images.reading import refuse_missing
from ..inference.progress import CancelToken, Progress
from ..process.job import Job
from .cases import Case
from .cohort_table import CohortTable
from .job_models import JobModels
from .job_report import JobReport
from .reporting import Reporter
from .results import STATISTICS_FORMATS, CaseResults, Measured


class CaseRunner:
    """Segments the cases of a job, one after the other, with models that are opened once.

    :ivar written: name of the case whose results were written last.
    :param formats: of one of many cases: suffixes of further files of the segmentation, beside the first one, and of
        the statistics.
    :param report: gets every case that was segmented.
    :param table: keeps the statistics of every case that was segmented.
    :param records: note how the results of each of many cases were made; ``None`` for a single case.
    :param run: id of the run, for the records.
    :param cancel: a token whose ``is_set()`` is checked at every step.
    :param keep_edited: results that were changed since they were made are not replaced.
    """

    def __init__(
        self,
        job: Job,
        models: JobModels,
        formats: tuple[Sequence[str], Sequence[str]] = ((), STATISTICS_FORMATS),
        report: JobReport | None = None,
        records: Records | None = None,
        cancel: CancelToken | None = None,
        run: str | None = None,
        keep_edited: bool = True,
        table: CohortTable | None = None,
    ) -> None:
        self.written = ""
        self._keep_edited, self._table = keep_edited, table
        self._run, self._job, self._models, self._formats = run, job, models, formats
        self._report, self._records, self._cancel = report, records, cancel

    def finished(self, case: Case, run: str) -> dict[str, Any] | None:
        """Return what was reported of a case that a run has finished already; ``None`` if it has not."""
        structures = None if self._records is None else self._records.structures(case.name, run)
        if structures is None:
            return None
        return {**self.results(case).paths(), "structures": structures, "seconds": 0.0}

    def begun(self, case: Case, run: str) -> bool:
        """Return whether a run has begun to give the results of a case their names, so that it may replace them."""
        return self._records is not None and self._records.begun(case.name, run)

    def results(self, case: Case) -> CaseResults:
        """Return the files of a case."""
        return CaseResults.of(self._job, case, self._records is not None, *self._formats)

    def run(
        self,
        case: Case,
        reporter: Reporter,
        overwrite: bool,
        may_write: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Segment a case and write its results.

        :param overwrite: replace results that are there.
        :param may_write: called before results get their names; an exception of it is raised.
        :returns: what was reported of the result: its files, ``structures`` and ``seconds``.
        :raises ClassScaleError: if the case cannot be segmented, or a result not be written.
        """
        begin = time.monotonic()
        _refuse_name(case)
        if case.source is not None:
            refuse_missing_content(case.files[0])
        for file in case.files:
            refuse_missing(file)
        results = self.results(case)
        results.check(overwrite)
        record = None if self._records is None else self._records.begin(case.name, case.files, self._run)
        noting = reporter if self._report is None else self._report.begin(case, reporter)
        images = case.files[0] if len(case.files) == 1 else case.files
        dicom = results.dicom(self._job, case, noting, self._models)
        warned: set[str] = set()

        def accept(geometry: Geometry) -> None:
            _refuse_size(case, geometry, self._models, self._job.most_voxels)
            results.accept(geometry)
            for warning in self._models.advice(geometry, modality_of(case.files[0])):
                if warning not in warned:  # each model of several reads the image
                    reporter.progress(Progress("read", 0, 1, message=warning))
                warned.add(warning)
            if self._records is None and (need := self._models.need(geometry)):  # many cases need about the same
                reporter.progress(Progress("read", 0, 1, message=need))

        result = self._models.run(images, progress=noting.progress, cancel=self._cancel, accept=accept)
        noting.progress(Progress("write", 0, 1))
        measured, facts = Measured(result, case, self._models), results.facts(result)
        may_write()
        if self._records is None or record is None:
            results.write(result, measured, overwrite, self._job.options.keep_empty, dicom, self._models.names)
        else:
            files = {**results.by_kind, **results.beside(case.source)}
            results.check(overwrite)  # files that came meanwhile are not ours, so the record must not say so
            if self._keep_edited:
                self._records.refuse_edited(case.name, files)
            self._records.announce(record)
            try:
                if case.source is not None:
                    write_side_files(case.output, case.source, self._models.table)
                results.write(result, measured, overwrite, self._job.options.keep_empty, dicom, self._models.names)
            except BaseException:
                self._records.withdraw(record, files)
                raise
            self._records.commit(record, files, facts["structures"])
        self.written = case.name
        if self._table is not None:
            self._table.add(case, result, measured)
        if self._report is not None:
            facts |= self._report.add(case, result, measured, results)
        facts["seconds"] = round(time.monotonic() - begin, 2)
        reporter.result(**facts)
        return facts


def _refuse_size(case: Case, geometry: Geometry, models: JobModels, most: int | None) -> None:
    """Refuse an image with more voxels than the job allows, also at the spacing of its models."""
    if most is None:
        return
    for count, where in (
        (math.prod(geometry.size), ""),
        (models.grid_voxels(geometry), " at the spacing of the model"),
    ):
        if count > most:
            raise ImageError(
                f"{case.files[0]} has {count / 2**20:.6g} million voxels{where}; at most {most / 2**20:g} are allowed "
                "here. Crop it first, or segment it elsewhere."
            )


def _refuse_name(case: Case) -> None:
    """Refuse images whose names are not UTF-8 before their results, which are named after them, are refused."""
    for file in map(str, case.files):
        if file != file.encode(errors="ignore").decode():
            raise ImageError(f"{file!a} is not a name in UTF-8, which ITK needs. Rename the file or its folder.")
