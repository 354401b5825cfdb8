"""Files that only GitHub and pre-commit read: they load, and agree with the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[2]
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml" for name in ("bug_report", "feature_request", "question")]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(file: Path) -> dict:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def project(pattern: str) -> str:
    return re.search(pattern, (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_steps_of_workflows_run_scripts_that_exist(file):
    workflow = load(file)
    assert workflow["permissions"] == {"contents": "read"} and True in workflow  # YAML reads the key `on` as True
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    scripts = re.findall(r"[\w/]+\.py\b", "\n".join(step.get("run", "") for step in steps))
    assert all((ROOT / script).is_file() for script in scripts)


def test_the_lowest_python_that_is_tested_is_the_lowest_that_is_allowed():
    versions = load(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["test"]["strategy"]["matrix"][
        "python-version"
    ]
    assert all(isinstance(version, str) for version in versions)  # 3.10 without quotes is 3.1
    assert versions[0] == project(r'^requires-python = ">=([\d.]+)"')


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.name)
def test_forms_have_fields_with_labels_and_names_of_their_own(file):
    form = load(file)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    identifiers = [field["id"] for field in fields]
    assert form["name"] and form["description"] and len(set(identifiers)) == len(identifiers) > 0
    assert all(field["attributes"]["label"] for field in fields)
    assert all(field["attributes"]["options"] for field in fields if field["type"] == "dropdown")


def test_a_report_of_a_fault_has_the_log_and_versions():
    form = load(ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml")
    assert {"version", "slicer", "system", "gpu", "model", "log"} <= {field.get("id") for field in form["body"]}
    panel = (ROOT / "ClassScaleSeg" / "Resources" / "UI" / "ClassScaleSeg.ui").read_text(encoding="utf-8")
    assert "**Copy log**" in str(form) and "<string>Copy log</string>" in panel.replace("&amp;", "")


def test_ruff_has_one_version_before_a_commit_and_in_make_lint():
    hooks = {Path(entry["repo"]).name: entry["rev"] for entry in load(ROOT / ".pre-commit-config.yaml")["repos"]}
    pinned = re.search(r"^ruff==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert hooks["ruff-pre-commit"] == f"v{pinned[1]}"


def test_the_citation_has_the_version_and_the_papers_of_the_readme():
    citation, readme = load(ROOT / "CITATION.cff"), (ROOT / "README.md").read_text(encoding="utf-8")
    assert citation["version"] == project(r'^version = "([\d.]+)"')
    paper, nnunet = citation["references"]
    assert f"{paper['start']}-{paper['end']}" in readme and paper["url"] in readme and nnunet["doi"] in readme
    assert paper["title"] in " ".join(readme.split())
    assert ", ".join(author["family-names"] for author in paper["authors"]) in readme


def test_the_changelog_begins_with_the_version_of_the_project():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[?([\w.]+)\]?", text, re.MULTILINE)
    assert project(r'^version = "([\d.]+)"') in versions[:2]
    allowed = {"Added", "Changed", "Changed, and what you must do", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= allowed
