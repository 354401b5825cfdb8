"""What a check of a raw dataset found, and the report of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ClassScaleSegLib.errors import ClassScaleError

MAX_SENTENCES = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a dataset.

    :ivar sentence: names the file or the case, and says what to do.
    :ivar error: the class of the exception if it forbids training, ``None`` for a warning.
    """

    sentence: str
    error: type[ClassScaleError] | None = None


def report(name: str, findings: Iterable[Finding]) -> None:
    """Print the warnings to the standard error stream, and raise the faults together as one exception.

    :param name: of the dataset.
    :raises ClassScaleError: if there are faults: of their class, if all have the same.
    """
    findings = list(findings)
    warnings = [finding.sentence for finding in findings if finding.error is None]
    if warnings:
        print("\n".join(first(warnings, "Warning: ", "warnings")), file=sys.stderr)
    faults = [finding for finding in findings if finding.error is not None]
    kinds = {finding.error for finding in faults}
    sentences = [finding.sentence for finding in faults]
    kind = (kinds.pop() if len(kinds) == 1 else None) or ClassScaleError
    if len(faults) == 1:
        raise kind(sentences[0])
    if faults:
        lines = "\n".join(first(sentences, "- ", "faults"))
        raise kind(f"{name} has {len(faults)} faults:\n{lines}")


def first(sentences: Sequence[str], mark: str, what: str) -> list[str]:
    """Return the first ``MAX_SENTENCES`` of many sentences, each after a mark, and how many more there are.

    >>> first(["one", "two"], "- ", "faults")
    ['- one', '- two']
    >>> first(["the same"] * 25, "- ", "faults")[-1]
    'and 5 more faults.'
    """
    more = len(sentences) - MAX_SENTENCES
    return [
        *(f"{mark}{sentence}" for sentence in sentences[:MAX_SENTENCES]),
        *([f"and {more} more {what}."] if more > 0 else []),
    ]
