"""``classscaleseg dicom fetch``: fetch series from an archive."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..archive.asking import Asking, asking
from ..archive.criteria import check_modality, check_uid
from ..archive.fetching import Fetched, SeriesFetch
from ..archive.searching import Search, Series
from ..errors import ArchiveError, Cancelled, ClassScaleError
from ..inference.progress import Progress
from ..process.exit_codes import ExitCode, exit_code
from ..process.terminal import on_one_line
from .archive_options import archive_of, criteria_of
from .reporting import Reporter


def fetch_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Fetch series from an archive (PACS) by DICOMweb (WADO-RS), each to a folder of its own that can be segmented.

    :returns: ``OK`` if all images of all series are there, ``SOME_FAILED`` if some are, ``USAGE`` if address, user or
        UIDs are wrong, otherwise the code of the reason.
    :raises ArchiveError: if the archive cannot be reached before anything was fetched, or a series is not found.
    """
    try:
        archive = archive_of(options)
        named = criteria_of(options, ("series", "study"), several=True)
        uids, studies = named.get("series", []), named.get("study", [])
        for uid in (*uids, *studies):
            check_uid(uid)
        modality = check_modality(options.modality) if options.modality is not None else None
        if not (uids or studies):
            raise ArchiveError("Name what to fetch: --series UID, or --study UID. classscaleseg dicom find lists them.")
    except ArchiveError as error:
        reporter.error(error)
        return ExitCode.USAGE
    fault: ClassScaleError | None = None
    done: list[Fetched] = []
    with asking(archive) as ask:
        wanted = _series(ask, uids, studies, modality, reporter)
        try:
            for number, series in enumerate(wanted, 1):
                label = f"[{number}/{len(wanted)}] " if len(wanted) > 1 else ""
                reporter.begin(series.uid, number, len(wanted))
                try:
                    _fetch(ask, series, options, label, done, reporter)
                finally:
                    if options.json_progress:
                        reporter.result(**_facts(done[-1]))
        except ClassScaleError as error:
            fault = error
        except KeyboardInterrupt:
            fault = Cancelled("Cancelled. What is whole is kept; the same command fetches the rest.")
        finally:
            reporter.leave()
    whole = sum(one.whole for one in done)
    unfetched = [_unfetched(series) for series in wanted[len(done) :]]
    if options.json_progress:
        for row in unfetched:
            reporter.result(**row)
    elif options.json:
        print(json.dumps([_facts(one) for one in done] + unfetched, indent=2))
    elif len(wanted) > 1:
        new, kept = sum(one.new for one in done), sum(one.kept for one in done)
        there = f", {kept} there already" if kept else ""
        print(on_one_line(f"{options.output}: {whole} of {len(wanted)} series whole, {_images(new)} fetched{there}"))
    if isinstance(fault, Cancelled):
        raise fault
    if fault is not None:
        reporter.error(fault)
    if whole == len(wanted):
        return ExitCode.OK
    return ExitCode.SOME_FAILED if any(one.images for one in done) else exit_code(fault or ArchiveError())


def _series(
    ask: Asking, series: Sequence[str], studies: Sequence[str], modality: str | None, reporter: Reporter
) -> list[Series]:
    """Return the series to fetch, each once.

    :raises ArchiveError: if one of them is not found, or a study that was named has nothing to fetch.
    """
    search = Search(ask)
    if not studies:
        kept = [search.series_by_uid(uid) for uid in dict.fromkeys(series)]
        if others := [one for one in kept if modality is not None and one.modality not in ("", modality)]:
            raise ArchiveError(
                f"The series {others[0].uid} is of modality {others[0].modality[:16]}, not {modality}. Leave out the "
                "series, or --modality."
            )
    else:
        found = {uid: search.series(uid, modality) for uid in dict.fromkeys(studies)}
        kept = [one for those in found.values() for one in those if not series or one.uid in series]
        for uid in (uid for uid, those in found.items() if not (those or series)):
            if modality is None:
                raise ArchiveError(
                    f"The archive has no series in the study {uid}. Correct the UID: classscaleseg dicom find lists "
                    "what it has."
                )
            search.notices.append(f"The archive has no series of modality {modality} in the study {uid}.")
        if lacking := [uid for uid in dict.fromkeys(series) if all(one.uid != uid for one in kept)]:
            raise ArchiveError(
                f"The archive has no series {lacking[0]}{f' of modality {modality}' if modality else ''} in what "
                "--study names. Correct the UIDs, or leave out --study."
            )
    for notice in search.notices:
        reporter.message(notice)
    if not kept:
        raise ArchiveError("There is nothing to fetch in what was named. classscaleseg dicom find lists what there is.")
    return list({one.uid: one for one in kept}.values())


def _fetch(
    ask: Asking, series: Series, options: argparse.Namespace, label: str, done: list[Fetched], reporter: Reporter
) -> None:
    """Fetch a series, say what came of it, and add that to what is done, also if it ends by an exception."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    with tqdm(total=series.images, unit="image", file=sys.stderr, leave=False, disable=hidden) as bar:

        def progress(images: int, total: int | None) -> None:
            bar.total, bar.n = total, images
            bar.set_description_str(f"{label}{series.uid}")
            if options.json_progress:
                reporter.progress(Progress("fetch", images, total or 0))

        fetch = SeriesFetch(ask, series, Path(options.output), options.decompress, progress)
        done.append(fetch.said)
        try:
            said = fetch.run()
        finally:
            bar.close()
            said = fetch.said
            for sentence in (*said.faults, *said.notices):
                print(on_one_line(f"{label}{series.uid}: {sentence}"), file=sys.stderr, flush=True)
            if not (options.json or options.json_progress):
                there = f", {said.kept} there already" if said.kept else ""
                what = on_one_line(" ".join(f"{series.modality} {series.description}".split())[:60]) or "Series"
                print(f"{label}{what}: {_images(said.new)} fetched{there} -> {on_one_line(said.folder)}", flush=True)


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _facts(one: Fetched) -> dict[str, object]:
    series = one.series
    return {
        "series": series.uid,
        "study": series.study,
        "modality": series.modality,
        "description": series.description,
        "folder": str(one.folder),
        "state": "whole" if one.whole else "incomplete",
        "fetched": one.new,
        "there_already": one.kept,
        "expected": one.expected,
        "missing": list(one.missing),
        "faults": one.faults,
        "notices": one.notices,
    }


def _unfetched(series: Series) -> dict[str, object]:
    return {"series": series.uid, "study": series.study, "state": "not fetched"}
