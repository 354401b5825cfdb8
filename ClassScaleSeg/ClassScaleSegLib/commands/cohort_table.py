"""The statistics of all cases in one table, which is written when a run ends: ``--statistics stats.csv``.

The rows of each case are kept in ``OUT/.classscaleseg/statistics/NAME.json``, with size and time of the result that
they are of. So a later run has the rows of cases that are finished already. It counts again where they are missing, as
after a run without a table, or where the result was changed since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cohort.records import FOLDER
from ..errors import ClassScaleError
from ..files import replacing, sha256_of, unwritable
from ..images.formats import check_writable
from ..images.segmentation import Segmentation
from ..images.statistics import STATISTICS_DIGITS, statistics_cells, statistics_columns
from ..images.suffixes import RTSTRUCT_SUFFIX
from ..images.tables import TABLE_SUFFIXES, Cell, write_table
from ..process.job import Job
from .cases import Case, is_folder
from .job_models import JobModels
from .reporting import Reporter
from .results import CaseResults, Measured, read_finished

_LARGEST = 1 << 28  # bytes of the rows of a case; a thousand classes have 0.3 MB


def tables_of(job: Job) -> tuple[tuple[Path, ...], Job]:
    """Return the tables of all cases that a job names, and the job with what else its statistics are to be.

    A table is a name that ends in .csv or .xlsx, and is not that of a folder.
    """
    given = [file for file in (job.statistics, *job.more_statistics) if file is not None]
    tables = [file for file in given if str(file).lower().endswith(TABLE_SUFFIXES) and not is_folder(file)]
    others = [file for file in given if file not in tables]
    first = others[0] if others else None
    return tuple(map(Path, tables)), replace(job, statistics=first, more_statistics=tuple(others[1:]))


class CohortTable:
    """The rows of the cases of a job, and the tables of all.

    :param files: of the tables.
    :param overwrite: replace files that are not tables of an earlier run into the same folder, unchanged since.
    """

    def __init__(self, files: Sequence[Path], job: Job, models: JobModels, overwrite: bool) -> None:
        self._files, self._models, self._overwrite = files, models, overwrite
        self._folder, self._job = Path(job.output) / FOLDER, job
        self._columns = statistics_columns(confidence=job.confidence is not None)

    def check(self) -> None:
        """Check before the long computation that the tables can be written.

        :raises OutputExistsError: if a file exists that may not be replaced.
        :raises OutputError: if a file cannot be written.
        """
        for file in self._files:
            check_writable(file, self._may_replace(file), TABLE_SUFFIXES)

    def add(self, case: Case, result: Segmentation, measured: Measured) -> None:
        """Keep the rows of a case whose result was written. If that fails, they are counted again at the end."""
        with suppress(Exception):  # which then tells why
            self._keep(case, self._cells(result, measured))

    def write(self, cases: Sequence[Case], without: Collection[str], reporter: Reporter) -> tuple[Path, ...]:
        """Write the tables of all cases that have a result. What cannot be counted is told, and left out.

        If no case has one, no table is written, and those of earlier runs are removed.

        :param without: names of cases that have failed, and may have older results.
        :returns: the tables that are written.
        :raises OutputExistsError: if a file came meanwhile that may not be replaced.
        :raises OutputError: if a table, or the rows of a case, cannot be written.
        """
        done = [case for case in cases if case.name not in without and self._complete(case, reporter)]
        if not done:
            self._remove()
            return ()
        for file in self._files:
            columns = ("Case", *self._columns)
            with replacing(file, self._may_replace(file)) as temporary:
                write_table(temporary, columns, self._rows(done), True, STATISTICS_DIGITS)
                self._note(file, sha256_of(temporary))  # before it has its name: the process may be killed
        return tuple(self._files)

    def _remove(self) -> None:
        for file in self._files:
            if file.exists() and self._may_replace(file):
                try:
                    file.unlink()
                except OSError as error:
                    raise unwritable(file, error) from error

    def _note(self, file: Path, digest: str) -> None:
        before = self._written(file)[-1:]  # is still there if the new table does not get its name
        noted = {**_read(self._folder / "tables.json"), os.path.abspath(file): [*before, digest]}
        with replacing(self._folder / "tables.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(noted), encoding="utf-8")

    def _rows(self, cases: Sequence[Case]) -> Iterator[list[Cell]]:
        for case in cases:
            for row in self._kept(case) or ():
                yield [case.name, *row]

    def _complete(self, case: Case, reporter: Reporter) -> bool:
        """Count a finished case whose rows are not known; return whether they are now."""
        if not case.output.exists():
            return False
        if self._kept(case) is not None:
            return True
        reporter.leave()
        if case.output.name.lower().endswith(RTSTRUCT_SUFFIX):
            reporter.message(f"{case.output} is not in the table: a structure set cannot be read again.")
            return False
        try:
            found, messages = read_finished(case.output, self._models.table)
            measured = Measured(found, case, self._models)
            result = measured.fit(CaseResults.of(self._job, case, True).confidence)
            rows = self._cells(result, measured)
        except Exception as error:
            known = isinstance(error, ClassScaleError)
            sentence = error if known else reporter.faults.sentence(case.name, error)
            reporter.message(f"{case.name} is not in the table. {sentence}")
            return False
        for message in messages:
            reporter.message(f"{case.name}: {message}")
        self._keep(case, rows)
        return True

    def _cells(self, result: Segmentation, measured: Measured) -> list[list[Cell]]:
        confidence = self._job.confidence is not None
        return statistics_cells(result.statistics(), measured.measures, result.table, confidence=confidence)

    def _keep(self, case: Case, rows: list[list[Cell]]) -> None:
        facts = {"case": case.name, "result": _print_of(case), "columns": self._columns, "rows": rows}
        with replacing(self._file(case), overwrite=True) as temporary:
            temporary.write_text(json.dumps(facts), encoding="utf-8")

    def _kept(self, case: Case) -> list[list[Cell]] | None:
        """Return the rows of the result as it is now; ``None`` if they are not known."""
        facts = _read(self._file(case))
        wanted = {"case": case.name, "result": _print_of(case), "columns": list(self._columns)}
        rows = facts.get("rows")
        if {name: facts.get(name) for name in wanted} != wanted or not isinstance(rows, list):
            return None
        return rows if all(isinstance(row, list) and self._fits(row) for row in rows) else None

    def _fits(self, row: list[Any]) -> bool:
        return len(row) == len(self._columns) and all(
            cell is None or isinstance(cell, (str, int, float)) for cell in row
        )

    def _file(self, case: Case) -> Path:
        return self._folder / "statistics" / f"{case.name}.json"

    def _written(self, file: Path) -> list[Any]:
        """Return the SHA-256 of what earlier runs have written as a table, the latest one last."""
        found = _read(self._folder / "tables.json").get(os.path.abspath(file))
        return found if isinstance(found, list) else []

    def _may_replace(self, file: Path) -> bool:
        """Tell whether a file may be replaced: an earlier run has written it, and nobody has changed it since."""
        try:
            return self._overwrite or sha256_of(file) in self._written(file)
        except OSError:
            return False


def _print_of(case: Case) -> list[int] | None:
    try:
        facts = case.output.stat()
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


def _read(file: Path) -> dict[str, Any]:
    """Return the object of a JSON file that may be missing, or anybody's."""
    try:
        if file.stat().st_size > _LARGEST:
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
