"""Try thousands of odd DICOM series and NIfTI headers: each is read as written, or refused with a sentence.

    python Testing/Benchmarks/reading_fuzz.py [--quick]

Each example is a series, an object with many frames, or a NIfTI file, that may be odd in several ways at once.
Testing/Python/reading_cases.py checks the rule: voxels and geometry equal the truth to 0.01 mm, or there is a sentence;
never a traceback, never a wrong result.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from measure import Bar, parse, report

sys.path.insert(0, str(Path(__file__).parents[1] / "Python"))
from reading_cases import check_dicom, check_nifti, dicom_cases, nifti_cases  # noqa: E402


def attempt(name: str, strategy: Any, check: Callable[[Any, Path], str], examples: int) -> dict:
    """Check ``examples`` cases of a strategy, and count how they ended."""
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:

        @seed(2026)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def run(case: Any) -> None:
            try:
                ends[check(case, Path(folder) / "case")] += 1
            except Exception as error:
                ends["wrong"] += 1
                if ends["wrong"] <= 3:
                    print(f"{name}: {traceback.format_exception_only(error)[-1].strip()[:300]}\n  {case!r:.600}")

        run()
    return {"input": name, "examples": sum(ends.values()), "wrong": ends.pop("wrong", 0), **ends}


def main() -> int:
    options = parse(__doc__, "reading_fuzz")
    examples = 100 if options.quick else 2000
    rows = [
        attempt("DICOM", dicom_cases(), check_dicom, examples),
        attempt("NIfTI", nifti_cases(), check_nifti, examples),
    ]
    print(*rows, sep="\n")
    bars = [Bar("results that are wrong, or tracebacks", sum(row["wrong"] for row in rows), 0)]
    return report(options, "reading_fuzz", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
