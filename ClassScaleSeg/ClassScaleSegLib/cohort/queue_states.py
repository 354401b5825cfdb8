"""What a queue says of jobs whose worker has not come; dask-jobqueue would wait for ever if the job has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

# For each kind of queue, the command that prints id and state of jobs, also of those that ended some minutes ago
_COMMANDS = {"slurm": ("squeue", "--noheader", "--states=all", "--format=%A %T", "--jobs={ids}")}
# Others mean that the job will start or may come back
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"),
}
_SECONDS_TO_ANSWER = 30


async def ended_jobs(kind: str, ids: Iterable[str]) -> dict[str, str]:
    """Return the state of each job that the queue says has ended; without an answer, none.

    :param kind: of the queue. For other kinds than ``slurm``, with which this was tried, there is no answer.
    """
    if kind not in _COMMANDS:
        return {}
    command = [part.format(ids=",".join(ids)) for part in _COMMANDS[kind]]
    try:
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, stdin=null, stdout=pipe, stderr=null)
    except OSError:
        return {}
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _SECONDS_TO_ANSWER)
    except asyncio.TimeoutError:
        process.kill()
        return {}
    lines = (line.split() for line in output.decode(errors="replace").splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2 and line[1] in _ENDED}
