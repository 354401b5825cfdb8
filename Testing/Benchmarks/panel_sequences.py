"""Try a thousand random sequences of what users do in the panel, and count what goes wrong.

    python Testing/Benchmarks/panel_sequences.py [--quick]

Each sequence opens the panel in the stand-in application, and does 40 things at random: chooses nodes, models and
classes, runs and cancels, edits, saves, closes and loads the scene, and so on. After each, no exception was raised or
printed, and the panel shows what the parameter node and the scene hold; at the end no process, folder or timer is left.
The child processes are stand-ins, which may fail in every way: see Testing/Python/panel_user.py. It needs slicer-core
and PySide6.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

from measure import HERE, Bar, in_own_process, parse, report

sys.path[:0] = [str(HERE.parent / "Slicer"), str(HERE.parent / "Python")]

STEPS = 40
EACH = 50  # sequences in a process; after some hundreds PySide6 has freed None too often: see standins/qt.py
KINDS = {
    "raised": "exceptions",
    "logged": "exceptions",
    "VTK": "messages of VTK",
    "left at the end": "things left behind",
}
OTHER = "disagreements of the panel with parameters or scene"


def count(task: dict[str, int]) -> dict[str, int]:
    """Run the sequences of one process, and return what was done and what went wrong, by name."""
    from panel_sequences import run_sequences

    faults: Counter[str] = Counter()

    def note(kind: str, text: str, steps: list[tuple[str, dict[str, Any]]]) -> None:
        faults[KINDS.get(kind.partition(":")[0], OTHER)] += 1
        if faults.total() <= 5:
            print(text, *steps, sep="\n", file=sys.stderr)

    return run_sequences(task["sequences"], STEPS, note, task["start"]) + faults


def main() -> int:
    options = parse(__doc__, "panel_sequences")
    if options.task:
        print(json.dumps(count(options.task)))
        return 0
    begin, wanted, counts = time.perf_counter(), 30 if options.quick else 1000, Counter[str]()
    while counts["sequences"] < wanted:
        task = {"sequences": min(EACH, wanted - counts["sequences"]), "start": counts["sequences"]}
        counts += Counter(in_own_process(__file__, **task))
    row = {"sequences": counts["sequences"], "steps": counts["steps"], "seconds": time.perf_counter() - begin}
    row |= {f"runs {state}": counts[f"runs {state}"] for state in ("finished", "failed", "cancelled")}
    bars = [Bar("sequences", counts["sequences"], wanted, at_least=True)]
    bars += [Bar(kind, counts[kind], 0) for kind in dict.fromkeys((*KINDS.values(), OTHER))]
    return report(options, "panel_sequences", [row], bars)


if __name__ == "__main__":
    sys.exit(main())
