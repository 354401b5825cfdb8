"""What a reader does with the page of a report, in headless Chromium, without a network."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pytest
from browser import Browser, find_browser
from ClassScaleSegLib import LabelTable, Segmentation
from ClassScaleSegLib.report.report import Report
from report_page_fixtures import EVIL, GRID, NAMES, cohort, segmentation, simple_view  # noqa: F401  (fixtures)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("needs Chromium or Chrome")
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def names(browser: Browser, selector: str = "#cases > li:not([hidden]) .name") -> list[str]:
    return browser.value(f"[...document.querySelectorAll('{selector}')].map((e) => e.textContent)")


def column(browser: Browser, title: str) -> list[str]:
    heads = names(browser, "#case thead button")
    cell = ".label" if title == "Structure" else f"tr > :nth-child({heads.index(title) + 1})"
    return names(browser, f"#case tbody {cell}")


def choose(browser: Browser, identifier: str, value: str, event: str = "input") -> None:
    property_, given = ("checked", value) if value in ("true", "false") else ("value", json.dumps(value))
    element = f"document.getElementById('{identifier}')"
    browser.value(f"{element}.{property_} = {given}; {element}.dispatchEvent(new Event('{event}'))")


def test_the_head_says_what_the_page_is_about(browser, cohort, tmp_path):
    browser.open(cohort.as_uri())
    about, summary = names(browser, ".summary")
    date = r"[0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2} UTC"
    assert re.fullmatch(rf"Organs, 6 structures · {date} · ClassScaleSeg [0-9.]+", about) and "1 failed" in summary
    Report(tmp_path).add("only", segmentation(), modality="CT", image=np.zeros((24, 24, 24)))
    browser.open(Report(tmp_path).write(title="Study").as_uri())
    assert names(browser, "h1") == ["only"] and names(browser, ".kind") == ["Segmentation report · Study"]
    assert names(browser, ".summary")[-1] == "Fewer than 5 cases: volumes are not compared."
    heads = ["Structure", "Volume, mL", "Voxels", "Surface, mm²", "Mean, HU", "Std. dev."]
    assert names(browser, "#case thead button") == [*heads, "Code"]
    sure = replace(segmentation(), confidence=np.full((24, 24, 24), 0.75, np.float32))
    Report(tmp_path, overwrite=True).add("only", sure, modality="CT", image=np.zeros((24, 24, 24)))
    browser.open(Report(tmp_path).write(title="Study").as_uri())
    assert names(browser, "#case thead button") == [*heads, "Confidence", "Code"]
    assert column(browser, "Confidence")[0] == "0.750"
    assert column(browser, "Volume, mL")[0] == "1.28" and column(browser, "Mean, HU")[0] == "0"


def test_a_reader_finds_the_unusual_cases(browser, cohort):
    browser.open(cohort.as_uri())
    assert browser.faults() == [] and browser.requests() == [cohort.as_uri()]
    usual = ["case 8", "case 9", "case 10", "case 11", "case 12"]
    assert names(browser)[:2] == ["broken", EVIL] and sorted(names(browser)[2:]) == sorted(usual)
    choose(browser, "only", "true", "change")
    assert names(browser) == ["broken", EVIL]
    assert browser.value("document.getElementById('count').textContent") == "2 of 7 cases"
    choose(browser, "search", "kidney_left is missing")
    assert names(browser) == [EVIL]
    choose(browser, "only", "false", "change")
    choose(browser, "search", "CASE 1")
    assert sorted(names(browser)) == ["case 10", "case 11", "case 12"]
    assert browser.value("document.title") == "7 cases" and names(browser, "h1") == ["7 cases"]
    assert names(browser, "#none") == [""]
    choose(browser, "search", "Colliculus ")
    assert names(browser) == [] and names(browser, "#none") == ['No case matches "Colliculus".']


def test_a_search_finds_all_findings_and_what_was_not_found(browser, tmp_path):
    written = Report(tmp_path)
    for number in range(6):
        written.add(f"case {number}", segmentation())
    for value in (1, 4, 5):
        written.add(f"without {NAMES[value]}", without(value))
    labels = segmentation().labels.copy()
    for value in (1, 2, 4, 6):  # to the edge of the image
        labels[3 * value, 4, :4] = value
    written.add("cut", Segmentation(labels, LabelTable.from_names(NAMES), GRID))
    browser.open(written.write().as_uri())
    flags = dict(zip(names(browser), names(browser, ".card > .flags"), strict=False))
    assert flags["cut"] == "▲ 1 unusual"  # four cut-offs are one line
    choose(browser, "search", "kidney_left")
    assert sorted(names(browser)) == ["cut", "without kidney_left"]
    choose(browser, "search", "cell 9")  # the fourth of those that are cut, not on the card
    assert names(browser) == ["cut"]
    browser.open(f"{(tmp_path / 'index.html').as_uri()}#case=cut")
    text = "4 structures are cut by the edge of the image that are whole in other cases: "
    assert names(browser, ".findings li") == [f"▲ Cut off{text}kidney_left, kidney_right, spleen and 1 more."]
    assert names(browser, "#case tbody .badges") == ["▲ Cut off"] * 4


def without(value: int) -> Segmentation:
    labels = segmentation().labels.copy()
    labels[labels == value] = 0
    return Segmentation(labels, LabelTable.from_names(NAMES), GRID)


def test_a_picture_is_enlarged_and_closed_by_keyboard(browser, cohort):
    browser.open(f"{cohort.as_uri()}#case=case%209")
    browser.value("document.querySelector('.pictures button').focus()")
    browser.press("Enter", 13, "\r")
    browser.until("document.querySelector('dialog[open] img')")
    assert browser.value("document.querySelector('dialog').getAttribute('aria-label')").startswith("Axial slice")
    sizes = "[document.querySelector('dialog img'), document.querySelector('.pictures img')].map((i) => i.clientWidth)"
    assert browser.value(sizes)[0] > 2 * browser.value(sizes)[1]
    browser.press("Escape", 27)
    browser.until("!document.querySelector('dialog')")
    assert browser.value("document.activeElement === document.querySelector('.pictures button')")
    assert browser.faults() == []


def test_the_page_is_used_by_keyboard(browser, cohort):
    browser.open(cohort.as_uri())
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.className") == "skip"
    for _ in range(5):  # search, order, only, the first and the second card
        browser.press("Tab", 9)
    assert browser.value("document.activeElement.querySelector('.name').textContent") == EVIL
    browser.press("Enter", 13, "\r")
    browser.until("!document.getElementById('case').hidden")
    assert browser.value("document.activeElement.id") == "case"
    assert names(browser, "h1") == [EVIL] and names(browser, ".kind") == ["Segmentation report · 7 cases"]
    while browser.value("document.activeElement.textContent") != "Volume, mL":
        browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    assert browser.value("document.activeElement.parentNode.getAttribute('aria-sort')") == "descending"
    volumes = [float(text) for text in column(browser, "Volume, mL")]
    assert volumes == sorted(volumes, reverse=True) and len(volumes) == 5
    browser.press("Enter", 13, "\r")
    assert [float(text) for text in column(browser, "Volume, mL")] == volumes[::-1]
    assert browser.value("location.hash").endswith("&sort=volume&order=ascending")
    browser.value("history.back()")
    browser.until("document.getElementById('case').hidden")
    assert browser.value("document.activeElement.querySelector('.name').textContent") == EVIL
    assert browser.faults() == [] and browser.value("document.title") == "7 cases"


def test_a_link_shows_a_sorted_case_with_all_that_is_known(browser, cohort):
    browser.open(f"{cohort.as_uri()}#case={quote(EVIL, safe='')}&sort=name&order=ascending")
    assert browser.value("document.querySelector('th[aria-sort=ascending]').textContent") == "Structure"
    structures = column(browser, "Structure")
    assert structures.index("cell 9") < structures.index("cell 10") and EVIL.replace('"', "'") in structures
    text = browser.value("document.getElementById('case').textContent")
    for part in ("Warning: ", "▲ Missing", "kidney_left is missing; 5 of 6 cases have it.", "1 class was not found"):
        assert part in text
    for part in (
        "SHA-256 abab",
        "CC0-1.0",
        "torch 2",
        "12.3 s (read 1 s)",
        "24 × 24 × 24",
        "1 GiB",
        "spleen: from 2000",
    ):
        assert part in text
    assert browser.value("[...document.querySelectorAll('#case img')].every((i) => i.naturalWidth > 0 && i.alt)")
    assert browser.value("document.querySelectorAll('#case img').length") == 4
    assert browser.faults() == []


@pytest.mark.parametrize("width", [1200, 360])
def test_the_head_of_a_table_stays_in_view(browser, cohort, width):
    size = {"width": width, "height": 300, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    try:
        browser.open(f"{cohort.as_uri()}#case=case%209")
        wide = "document.querySelector('#case table').getBoundingClientRect().width"
        box = "document.querySelector('#case .scroll').clientWidth"
        assert width == 360 or browser.value(wide) <= browser.value(box)
        browser.value("document.querySelector('#case tbody tr:last-child').scrollIntoView({block: 'end'})")
        top, edge = browser.value(
            "['thead th', '.scroll'].map((s) => document.querySelector(`#case ${s}`).getBoundingClientRect().top)"
        )
        assert top == pytest.approx(0 if width == 1200 else edge, abs=1.5)  # of the window, or of the box
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def spoken(browser: Browser) -> set[tuple[str, str]]:
    """Return roles and names in the tree that a screen reader is given."""
    nodes = [node for node in browser.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    return {(node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in nodes if "role" in node}


def test_the_structures_of_all_cases_are_a_table(browser, cohort):
    browser.open(cohort.as_uri())
    browser.value("document.querySelector('#cohort summary').click()")
    browser.until("document.querySelector('#cohort table')")
    rows = browser.value("[...document.querySelectorAll('#cohort tbody tr')].map((r) => r.innerText.split('\\t'))")
    left = next(row for row in rows if row[0].strip() == "kidney_left")
    assert [cell.strip() for cell in left[1:6]] == ["5", "6", "0", "1.28", "1.28"] and len(rows) == 6


def test_a_screen_reader_hears_tables_names_and_states(browser, cohort):
    browser.open(f"{cohort.as_uri()}#case=case%209")
    heard = spoken(browser)
    roles = {role for role, _ in heard}
    assert {"main", "article", "table", "columnheader", "rowheader", "navigation", "banner", "contentinfo"} <= roles
    assert ("link", "All cases") in heard and ("heading", "case 9") in heard
    assert ("table", "6 structures were found") in heard and ("region", "6 structures were found") in heard
    images = [name for role, name in heard if role == "image"]
    assert len(images) == 4 and all(images)
    browser.value("location.hash = '#cases'")
    browser.until("document.getElementById('case').hidden")
    heard = spoken(browser)
    assert {("searchbox", "Search"), ("combobox", "Order"), ("checkbox", "only unusual or failed")} <= heard
    assert any(role == "link" and name.endswith("case 9") for role, name in heard)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_window_and_texts_stand_out(browser, cohort, scheme):
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        for place in ("#cases", "#case=case%209"):
            browser.open(cohort.as_uri() + place)
            assert browser.value("document.documentElement.scrollWidth") <= 360
            assert browser.value(_CONTRAST) == []
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
        browser.call("Emulation.setEmulatedMedia", features=[])


_CONTRAST = """(() => {  // texts whose contrast is below 4.5, as WCAG 2 defines it
  const light = (c) => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const texts = "h1, h2, h3, p, a, li, th, td, caption, dt, dd, button, label, .flag, .code";
  for (const e of document.querySelectorAll(texts)) {
    if (!e.offsetParent || !e.textContent.trim()) continue;
    const [x, y] = [luminance(numbers(getComputedStyle(e).color)), luminance(ground(e))].sort((a, b) => b - a);
    if ((x + 0.05) / (y + 0.05) < 4.5) faint.push(e.outerHTML.slice(0, 100));
  }
  return faint;
})()"""


def test_it_prints_without_controls(browser, cohort):
    browser.open(cohort.as_uri())
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value("getComputedStyle(document.querySelector('.tools')).display") == "none"
        assert len(browser.call("Page.printToPDF")["data"]) > 10_000
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
