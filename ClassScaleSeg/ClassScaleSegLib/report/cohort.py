"""Compare the cases of a cohort, and find what is unusual: volumes, sides, doubts, what is missing, and what is cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from .facts import CaseFacts, ClassFacts, Structure
from .sides import pairs

FEWEST = 5  # cases that have a structure, before another one is compared with them
DEVIATIONS = 3.5  # robust standard deviations of the logarithm, beyond which a volume is far from the median
LEAST_DEVIATION = math.log(1.1)  # a cohort that is more alike is taken to vary by 10 %
COMMON = 0.8  # share of the cases that have a structure, or have it whole, for the rest to be unusual
TWICE = 2.0  # larger side to smaller side, where there are too few cases to say what is usual
LEAST_ML = 1.0  # of the larger side then: a few voxels more or less double the small
LEAST_VOXELS = 30  # of the median: volumes and sides of smaller structures are not compared
LEAST_DOUBT = 0.05  # below the median of the confidence: less is not worth a line
SUREST = 0.999  # more confidence is as good


@dataclass(frozen=True)
class Finding:
    """Something unusual in a case.

    :ivar kind: "volume", "missing", "asymmetry", "edge" or "confidence".
    :ivar structure: name of the structure.
    :ivar text: a sentence.
    :ivar value: mL; of an asymmetry left divided by right; of a confidence 0 to 1; ``None`` if the structure is
        missing.
    :ivar usual: the median of the cohort; ``None`` if there are too few cases.
    """

    kind: str
    structure: str
    text: str
    value: float | None = None
    usual: float | None = None

    @property
    def _rank(self) -> tuple[int, float]:
        """What is missing comes first, then what is farthest from usual, and last what is cut off."""
        if self.kind in ("missing", "edge"):
            return (0 if self.kind == "missing" else 2), 0.0
        if self.kind == "confidence":
            return 1, -abs(math.log(_doubt(self.value or 0.0) / _doubt(self.usual or 0.0)))
        return 1, -math.inf if self.value is None else -abs(math.log(self.value / (self.usual or 1.0)))


@dataclass(frozen=True)
class ClassOfCohort:
    """A class over all cases that looked for it.

    :ivar facts: name, colour and codes, as in the first case that has the class.
    :ivar looked_for: number of cases.
    :ivar found: number of cases that have it.
    :ivar cut: number of cases where it reaches the edge of the image.
    :ivar median_ml: of the cases where it does not; ``None`` if there are none, as are the next two.
    :ivar smallest_ml: the smallest of those.
    :ivar largest_ml: the largest.
    """

    facts: ClassFacts
    looked_for: int
    found: int
    cut: int
    median_ml: float | None
    smallest_ml: float | None
    largest_ml: float | None


@dataclass
class _Class:
    facts: ClassFacts
    looked_for: int = 0
    found: int = 0
    cut: int = 0
    whole_ml: list[float] = field(default_factory=list)
    doubts: list[float] = field(default_factory=list)
    voxels: list[int] = field(default_factory=list)


@dataclass
class _Usual:
    """The usual logarithm of a number, and how far it may be away."""

    middle: float
    spread: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> _Usual | None:
        if len(numbers) < FEWEST:
            return None
        logs = [math.log(number) for number in numbers]
        middle = median(logs)
        deviation = 1.4826 * median(abs(log - middle) for log in logs)  # that of a normal distribution
        return cls(middle, DEVIATIONS * max(deviation, LEAST_DEVIATION))

    def far(self, number: float) -> bool:
        return abs(math.log(number) - self.middle) > self.spread


class Cohort:
    """The numbers of all cases, from which the findings of each follow. It holds no pictures.

    First give it every case by :meth:`add`, then ask.
    """

    def __init__(self, cases: Iterable[CaseFacts] = ()) -> None:
        self.done = self.failed = 0
        self._classes: dict[str, _Class] = {}
        self._ratios: dict[tuple[str, str], list[float]] = {}
        self._pairs: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # by the names of all classes
        self._usual: dict[object, _Usual | None] = {}
        self._large: dict[str, bool] = {}
        for case in cases:
            self.add(case)

    def add(self, case: CaseFacts) -> None:
        """Count a case. Failed ones are counted only."""
        if case.error is not None:
            self.failed += 1
            return
        self.done += 1
        self._usual.clear()
        self._large.clear()
        for one in case.classes:
            self._classes.setdefault(one.name, _Class(one)).looked_for += 1
        for structure in case.structures:
            entry = self._classes[structure.name]
            entry.found += 1
            entry.voxels.append(structure.voxels)
            if structure.confidence is not None:
                entry.doubts.append(_doubt(structure.confidence))
            if structure.touches_edge:
                entry.cut += 1
            else:
                entry.whole_ml.append(structure.volume_ml)
        for pair, ratio in self._ratios_of(case):
            self._ratios.setdefault(pair, []).append(ratio)

    def knows(self, case: CaseFacts) -> bool:
        """Tell whether all classes of a case are known, as after :meth:`add`."""
        return all(one.name in self._classes for one in case.classes)

    @property
    def classes(self) -> list[ClassOfCohort]:
        """All classes, in the order in which the cases named them."""
        return [
            ClassOfCohort(
                entry.facts,
                entry.looked_for,
                entry.found,
                entry.cut,
                *((median(ml), min(ml), max(ml)) if (ml := entry.whole_ml) else (None, None, None)),
            )
            for entry in self._classes.values()
        ]

    def findings(self, case: CaseFacts) -> list[Finding]:
        """Return what is unusual in a case that was added: first the missing, last what is cut off."""
        found = {structure.name: structure for structure in case.structures}
        findings = []
        for one in case.classes:
            entry, here = self._classes[one.name], found.get(one.name)
            if here is None:
                if entry.found >= max(FEWEST, COMMON * entry.looked_for):
                    others = f"{entry.found} of {entry.looked_for} cases have it"
                    findings.append(Finding("missing", one.name, f"{one.name} is missing; {others}."))
                continue
            usual = self._of((one.name,), entry.whole_ml) if self._is_large(one.name) else None
            whole = entry.found - entry.cut
            if here.touches_edge and whole >= max(FEWEST, COMMON * entry.found):
                text = f"{one.name} is cut by the edge of the image; in {whole} of {entry.found} cases it is whole."
                findings.append(Finding("edge", one.name, text, here.volume_ml))
            if usual is not None and usual.far(here.volume_ml):
                middle = math.exp(usual.middle)
                if here.volume_ml > middle or not here.touches_edge:  # what is cut is small for that reason
                    text = f"{one.name} has {_number(here.volume_ml)} mL; the median is {_number(middle)} mL."
                    findings.append(Finding("volume", one.name, text, here.volume_ml, middle))
            findings += self._doubts(here)
        return sorted(findings + self._asymmetries(case), key=lambda finding: finding._rank)

    def _doubts(self, here: Structure) -> list[Finding]:
        """Find out whether the model was much less sure of a structure than in other cases."""
        usual = self._of(("doubt", here.name, ""), self._classes[here.name].doubts)
        if usual is None or here.confidence is None:
            return []
        middle, doubt = math.exp(usual.middle), _doubt(here.confidence)
        if doubt < middle + LEAST_DOUBT or not usual.far(doubt):
            return []
        text = (
            f"The model was less sure of {here.name} than usual: {here.confidence:.2f}; the median is {1 - middle:.2f}."
        )
        return [Finding("confidence", here.name, text, here.confidence, 1 - middle)]

    def _asymmetries(self, case: CaseFacts) -> list[Finding]:
        volumes = {one.name: one.volume_ml for one in case.structures}
        findings = self._single_sides(case, volumes)
        for (left, right), ratio in self._ratios_of(case):
            usual = self._of((left, right), self._ratios.get((left, right), []))  # changed since
            larger, smaller, times = (left, right, ratio) if ratio > 1 else (right, left, 1 / ratio)
            if not (self._is_large(larger) and (self._is_large(smaller) or usual is None)):
                continue
            if not (usual.far(ratio) if usual else times > TWICE and volumes[larger] >= LEAST_ML):
                continue
            middle = None if usual is None else math.exp(usual.middle)
            text = f"{left} : {right} is {_number(ratio)}"
            text += "." if middle is None else f" (usual {_number(middle)})."
            findings.append(Finding("asymmetry", larger, text, ratio, middle))
        return findings

    def _single_sides(self, case: CaseFacts, volumes: dict[str, float]) -> list[Finding]:
        """Return the pairs with one side only. Among more cases such a side is missing, or usual."""
        findings = []
        for pair in self._pairs_of(case):
            here, gone = pair if pair[0] in volumes else pair[::-1]
            few = self._classes[gone].looked_for < FEWEST
            if few and gone not in volumes and volumes.get(here, 0) >= LEAST_ML and self._is_large(here):
                findings.append(Finding("asymmetry", here, f"{here} was found, but not {gone}."))
        return findings

    def _ratios_of(self, case: CaseFacts) -> list[tuple[tuple[str, str], float]]:
        """Return the pairs that a case has, both whole, and the volume of the left one divided by that of the right."""
        whole = {one.name: one.volume_ml for one in case.structures if not one.touches_edge}
        return [((a, b), whole[a] / whole[b]) for a, b in self._pairs_of(case) if a in whole and b in whole]

    def _pairs_of(self, case: CaseFacts) -> list[tuple[str, str]]:
        names = tuple(one.name for one in case.classes)
        if names not in self._pairs:
            self._pairs[names] = pairs(case.classes)
        return self._pairs[names]

    def _is_large(self, name: str) -> bool:
        if name not in self._large:
            voxels = self._classes[name].voxels
            self._large[name] = bool(voxels) and median(voxels) >= LEAST_VOXELS
        return self._large[name]

    def _of(self, key: object, numbers: Sequence[float]) -> _Usual | None:
        if key not in self._usual:
            self._usual[key] = _Usual.of(numbers)
        return self._usual[key]


def _doubt(confidence: float) -> float:
    return 1 - min(confidence, SUREST)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
