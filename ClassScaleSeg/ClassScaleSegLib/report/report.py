"""The report in its folder: add cases one by one, then write the page and the JSON of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError, OutputExistsError
from ..files import refuse_existing, refuse_unwritable_folder, replacing
from ..images.measures import LabelMeasures
from ..images.segmentation import Segmentation, read_on_grid
from ..version import VERSION as OURS
from .case_files import FORMAT as CASE_FORMAT
from .case_files import ReportedCase, case_files, case_path, origin_of, read_case, state_of, write_case
from .cohort import ClassOfCohort, Cohort, Finding
from .facts import VERSION, CaseFacts, Run, facts_of
from .page import GENERATOR, page
from .pictures import pictures_of

FORMAT = "classscaleseg-report"
MANY = 60  # more cases than this have small pictures on the common page, and a page each besides
_HEAD = 4096  # bytes of a file, to see whether it is ours
_PAGE_MARK = f'content="{GENERATOR} '


class Report:
    """A folder with ``index.html``, a page of all cases; ``report.json``, the same for programs; and ``cases``.

    ``cases/NAME.json`` has the facts and pictures of a case. From these files the page and the JSON are made, so a
    later run, or another machine, can add to a report.

    :param folder: of the report. It is created when something is written.
    :param overwrite: replace cases that the report has already.

    >>> import tempfile
    >>> from ClassScaleSegLib import Geometry, LabelTable
    >>> labels = np.zeros((8, 8, 8), np.uint16)
    >>> labels[2:6, 2:6, 2:6] = 1
    >>> grid = Geometry((8, 8, 8), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    >>> result = Segmentation(labels, LabelTable.from_names({1: "liver"}), grid)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = Report(folder)
    ...     report.add("patient 1", result, image=labels * 50)
    ...     report.write().name
    ...     json.loads(Path(folder, "report.json").read_text())["cases"][0]["structures"][0]["volume_ml"]
    'index.html'
    64.0
    """

    def __init__(self, folder: str | Path, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self._overwrite = overwrite

    @property
    def index(self) -> Path:
        """The page."""
        return self.folder / "index.html"

    @property
    def outdated(self) -> bool:
        """Whether the page is missing or older than one of the cases, as after a run that was stopped."""
        try:
            times = [file.stat().st_mtime_ns for file in case_files(self.folder)]
            return bool(times) and (not self.index.exists() or self.index.stat().st_mtime_ns < max(times))
        except (OSError, OutputError):  # writing the page tells which file is at fault
            return True

    def name_for(self, name: str, origin: str) -> str:
        """Return the name that a case has in this report, or would get: with a number, if other cases have its name.

        :param origin: as of :meth:`add`.

        >>> Report("new").name_for("CT", "a checksum")
        'CT'
        """
        # Some file systems take "CT" and "ct" for one name, and the folder may move from one to another.
        taken, free = {file.name.casefold() for file in case_files(self.folder)}, ""
        for number in range(1, len(taken) + 2):
            one = name if number == 1 else f"{name} ({number})"
            path = case_path(self.folder, one)
            if path.name.casefold() not in taken:
                free = free or one
                continue
            with suppress(OutputError):
                if read_case(path).origin == origin:
                    return one
        return free  # there were more names than files

    def check(self, name: str | None = None, outputs: Sequence[str | Path] = (), origin: str | None = None) -> None:
        """Check before a long computation that the report can be written, and get a case of this name.

        :param outputs: as of :meth:`add`, like ``origin``.
        :raises OutputError: if the folder cannot be written, or has a page or JSON that is not of a report.
        :raises OutputExistsError: if the report has the case and may not replace it.
        """
        self._refuse_foreign(case_files(self.folder) if name is None else [case_path(self.folder, name)])
        if name is not None:
            self.refuse_other(name, outputs, origin)
            if not self._overwrite and self.has(name):
                path = case_path(self.folder, name)
                raise OutputExistsError(
                    f"{path} already exists; allow overwriting, or name another folder for the report."
                )
        refuse_unwritable_folder(case_path(self.folder, name or "case"))

    def refuse_other(self, name: str, outputs: Sequence[str | Path], origin: str | None = None) -> None:
        """Refuse a case whose name another one has already.

        :param outputs: as of :meth:`add`, like ``origin``.
        :raises OutputExistsError: if the report has a case of this name with another file of results.
        """
        path, known = case_path(self.folder, name), None
        origin = origin or origin_of(self.folder, outputs)
        with suppress(OutputError):
            known = read_case(path).origin
        if None not in (origin, known) and origin != known:
            raise OutputExistsError(
                f"{path} is of another result of that name, so it is not replaced. Name the result (-o) or the folder "
                "of the report differently, or remove the file."
            )

    def _refuse_foreign(self, cases: Iterable[Path] = ()) -> None:
        marks = {self.index: _PAGE_MARK, self.folder / "report.json": f'"{FORMAT}"'}
        for file, mark in (marks | dict.fromkeys(cases, f'"{CASE_FORMAT}"')).items():
            refuse_existing(file, overwrite=True)  # refuses a folder of that name
            if file.exists() and mark not in _head(file):
                raise OutputError(f"{file} was not written by a report. Name another folder, or remove the file.")

    def has(self, name: str) -> bool:
        """Tell whether the report has a case of this name that did not fail; a file that is none counts as a case."""
        path = case_path(self.folder, name)
        if not path.exists():
            return False
        with suppress(OutputError):
            return read_case(path).facts.error is None
        return True

    def add(
        self,
        name: str,
        result: Segmentation,
        image: np.ndarray | str | Path | None = None,
        *,
        measures: Mapping[int, LabelMeasures] | None = None,
        modality: str | None = None,
        ct: bool | None = None,
        images: Sequence[str | Path] = (),
        image_names: Sequence[str] = (),
        outputs: Sequence[str | Path] = (),
        origin: str | None = None,
        warnings: Sequence[str] = (),
        messages: Sequence[str] = (),
        run: Run | None = None,
    ) -> None:
        """Add a case, in place of one of the same name that failed or may be replaced.

        :param name: of the case.
        :param image: the image that was segmented: a file, a DICOM folder, or its voxels ``(z, y, x)``. ``None``: the
            slices are black, and there are no intensities.
        :param measures: those of the result and this image, if they are known already.
        :param modality: as in DICOM, such as "CT".
        :param ct: whether the voxels are Hounsfield units, of which the pictures show the soft tissue. ``None``: as the
            modality says.
        :param images: the image files, of which the report says the names.
        :param image_names: names that it says instead, of images that are in no file.
        :param outputs: the files with the segmentation, likewise. The first one tells whether it is the same case.
        :param origin: what tells that instead, such as a checksum of the image.
        :param warnings: why the result may be poor.
        :param messages: what else the user was told.
        :param run: how the result was made.
        :raises ImageError: if the image cannot be read, or has another grid.
        :raises OutputExistsError: if the report has the case and may not replace it.
        :raises OutputError: if the case cannot be written.
        """
        self.check(name, outputs, origin)
        source = None if image is None or isinstance(image, np.ndarray) else read_on_grid(image, result.geometry)
        voxels = image if source is None or source.voxels is None else source.voxels[0]  # a view: source owns them
        assert voxels is None or isinstance(voxels, np.ndarray)
        if measures is None:
            measures = result.measures(voxels)
        if not images and isinstance(image, (str, Path)):
            images = (image,)
        facts = facts_of(
            name,
            result,
            measures,
            images=tuple(map(_text, image_names)) or _names(images),
            outputs=_names(outputs),
            modality=modality,
            warnings=tuple(warnings),
            messages=tuple(dict.fromkeys(messages)),
            run=run,
        )
        pictures = pictures_of(result, voxels, modality == "CT" if ct is None else ct)
        state = state_of(Path(outputs[0])) if outputs else None
        write_case(self.folder, ReportedCase(facts, pictures, origin or origin_of(self.folder, outputs), state))

    def add_failed(
        self,
        name: str,
        error: object,
        images: Sequence[str | Path] = (),
        outputs: Sequence[str | Path] = (),
        image_names: Sequence[str] = (),
        origin: str | None = None,
    ) -> None:
        """Add a case without a result, unless the report has one of it.

        :param error: why there is none.
        :param images: as of :meth:`add`, like ``image_names`` and ``origin``.
        :param outputs: the files that the segmentation should have had; they are not listed.
        :raises OutputError: if the case cannot be written, or another one has its name.
        """
        self.refuse_other(name, outputs, origin)
        if not self.has(name):
            names = tuple(map(_text, image_names)) or _names(images)
            facts = CaseFacts(_text(name), names, error=_text(error))
            write_case(self.folder, ReportedCase(facts, origin=origin or origin_of(self.folder, outputs)))

    def write(self, title: str | None = None) -> Path:
        """Write ``index.html`` and ``report.json`` from all cases in the folder. One case at a time is in memory.

        :param title: of the page; if not given, the name of the case or the number of cases.
        :returns: the page.
        :raises OutputError: if there is no case, a file in ``cases`` is damaged, or a file cannot be written.
        """
        self._refuse_foreign()
        files, cohort, own = case_files(self.folder), Cohort(), set[Path]()
        for file in files:
            case = read_case(file)
            cohort.add(case.facts)
        if not files:
            raise OutputError(f"{self.folder / 'cases'} has no case, so there is no report to write.")
        classes = cohort.classes
        title = title or (case.facts.name if len(files) == 1 else f"{len(files)} cases")
        with (
            replacing(self.folder / "report.json", overwrite=True) as facts,
            replacing(self.index, overwrite=True) as html,
            facts.open("w", encoding="utf-8", newline="\n") as facts_file,
            html.open("w", encoding="utf-8", newline="\n", errors="replace") as html_file,
        ):
            _write_head(facts_file.write, cohort, classes)

            def cases() -> Iterator[tuple[ReportedCase, Sequence[Finding], str | None]]:
                for file in files:
                    case = read_case(file)
                    if not cohort.knows(case.facts):
                        raise OutputError(f"{file} was changed while the report was written. Write it again.")
                    findings = [] if case.facts.error is not None else cohort.findings(case.facts)
                    facts_file.write(_json(_case(case.facts, findings)) + (",\n" if file != files[-1] else "\n"))
                    elsewhere = self._own_page(case, findings, classes, len(files)) if len(files) > MANY else None
                    if elsewhere:
                        own.add(case_path(self.folder, case.facts.name, ".html"))
                    yield case, findings, elsewhere

            for part in page(title, _summary(cohort), classes, cases(), len(files)):
                html_file.write(part)
            facts_file.write("]}\n")
        for old in (self.folder / "cases").glob("*.html"):  # of cases that were removed, or are on the common page now
            if old not in own and _PAGE_MARK in _head(old):
                with suppress(OSError):
                    old.unlink()
        return self.index

    def _own_page(
        self, case: ReportedCase, findings: Sequence[Finding], classes: Sequence[ClassOfCohort], count: int
    ) -> str | None:
        """Write the page of one case beside its file, and return its address, relative to the common page."""
        from urllib.parse import quote

        path = case_path(self.folder, case.facts.name, ".html")
        if not case.pictures:
            return None
        with (
            replacing(path, overwrite=True) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n", errors="replace") as file,
        ):
            text = f"One of {count} cases, with which it was compared."
            for part in page(case.facts.name, text, classes, [(case, findings, None)], 1):
                file.write(part)
        return "cases/" + quote(path.name)


def _head(file: Path) -> str:
    try:
        if not file.is_file():  # reading a pipe would wait for ever
            return ""
        with file.open("rb") as opened:
            return opened.read(_HEAD).decode(errors="replace")
    except OSError:
        return ""


def _names(files: Sequence[str | Path]) -> tuple[str, ...]:
    """Return the names without their folders, which may tell more than a reader of the report should know."""
    return tuple(_text(Path(file).name or file) for file in files)


def _text(value: object) -> str:
    """Return text without lone surrogates, which stand for bytes of file names that are not UTF-8."""
    return str(value).encode(errors="backslashreplace").decode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _write_head(write: Callable[[str], object], cohort: Cohort, classes: Sequence[ClassOfCohort]) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    head = {"format": FORMAT, "version": VERSION, "classscaleseg": OURS, "created": now}
    head |= {"done": cohort.done, "failed": cohort.failed}
    entries = [asdict(one) for one in classes]
    flat = [{**entry.pop("facts"), **entry} for entry in entries]
    write(_json({**head, "classes": flat})[:-1] + ',"cases":[\n')


def _case(facts: CaseFacts, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return a case as ``report.json`` has it: the codes are in the list of all classes."""
    given = asdict(replace(facts, classes=()))
    del given["classes"]
    return {**given, "not_found": [one.name for one in facts.not_found], "findings": [asdict(one) for one in findings]}


def _summary(cohort: Cohort) -> str:
    found = sum(one.found > 0 for one in cohort.classes)
    classes = f"{found} of {len(cohort.classes)} structures were found"
    if cohort.done + cohort.failed == 1:
        return f"{classes}." if cohort.done else "The segmentation failed."
    failed = f", {cohort.failed} failed" if cohort.failed else ""
    return f"{cohort.done} segmented{failed}. {classes} in at least one case."
