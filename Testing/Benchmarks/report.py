"""Measure the report of up to 1000 cases with 117 classes: seconds to write, size, memory, and Chromium opening it.

    python Testing/Benchmarks/report.py [--quick]

The cases are written once, with the pictures of the toy sample and volumes that vary by a tenth; only the page and the
JSON are measured, each number of cases in a process of its own. Memory is what writing takes beyond the libraries and
the case that was made first. In headless Chromium the page is opened from its file, scrolled from top to bottom in
steps of a window, searched, and a case is shown. Its memory is that of all its processes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib import LabelTable, Segmentation
from ClassScaleSegLib.images.dicom.seg import UsedModel
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.report.case_files import ReportedCase, write_case
from ClassScaleSegLib.report.facts import CaseFacts, Run, facts_of
from ClassScaleSegLib.report.pictures import pictures_of
from ClassScaleSegLib.report.report import Report
from ClassScaleSegLib.resources import resource
from measure import HERE, Bar, in_own_process, parse, peak_bytes, report, reset_peak, resident_bytes

sys.path.append(str(HERE.parent / "Python"))  # the browser

CLASSES = 117
SCROLL = """new Promise((done) => {  // the milliseconds of the slowest frame while scrolling
  let slowest = 0, before = performance.now();
  const step = (now) => {
    slowest = Math.max(slowest, now - before);
    before = now;
    scrollBy({ top: innerHeight, behavior: "instant" });
    if (scrollY + innerHeight < document.documentElement.scrollHeight - 2) requestAnimationFrame(step);
    else done(slowest);
  };
  requestAnimationFrame((now) => { before = now; step(now); });
})"""
SEARCH = """(() => {
  const begin = performance.now();
  document.getElementById("search").value = "case 77";
  document.getElementById("search").dispatchEvent(new Event("input"));
  document.body.offsetHeight;
  return performance.now() - begin;
})()"""


def first_case() -> ReportedCase:
    """Return the toy sample with its cells as the classes of TotalSegmentator, with their codes."""
    known = [label.name for label in LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv")).foreground]
    table = LabelTable.from_names({0: "background", **dict(enumerate(known[:CLASSES], start=1))})
    sample = Segmentation.from_image(resource("SampleData", "toy-120-labels.nrrd"))
    labels = np.where(sample.labels > CLASSES, 0, sample.labels).astype(np.uint16)
    result = Segmentation(labels, table, sample.geometry)
    image = read_image(resource("SampleData", "toy-120.nrrd"), channels=1)
    assert image.voxels is not None
    run = Run("2026-11-28T12:00:00+00:00", 60.0, {"segment": 50.0}, "cpu", "", 2**31, None, {"torch": "2.13.0"})
    run = replace(run, models=(UsedModel("Toy atlas", "CC0-1.0", "0" * 64),))
    facts = facts_of("case", result, result.measures(image.voxels[0]), images=("image.nii.gz",), run=run)
    return ReportedCase(facts, pictures_of(result, image.voxels[0], ct=False))


def varied(facts: CaseFacts, number: int) -> CaseFacts:
    """Return another case: volumes that vary by a tenth, and one structure in 300 missing or thrice as large."""
    random = np.random.default_rng(number)
    factors = np.exp(random.normal(0, 0.1, len(facts.structures))) * np.where(random.random(CLASSES) < 0.003, 3, 1)
    structures = tuple(
        replace(one, volume_ml=float(f"{one.volume_ml * factor:.6g}"), touches_edge=False)
        for one, factor in zip(facts.structures, factors.tolist(), strict=True)
        if random.random() > 0.003
    )
    return replace(facts, name=f"case {number}", structures=structures)


def measure(cases: int, root: str) -> dict[str, Any]:
    folder = Path(root, str(cases))
    first = first_case()
    for number in range(cases):
        write_case(folder, replace(first, facts=varied(first.facts, number)))
    before = resident_bytes()
    reset_peak()
    begin = time.perf_counter()
    page = Report(folder).write()
    row: dict[str, Any] = {"cases": cases, "write (s)": time.perf_counter() - begin}
    row["memory (MiB)"] = (peak_bytes() - before) / 2**20
    row["page (MB)"] = page.stat().st_size / 1e6
    row["json (MB)"] = (folder / "report.json").stat().st_size / 1e6
    row["unusual cases"] = sum(
        bool(one["findings"]) for one in json.loads((folder / "report.json").read_text())["cases"]
    )
    return {**row, **in_browser(page)}


def in_browser(page: Path) -> dict[str, Any]:
    import psutil
    from browser import Browser, find_browser

    if find_browser() is None:
        raise SystemExit("This benchmark needs Chromium or Chrome.")
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        begin = time.perf_counter()
        browser.open(page.as_uri())
        browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        row["open (s)"] = time.perf_counter() - begin
        begin = time.perf_counter()
        row["slowest frame (ms)"] = browser.value(SCROLL)
        row["scroll (s)"] = time.perf_counter() - begin
        row["search (ms)"] = browser.value(SEARCH)
        begin = time.perf_counter()
        browser.value("location.hash = document.querySelector('#cases > li:last-child a').getAttribute('href')")
        browser.until("document.querySelectorAll('#case tbody tr').length > 100")
        row["show a case (s)"] = time.perf_counter() - begin
        tree = psutil.Process().children(recursive=True)
        row["browser (MiB)"] = sum(process.memory_full_info().pss for process in tree) / 2**20
        if faults := browser.faults():
            raise SystemExit(f"The page has faults: {faults}")
    return row


def main() -> int:
    options = parse(__doc__, "report")
    if options.task:
        print(json.dumps(measure(**options.task)))
        return 0
    counts = (2, 70) if options.quick else (1, 10, 100, 1000)
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory(dir=options.root) as root:
            rows.append(in_own_process(__file__, cases=count, root=root))
    most = rows[-1]
    what = f"of {counts[-1]} cases with {CLASSES} classes"
    bars = [
        Bar(f"seconds to write the page and the JSON {what}", most["write (s)"], 120.0),
        Bar(f"MiB of memory to write them, {what}", most["memory (MiB)"], 100.0),
        Bar(f"seconds to open the page {what}", most["open (s)"], 5.0),
        Bar(f"milliseconds of the slowest frame while the page {what} scrolls", most["slowest frame (ms)"], 500.0),
        Bar(f"MB of the page {what}", most["page (MB)"], 50.0),
    ]
    return report(options, "report", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
