"""Parts of `cohort.py` that time: what a cluster costs, what a second worker gains, and 10,000 instant cases."""

from __future__ import annotations

import shutil
import socket
import statistics
import time
from pathlib import Path
from typing import Any

from cohort_runs import FAST, MODEL, Command, ledger, run, stray_files, write_cases
from measure import HERE, Bar, in_own_process, mebibytes, peak_bytes, reset_peak

LONG, CASES, RUNS = (96, 96, 128), 8, 4
MANY, WORKERS = 10_000, 2


def overhead(root: Path, quick: bool) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Time cases of about 5 s with one worker, and without a cluster, in turn.

    The processor seconds of a case are those of a run of all cases less those of a run of two, in which command, worker
    and model start likewise.
    """
    images, two = _long_cases(root, quick), _long_cases(root, quick, 2)
    rows: list[dict[str, Any]] = []
    names = ("seconds of a case", "processor seconds of a case")
    for number in range(1 if quick else RUNS):
        pair = []
        for where in (None, "local:1"):
            short = _segmented(two, root / "speed", where)
            command = _segmented(images, root / "speed", where)
            more = len(command.times("result")) - len(short.times("result"))
            each = (command.processor - short.processor) / more
            row = {"run": number + 1, "workers": where or "without a cluster", **_figures(command, 1), names[1]: each}
            pair.append(row)
        for name in names:
            pair[1][f"added to {name}"] = pair[1][name] / pair[0][name] - 1
        rows += pair
        print(*pair, sep="\n", flush=True)
    added = statistics.median(row[f"added to {names[0]}"] for row in rows[1::2])
    return rows, [Bar("what the cluster adds to a case, as a share of it, median", added, 0.05)]


def efficiency(root: Path, quick: bool) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Compare two workers with one, and with one of two threads, in turn."""
    images = _long_cases(root, quick)
    rows: list[dict[str, Any]] = []
    for number in range(1 if quick else RUNS):
        for workers, threads in ((1, 1), (2, 1), (1, 2)):
            command = _segmented(images, root / "speed", f"local:{workers}", threads)
            rows.append({"run": number + 1, "workers": workers, "threads": threads, **_figures(command, workers)})
            print(rows[-1], flush=True)
    rates = {
        key: statistics.median(row["cases an hour"] for row in rows if (row["workers"], row["threads"]) == key)
        for key in ((1, 1), (2, 1), (1, 2))
    }
    for row in rows:
        row["beside one worker of one thread"] = row["cases an hour"] / rates[1, 1]
    beside = {"run": "medians", "workers": "2, of one thread, beside 1 of two"}
    rows.append({**beside, "beside one worker of two threads": rates[2, 1] / rates[1, 2]})
    return rows, []


def _long_cases(root: Path, quick: bool, most: int = CASES) -> Path:
    count = min(most, 4) if quick else most
    return write_cases(root / f"long_{count}", count, LONG)


def _segmented(images: Path, output: Path, where: str | None, threads: int = 1) -> Command:
    shutil.rmtree(output, ignore_errors=True)
    choices = (*FAST[:-1], threads, *(() if where is None else ("--cluster", where)))
    return run("segment", images, *choices, "-o", output, threads=threads)


def _figures(command: Command, workers: int) -> dict[str, float]:
    """Return the seconds of a case, counted from when each worker has done its first one, and those of all the rest."""
    times = command.times("result")
    rate = (len(times) - workers) / (times[-1] - times[workers - 1])
    seconds = workers / rate
    return {
        "seconds of a case": seconds,
        "cases an hour": 3600 * rate,
        "seconds until the first case begins": times[0] - command.begin - seconds,
        "seconds to end": command.ended - times[-1],
    }


def many(root: Path, quick: bool) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Run instant cases, and then all again, which finds all done."""
    count = 500 if quick else MANY
    images, output = root / f"empty_{count}", root / "many"
    images.mkdir(exist_ok=True)
    for number in range(count):
        (images / f"case{number:05}.nrrd").touch()
    shutil.rmtree(output, ignore_errors=True)
    rows = []
    for what in ("all to do", "all done"):
        figures = in_own_process(str(HERE / "cohort.py"), 1, images=str(images), output=str(output))
        rows.append({"cases": count, "what": what, **figures})
    lines = [line["event"] for line in ledger(output)]
    return rows, [
        Bar(f"seconds of {count} instant cases", rows[0]["seconds"], 60),
        Bar("GB of the command at most", rows[0]["MiB"] * 2**20 / 1e9, 1),
        Bar("cases not done once in the ledger", abs(lines.count("done") - count) + lines.count("failed"), 0),
        Bar("results missing", count - len(list(output.glob("*.seg.nrrd"))), 0),
        Bar("temporary files left", len(stray_files(output)), 0),
    ]


def instant_cases(images: str, output: str) -> dict[str, Any]:
    """Run all cases of a folder in this process and on workers of its own; return seconds and memory of the process."""
    from ClassScaleSegLib.commands import cohort_run
    from ClassScaleSegLib.commands.cohort_job import CohortJob, find_cohort
    from ClassScaleSegLib.commands.job_models import find_models
    from ClassScaleSegLib.commands.reporting import TerminalReporter
    from ClassScaleSegLib.options import Options
    from ClassScaleSegLib.process.job import Job

    reset_peak()
    begin = time.perf_counter()
    job = Job((images,), (str(MODEL),), output, options=Options(device="cpu"))
    models = find_models(job)
    cases = find_cohort(job, models, ".seg.nrrd").cases
    found = time.perf_counter()
    cohort_run.segment_case = _instant
    failed = cohort_run.segment_on_cluster(
        CohortJob(job, (".seg.nrrd",)), cases, models, TerminalReporter(), f"local:{WORKERS}"
    )
    return {
        "seconds": time.perf_counter() - begin,
        "seconds to list": found - begin,
        "MiB": mebibytes(peak_bytes()),
        "failed": len(failed),
    }


def _instant(setup: Any, case: Any, overwrite: bool, attempt: int) -> dict[str, Any]:
    """Do what a worker does with a case, apart from the segmentation."""
    from ClassScaleSegLib.cohort.dispatch import tell_answer, tell_begin
    from ClassScaleSegLib.cohort.records import Records
    from ClassScaleSegLib.files import replacing

    tell_begin(setup.run, case.name)
    records = Records(setup.cohort.job.output, setup.recipe)
    record = records.begin(case.name, case.files, setup.run)
    records.announce(record)
    with replacing(case.output, overwrite) as temporary:
        temporary.write_text(case.name)
    records.commit(record, {".seg.nrrd": case.output}, 0)
    facts = {"output": case.output, "structures": 0, "seconds": 0.0}
    answer = {"host": socket.gethostname(), "messages": [], "facts": facts, "seconds": 0.0}
    tell_answer(setup.run, answer)
    return answer
