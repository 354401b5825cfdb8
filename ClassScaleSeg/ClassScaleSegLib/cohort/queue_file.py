"""The YAML file that describes the jobs of a queue: SLURM, PBS, LSF, SGE or HTCondor, by dask-jobqueue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError, reason

KINDS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "htcondor": "HTCondorCluster",
}
_KEYS = ("queue", "jobs", "options")


@dataclass(frozen=True)
class Queue:
    """Jobs of a queue.

    :ivar kind: one of :data:`KINDS`.
    :ivar minimum: jobs that are kept, also while no case waits.
    :ivar maximum: jobs that may be there at once.
    :ivar options: as dask-jobqueue's class takes them: ``cores``, ``memory``, ``walltime``, ``queue`` and so on.
    """

    file: Path
    kind: str
    minimum: int
    maximum: int
    options: dict[str, Any]


def seconds_of(walltime: str, kind: str) -> float | None:
    """Return the seconds of ``[days-]hours:minutes:seconds``, LSF's ``hours:minutes``, or SLURM's ``minutes``.

    :param kind: of the queue.
    :returns: ``None`` if the text is of another form.

    >>> seconds_of("1-02:30:00", "slurm")
    95400.0
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", walltime.strip())
    if match is None:
        return None
    days, first, second, third = (float(number or 0) for number in match.groups())
    if match[4] is not None or match[1] is not None or (match[3] is not None and kind == "lsf"):
        return 86400 * days + 3600 * first + 60 * second + third
    if match[3] is not None:
        return 60 * first + second
    return first if kind in ("pbs", "sge") else 60 * first


def read_queue(file: Path) -> Queue:
    """Read a YAML file that describes a queue.

    :raises ClassScaleError: if it cannot be read, or an entry is missing or wrong.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "queue.yaml")
    ...     lines = ["queue: slurm", "jobs: {minimum: 0, maximum: 20}", "options: {cores: 4, memory: 16 GB}"]
    ...     characters = file.write_text("\\n".join(lines))
    ...     queue = read_queue(file)
    >>> queue.kind, queue.minimum, queue.maximum, queue.options["cores"]
    ('slurm', 0, 20, 4)
    """
    import yaml

    try:
        facts = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise ClassScaleError(f"{file} cannot be read as YAML ({reason(error)}).") from error
    if not isinstance(facts, dict) or set(facts) - set(_KEYS) or "queue" not in facts:
        raise ClassScaleError(f"{file} must have the entries {', '.join(_KEYS)}, and no others.")
    if facts["queue"] not in KINDS:
        raise ClassScaleError(f"{file}: the queue is {facts['queue']!r}; it must be one of {', '.join(KINDS)}.")
    jobs, options = facts.get("jobs", 1), facts.get("options") or {}
    minimum, maximum = (jobs.get("minimum", 0), jobs.get("maximum")) if isinstance(jobs, dict) else (0, jobs)
    if type(minimum) is not int or type(maximum) is not int or not 0 <= minimum <= maximum or maximum < 1:
        raise ClassScaleError(
            f"{file}: jobs must be a number, or minimum and maximum, such as {{minimum: 0, maximum: 20}}."
        )
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ClassScaleError(f"{file}: options must be names and values, as dask-jobqueue takes them.")
    if not isinstance(options.get("walltime", ""), str):  # YAML reads 12:00:00 as 43200
        raise ClassScaleError(f'{file}: the walltime must be in quotes, such as "12:00:00".')
    for name in ("worker_extra_args", "job_script_prologue"):
        if not isinstance(options.get(name, []), list):
            raise ClassScaleError(f"{file}: {name} must be a list.")
    return Queue(file, facts["queue"], minimum, maximum, options)
