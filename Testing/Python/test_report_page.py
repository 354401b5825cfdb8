"""The page of a report: its HTML, and that it needs nothing from elsewhere."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from ClassScaleSegLib.images.dicom.seg import UsedModel
from ClassScaleSegLib.labels.label import Code
from ClassScaleSegLib.report import page as page_module
from ClassScaleSegLib.report import report
from ClassScaleSegLib.report.cohort import ClassOfCohort
from ClassScaleSegLib.report.facts import ClassFacts, Run
from ClassScaleSegLib.report.page import as_flags
from ClassScaleSegLib.report.report import Report
from report_page_fixtures import EVIL, GRID, NAMES, cohort, segmentation, simple_view  # noqa: F401  (fixtures)

HREF = re.compile(r"#case=[^\"'<> ]+|#cases|#main|cases/[^/\"'<> ]+\.html")


class Page(HTMLParser):
    """Notes elements, texts by element, and identifiers of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} ends where another element is open"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(cohort):
    page = Page(cohort)
    assert page.open == [] and page.source.startswith("<!doctype html>")
    assert page.all("html")[0]["lang"] == "en" and ("title", "7 cases") in page.texts
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            address = attributes.get(name)
            assert address is None or address.startswith("data:") or HREF.fullmatch(address), address
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    style = next(text for tag, text in page.texts if tag == "style")
    assert "url(" not in style and "@import" not in style
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(image["alt"] and image["width"] for image in page.all("img"))


def test_names_from_files_stay_text_and_only_the_own_script_may_run(cohort):
    page = Page(cohort)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    scripts = [text for tag, text in page.texts if tag == "script"]
    programs = [text for text in scripts if not text.startswith("{")]
    assert len(programs) == 1
    assert base64.b64encode(hashlib.sha256(programs[0].encode()).digest()).decode() in policy
    kinds = [script.get("type") for script in page.all("script")]
    assert kinds.count("application/json") == 8 and len(kinds) == 9  # seven cases, and what they share
    facts = [json.loads(text) for text in scripts if text.startswith("{")]
    assert any(one.get("name") == EVIL and one["warnings"] == [EVIL] for one in facts)
    assert EVIL in [text for tag, text in page.texts if tag == "span"]


def test_options_are_those_of_the_command():
    run = (
        "classes=('left kidney', 'a', 'b', 'c', 'd', 'e', ...), locate_with='m', memory_limit_gib=4.5, mirroring=False"
    )
    flags = "--classes 'left kidney' a b c d e ... --locate-with m --memory-limit 4.5 --no-mirroring"
    assert as_flags(run) == flags and as_flags("") == ""
    for other in (EVIL, "step=", "x)(y", "(" * 10_000, "a=b\0", "x)(y=1", "**{'a': 1}", "f"):
        assert as_flags(other) == other
    models = (UsedModel("Fine, 4 classes"), UsedModel("Coarse"))
    facts = page_module._run(Run("2026-11-28T12:00:00+00:00", 1.0, options="locate_with='m'", models=models))
    assert [model.get("located") for model in facts["models"]] == [None, True]
    assert page_module._names_of_models(Run("", 1.0, options="locate_with='m'", models=models)) == ["Fine"]


def test_a_meaning_that_is_the_name_is_left_out():
    def meaning(name: str, **codes: Code) -> str:
        return page_module._class(ClassOfCohort(ClassFacts(1, name, "#000000", codes), 1, 1, 0, 1.0, 1.0, 1.0))[
            "meaning"
        ]

    kidney, left = Code("SCT", "64033007", "Kidney"), Code("SCT", "7771000", "Left")
    assert meaning("kidney_left", type=kidney, type_modifier=left) == ""
    assert meaning("left kidney", type=kidney, type_modifier=left) == "Kidney, Left"
    assert meaning("kidney") == ""


def test_many_cases_have_small_pictures_and_a_page_each(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MANY", 2)
    written = Report(tmp_path)
    for name in ("a", "b %", "c"):
        written.add(name, segmentation())
    written.add_failed("d", "It is empty.")
    page = Page(written.write())
    facts = [json.loads(text) for tag, text in page.texts if tag == "script" and '"rows"' in text[:2000]]
    cases = {one["name"]: one for one in facts if "rows" in one}
    assert (
        cases["b %"]["page"] == "cases/b%20%2525.html" and cases["b %"]["pictures"] == [] and cases["d"]["page"] is None
    )
    own = Page(tmp_path / "cases" / "b %25.html")
    assert ("title", "b %") in own.texts and own.open == []
    (single,) = (json.loads(text) for tag, text in own.texts if tag == "script" and text.startswith('{"name"'))
    assert [one["kind"] for one in single["pictures"]] == ["axial", "coronal", "sagittal", "3d"]
    assert len(page.all("img")) == 3
