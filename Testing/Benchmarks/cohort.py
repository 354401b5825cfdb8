"""Break cohorts on Dask, and time them: kills, a case that kills its workers, Ctrl-C, overhead, and 10,000 cases.

    python Testing/Benchmarks/cohort.py [--only kills|poison|ending|overhead|efficiency|many]

Every part is a command ``classscaleseg segment --cluster local:N`` with the embedded toy model on a CPU, apart from
``many``, where workers write a few bytes instead of segmenting; ledger, records and scheduler are the real ones.
Without ``--only`` all parts are measured; with it, the rows of the others stay as they are.
"""

from __future__ import annotations

import json
import sys

import cohort_faults
import cohort_speed
from measure import parse, report

PARTS = {
    "kills": cohort_faults.kills,
    "poison": cohort_faults.poison,
    "ending": cohort_faults.ending,
    "overhead": cohort_speed.overhead,
    "efficiency": cohort_speed.efficiency,
    "many": cohort_speed.many,
}


def main() -> int:
    options = parse(__doc__, "cohort", PARTS)
    if options.task:
        print(json.dumps(cohort_speed.instant_cases(**options.task)))
        return 0
    code = 0
    for name in PARTS if options.only is None else [options.only]:
        rows, bars = PARTS[name](options.root, options.quick)
        code |= report(options, "cohort", rows, bars, name)
    return code


if __name__ == "__main__":
    sys.exit(main())
