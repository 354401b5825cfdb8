"""``classscaleseg cohort``: what happened to the cases of a cohort, and trying those again that failed."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cohort.ledger import History, open_ledger, read_ledger
from ..cohort.workers import check_where
from ..errors import ClassScaleError, OutputError
from ..process.exit_codes import ExitCode
from ..process.job import job_of
from ..process.terminal import on_one_line, printable
from .cohort_job import CohortJob, find_cohort
from .cohort_run import segment_on_cluster
from .job_models import find_models
from .options import add_command
from .parsing import Parser
from .reporting import CohortState, Reporter
from .results import STATISTICS_FORMATS

_STATES = ("done", "failed", "kept", "running", "waiting", "stopped")


def add_cohort_options(parser: Parser) -> None:
    """Add the subcommands of ``classscaleseg cohort``."""
    parser.meant = "classscaleseg cohort status {}"
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function in (("status", status_command), ("failed", failed_command), ("retry", retry_command)):
        command = add_command(commands, "cohort_command", name, function, "results/")
        command.add_argument("folder", metavar="OUT", help="folder of results, as of segment --cluster")
        if name == "retry":
            command.add_argument("--cluster", metavar="WHERE", help="other workers than before, as of segment")
            command.add_argument(
                "--json-progress", action="store_true", help="report progress as JSON lines on standard output"
            )
        else:
            command.add_argument("--json", action="store_true", help="print JSON")


def cohort_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode | None:
    """Tell what happened to the cases of a cohort that was segmented on a cluster, or try failed ones again."""
    return options.cohort_command(options, reporter)


def status_command(options: argparse.Namespace, reporter: Reporter) -> None:
    """Print how many cases are done, failed, running and waiting, where, and how fast."""
    history = read_ledger(options.folder)
    counts, per_hour = history.counts, history.per_hour if history.running else None
    left = counts["waiting"] + counts["running"] + counts["stopped"]
    remaining = None if per_hour is None else 3600 * left / per_hour
    state = CohortState(counts["done"], counts["failed"], counts.total(), history.hosts, per_hour, remaining)
    if options.json:
        facts: dict[str, Any] = {**state._asdict(), "counts": {name: counts[name] for name in _STATES}}
        facts |= {"running": history.running, "ended": history.ended, "cluster": history.begin.get("cluster")}
        print(json.dumps(facts, indent=2))
        return
    numbers = [f"{counts[name]} {name}" for name in _STATES[1:] if counts[name]]
    print(", ".join([f"{counts['done']} of {counts.total()} cases done", *numbers]))
    if history.running and (pace := str(state._replace(failed=0))):
        print(pace)
    elif not history.ended:
        print("The last run was stopped. Run its command again to go on.")
    if counts["failed"]:
        print(f"classscaleseg cohort failed {options.folder} says why cases failed; cohort retry tries them again.")


def failed_command(options: argparse.Namespace, reporter: Reporter) -> None:
    """Print the cases that failed, and why."""
    failed = sorted(read_ledger(options.folder).failed(), key=lambda case: case.name)
    if options.json:
        print(json.dumps([asdict(case) for case in failed], indent=2))
        return
    for case in failed:
        print(on_one_line(f"{case.name}: {case.error}{f' (on {case.host})' if case.host else ''}"))
    if not failed:
        print("No case has failed.")


def retry_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment the cases that failed again, also those that were put aside, in the way of the last run."""
    history = read_ledger(options.folder)
    names = frozenset(case.name for case in history.failed())
    if not names:
        reporter.message("No case has failed.")
        return ExitCode.OK
    if options.cluster is not None:
        try:
            check_where(options.cluster)
        except ClassScaleError as error:
            reporter.error(error)
            return ExitCode.USAGE
    cohort, where, sent = _last_run(history, Path(options.folder))
    if options.cluster is None and not re.fullmatch(r"local:\d+", where):  # others may have written the ledger
        raise OutputError(
            f"The last run was on {printable(where)}. A ledger alone may not choose where programs run: add "
            f"--cluster {printable(shlex.quote(where))}"
        )
    models = find_models(cohort.job)
    found = find_cohort(cohort.job, models, cohort.formats[0], cohort.bids)
    if gone := sorted(names.difference(case.name for case in found.cases)):
        with open_ledger(options.folder) as ledger:
            for name in gone:
                ledger.add("gone", case=name)
        listed = ", ".join(gone[:10]) + " ..." * (len(gone) > 10)
        said = "cases that had failed are" if len(gone) > 1 else "case that had failed is"
        reporter.message(f"{len(gone)} {said} no longer among the images: {listed}")
    failed = segment_on_cluster(cohort, found.cases, models, reporter, options.cluster or where, sent, names)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _last_run(history: History, folder: Path) -> tuple[CohortJob, str, bool]:
    """Return what the last run did, and where. The ledger is not trusted.

    :raises OutputError: if the ledger does not tell, or tells of another folder.
    """
    facts = history.begin
    try:
        job = job_of(facts.get("job"))
        formats, where, bids = facts["formats"], facts["cluster"], facts.get("bids")
        statistics = facts.get("statistics_formats", STATISTICS_FORMATS)
        tables = facts.get("tables", [])
        texts = [where, *formats, *statistics, *tables, *([] if bids is None else [bids])]
        if not (formats and statistics) or not all(isinstance(text, str) for text in texts):
            raise KeyError
    except (ClassScaleError, KeyError, TypeError) as error:
        raise OutputError(
            f"The ledger of {folder} does not say how its cases were segmented; run segment again."
        ) from error
    if Path(job.output).resolve() != folder.resolve():
        raise OutputError(f"The ledger is of the folder {job.output}, and not of {folder}. Run segment again.")
    cohort = CohortJob(
        job, tuple(formats), facts.get("overwrite") is True, bids, tuple(statistics), tuple(map(Path, tables))
    )
    return cohort, where, facts.get("transfer") is True
