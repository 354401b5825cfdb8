"""Many cases: which are finished already, and segmenting the others one after the other on this machine."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cohort.bids import bids_images
from ..cohort.bids_derivative import write_derivative
from ..cohort.ledger import refuse_running
from ..cohort.records import Finding, Recipe, Records, State
from ..errors import Cancelled, ClassScaleError, ImageError, OutputError, OutputExistsError
from ..images.dicom.seg import UsedModel
from ..images.suffixes import DICOM_SUFFIX, IMAGE_SUFFIXES, REPORT_SUFFIX, STATISTICS_SUFFIXES
from ..inference.progress import CancelToken
from ..process.job import Job
from ..process.terminal import flush
from .case_runner import CaseRunner
from .cases import Case, Cases, find_cases, refuse_file
from .cohort_table import CohortTable
from .job_models import JobModels
from .job_report import JobReport
from .reporting import Reporter
from .results import STATISTICS_FORMATS, CaseResults, statistics_kind

_MOST_TOLD = 10  # files that are left out
_SECONDS_TO_NAME = 20.0  # a large result, with its report, takes some seconds to be written


@dataclass(frozen=True)
class CohortJob:
    """A job of many cases.

    :ivar formats: suffixes of the files of each segmentation.
    :ivar overwrite: make all results anew.
    :ivar bids: suffix of the images of a BIDS dataset, whose folder is then the only one of the job's images.
    :ivar tables: files with the statistics of all cases, as of :func:`.cohort_table.tables_of`.
    :ivar statistics_formats: suffixes of the files of the statistics of each case, if the job names a folder for them.
    """

    job: Job
    formats: tuple[str, ...]
    overwrite: bool = False
    bids: str | None = None
    statistics_formats: tuple[str, ...] = STATISTICS_FORMATS
    tables: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.job.more_outputs:
            raise OutputError("With several images, give one folder (-o); --format chooses the formats of the results.")
        tables = [suffix for suffix in self.formats if suffix in IMAGE_SUFFIXES]
        if len(tables) > 1:
            raise OutputError(
                f"{' and '.join(tables)} would both write NAME.labels.csv, the names of the structures. Leave one out."
            )
        if self.job.more_statistics:
            raise OutputError("With several images, give one folder for the statistics (--statistics).")
        if self.job.statistics is not None:
            refuse_file(
                Path(self.job.statistics), STATISTICS_SUFFIXES, "Name a folder; --statistics-format chooses the format."
            )
            if REPORT_SUFFIX in self.statistics_formats and DICOM_SUFFIX not in self.formats:
                raise OutputError(
                    f"Statistics as {REPORT_SUFFIX} refer to a DICOM segmentation, and none is written. Add --format "
                    f"{DICOM_SUFFIX}."
                )
        if self.job.confidence is not None:
            refuse_file(Path(self.job.confidence), IMAGE_SUFFIXES, "Name a folder.")

    def records(self, models: JobModels) -> Records:
        """Return the records of the folder of results.

        :raises ModelError: if a file of a model cannot be read.
        """
        kinds = [*self.formats, *(["confidence"] if self.job.confidence is not None else [])]
        if self.job.statistics is not None:
            kinds += map(statistics_kind, self.statistics_formats)
        return Records(self.job.output, Recipe.of(models.checksums, self.job.options, kinds))

    def find(self, case: Case, records: Records) -> Finding:
        """Find out what is to be done with a case, whether or not its results may be replaced in any case."""
        results = self.results(case)
        found = records.find(case.name, case.files, results.by_kind, results.beside(case.source))
        return Finding(State.NEW, replace=True) if self.overwrite else found

    def results(self, case: Case) -> CaseResults:
        """Return the files of a case."""
        return CaseResults.of(self.job, case, True, self.formats[1:], self.statistics_formats)

    def folders(self, cases: Iterable[Case]) -> Iterator[Path]:
        """Yield a file of each folder, also of the report, into which results of cases are written."""
        for case in cases:
            yield from self.results(case).by_kind.values()
        if self.job.report is not None:
            yield from (Path(self.job.report) / name for name in ("index.html", "cases/case.json"))

    def runner(
        self,
        models: JobModels,
        report: JobReport | None,
        records: Records,
        cancel: CancelToken | None = None,
        run: str | None = None,
    ) -> CaseRunner:
        """Return what segments the cases."""
        formats, table = (self.formats[1:], self.statistics_formats), self.table(models)
        return CaseRunner(self.job, models, formats, report, records, cancel, run, not self.overwrite, table)

    def written(
        self, cases: Sequence[Case], models: JobModels, failed: Collection[str], reporter: Reporter
    ) -> dict[str, Any]:
        """Write the table of all cases at the end of a run, and return what there is of all cases, by its name.

        :raises OutputError: if it cannot be written.
        """
        table, page = self.table(models), self.report(models)
        written: dict[str, Any] = {} if table is None else {"statistics": table.write(cases, failed, reporter)}
        return written if page is None else {"report": page.files.index, **written}

    def begin(self, models: JobModels) -> None:
        """Check what is the same for all cases, and prepare the folder of results, if it is to be a BIDS derivative.

        :raises LabelTableError: if a class that was chosen does not exist.
        :raises OutputError: if the folder cannot be a derivative, or a table of all cases not be written.
        """
        _ = models.table
        if (table := self.table(models)) is not None:
            table.check()
        if self.bids is not None:
            sums = zip(models.all, models.checksums, strict=True)
            used = [UsedModel(summary.name, summary.licence, digest) for summary, (_name, digest) in sums]
            write_derivative(Path(self.job.output), Path(self.job.images[0]), self.bids, used)

    def report(self, models: JobModels) -> JobReport | None:
        """Return the report, if one is wanted: cases that are segmented again replace what it has of them."""
        if self.job.report is None:
            return None
        return JobReport(self.job.report, self.job, models, overwrite=True, many=True)

    def table(self, models: JobModels) -> CohortTable | None:
        """Return the table of all cases, if one is wanted."""
        return CohortTable(self.tables, self.job, models, self.overwrite) if self.tables else None


def find_cohort(job: Job, models: JobModels, suffix: str, bids: str | None = None) -> Cases:
    """Find the cases of a job.

    :param suffix: of the segmentations, such as ``.seg.nrrd``, if they are written into a folder.
    :param bids: as of :class:`CohortJob`.
    :raises ImageError: if the images do not match the model, or it is no BIDS dataset.
    :raises OutputError: if there are many cases and ``output`` is a file.
    """
    if bids is None:
        return find_cases(job.images, models.channels, job.output, suffix, models.flat)
    if models.channels != 1:
        raise ImageError(f"The model needs {models.channels} channels, and --bids gives one image to each case.")
    found = bids_images(job.images[0], bids, job.output)
    cases = (
        Case(image.name, (image.file,), image.output, image.output.name.removesuffix(suffix), image.source)
        for image in found.images
    )
    return Cases(tuple(cases), many=True, left_out=found.left_out)


def tell_left_out(found: Cases, reporter: Reporter) -> None:
    """Tell which files of a BIDS dataset are left out; of many, the first ones."""
    for sentence in found.left_out[:_MOST_TOLD]:
        reporter.message(sentence)
    if len(found.left_out) > _MOST_TOLD:
        reporter.message(f"{len(found.left_out) - _MOST_TOLD} more files are left out.")


def segment_here(cohort: CohortJob, cases: Sequence[Case], models: JobModels, reporter: Reporter) -> list[str]:
    """Segment all cases that are not finished, and return the names of those that failed.

    :raises ClassScaleError: if a model cannot be used, the report not be written, or the job was cancelled.
    """
    records, report = cohort.records(models), cohort.report(models)
    if report is not None:
        report.files.check()
    cohort.begin(models)
    models.open()  # before the first case is named: a model that cannot be used is no fault of it
    runner = cohort.runner(models, report, records)
    failed: list[str] = []
    skipped = kept = 0
    refuse_running(cohort.job.output)
    with writing_page(report):
        for index, case in enumerate(cases, start=1):
            reporter.begin(case.name, index, len(cases))
            finding: Finding | None = None
            try:
                finding = cohort.find(case, records)
                if finding.state in (State.DONE, State.KEPT):
                    reporter.skipped(finding.reason)
                    if report is not None:
                        report.add_finished(case, reporter)
                    skipped += 1
                    kept += finding.state is State.KEPT
                    continue
                if finding.reason:
                    reporter.again(finding.reason)
                runner.run(case, reporter, finding.replace)
            except (KeyboardInterrupt, Cancelled):
                there = runner.written == case.name or (finding and finding.state in (State.DONE, State.KEPT))
                done = index - len(failed) - (not there)
                reporter.leave()
                raise Cancelled(
                    f"Cancelled: {done} of {len(cases)} cases are done. Run the command again to go on."
                ) from None
            except Exception as error:
                if isinstance(error, OSError):
                    flush(error)  # standard output may be what has failed, and that ends the command
                if isinstance(error, OutputExistsError) and _done_meanwhile(cohort, case, records):
                    reporter.skipped("another command has segmented it meanwhile")
                    skipped += 1
                    continue
                sentence = case_error(case.name, error, reporter)
                reporter.error(sentence)
                failed.append(case.name)
                add_failed(report, case, sentence, reporter)
                del sentence  # whose frames have the image of the case
        reporter.leave()
    written = cohort.written(cases, models, failed, reporter)
    reporter.end(len(cases) - len(failed) - skipped, skipped, failed, kept, written)
    return failed


def _done_meanwhile(cohort: CohortJob, case: Case, records: Records) -> bool:
    """Return whether another command has segmented a case; if it is giving its results their names, wait for it."""
    until = time.monotonic() + _SECONDS_TO_NAME
    while True:
        found = cohort.find(case, records)
        if found.known:
            return found.state is State.DONE
        if not found.replace or time.monotonic() > until:  # no record says that its files are being written
            return False
        time.sleep(0.2)


def case_error(name: str, error: Exception, reporter: Reporter) -> ClassScaleError:
    """Return the error of a case, in a sentence; a bug, ours or a library's, is logged."""
    return error if isinstance(error, ClassScaleError) else reporter.faults.sentence(name, error)


def add_failed(report: JobReport | None, case: Case, error: ClassScaleError, reporter: Reporter) -> None:
    """Add a case that failed to the report; if that fails too, say so, and go on."""
    if report is None:
        return
    try:
        report.add_failed(case, error)
    except ClassScaleError as another:
        if str(another) != str(error):
            reporter.error(another)


@contextmanager
def writing_page(report: JobReport | None, when_cancelled: bool = True) -> Iterator[None]:
    """Write the page of a report at the end of the block, also after an exception, which is raised.

    :param when_cancelled: also after Ctrl-C, which the page of thousands of cases would keep waiting; the next run
        writes it anyway.
    """
    try:
        yield
    except BaseException as error:
        if report is not None and (when_cancelled or not isinstance(error, (Cancelled, KeyboardInterrupt))):
            with suppress(ClassScaleError):  # the other fault is told
                report.write()
        raise
    if report is not None:
        report.write()
