"""The Containerfile agrees with the project. Testing/Cluster/run_container.sh builds the image and runs it."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ClassScaleSegLib.cohort import queue_jobs

tomllib = pytest.importorskip("tomllib")
ROOT = Path(__file__).parents[2]
RECIPE = re.sub(r"\\\n\s*", " ", (ROOT / "Containerfile").read_text(encoding="utf-8"))  # an instruction to a line
PAGE = (ROOT / "docs" / "how-to" / "containers.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "Testing" / "Cluster" / "run_container.sh"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", RECIPE, re.MULTILINE)


def travels(path: str) -> bool:
    """Whether .dockerignore lets a file of the checkout into the build."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    parts, kept = path.split("/"), True
    for pattern in patterns:
        wanted = pattern.removeprefix("!").removeprefix("**/")
        places = range(len(parts)) if "**/" in pattern else [0]
        names = ["/".join(parts[start:end]) for start in places for end in range(start + 1, len(parts) + 1)]
        if any(fnmatch.fnmatchcase(name, wanted) for name in names):
            kept = pattern.startswith("!")
    return kept


def test_the_build_gets_what_it_copies_and_the_whole_project() -> None:
    sources = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert {"constraints.txt", "pyproject.toml", "LICENSE"} <= set(sources)
    assert all((ROOT / source).exists() and travels(source) for source in sources if source != ".")
    setup, folders = PROJECT["tool"]["setuptools"], {}
    for package in setup["packages"]:
        base = max((name for name in setup["package-dir"] if f"{package}.".startswith(f"{name}.")), key=len)
        folders[package] = setup["package-dir"][base] + package.removeprefix(base).replace(".", "/")
    files = [file for folder in folders.values() for file in (ROOT / folder).glob("*.py")]
    for package, patterns in setup["package-data"].items():
        files += [file for pattern in patterns for file in (ROOT / folders[package]).glob(pattern)]
    names = {file.relative_to(ROOT).as_posix() for file in files}
    names |= {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "bundles/mine.zip"}
    assert {"Resources/Models/toy-120.zip", "ClassScaleSeg/ClassScaleSegLib/cohort/__init__.py"} <= names
    assert not [name for name in names if not travels(name)]


@pytest.mark.parametrize(
    "name",
    [".git/HEAD", ".venv/bin/python", ".benchmarks/a/b.json", "Testing/Python/conftest.py", "docs/README.md"]
    + ["ClassScaleSeg/ClassScaleSegLib/__pycache__/files.cpython-311.pyc", "Resources/Screenshots/head.png"],
)
def test_the_build_does_not_get_what_the_image_does_not_need(name: str) -> None:
    assert not travels(name)


def test_packages_are_those_of_the_project_and_its_extras(tmp_path: Path) -> None:
    (extras,) = re.findall(r'^ARG EXTRAS="(.*)"$', RECIPE, re.MULTILINE)
    (program,) = re.findall(r"bin/python -c '(.*?)' \$\{EXTRAS\}", RECIPE)
    done = subprocess.run([sys.executable, "-c", program, *extras.split()], cwd=ROOT, capture_output=True, text=True)
    groups = [PROJECT["project"]["optional-dependencies"][name] for name in extras.split()]
    assert done.stdout.splitlines() == sum(groups, PROJECT["project"]["dependencies"]), done.stderr
    pinned = re.findall(r"^[\w.-]+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"torch", "torchvision", "dask", "distributed"} <= set(pinned)


def test_labels_are_those_of_the_project() -> None:
    (label,) = instructions("LABEL")
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="(.*?)"', label))
    assert labels["version"] == PROJECT["project"]["version"]
    assert labels["licenses"] == PROJECT["project"]["license"]
    assert (ROOT / labels["documentation"].partition("/main/")[2]).samefile(ROOT / "docs/how-to/containers.md")


def test_workers_of_the_image_keep_to_the_limits_of_those_of_a_queue() -> None:
    (variables,) = instructions("ENV")
    wanted = {line.removeprefix("export ") for line in queue_jobs._ENVIRONMENT}
    assert wanted and wanted <= set(variables.split())


def test_no_address_but_pytorchs_and_the_projects_is_named() -> None:
    texts = RECIPE + PAGE + SCRIPT.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://([\w.-]+)", texts)) == {"download.pytorch.org", "github.com"}


def test_the_page_names_every_build_argument_and_no_other() -> None:
    arguments = {line.partition("=")[0] for line in instructions("ARG")} - {"PIP_CONFIG_FILE"}
    rows = re.findall(r"^\| `([A-Z_]+)` \|", PAGE.partition("## Run")[0], re.MULTILINE)
    assert set(rows) == arguments
    assert set(re.findall(r"--build-arg (\w+)=", PAGE)) <= arguments


@pytest.mark.skipif(os.name == "nt", reason="a script for a POSIX shell")
def test_the_script_can_be_read_by_a_shell_and_tells_how_to_use_it() -> None:
    assert subprocess.run(["sh", "-n", SCRIPT]).returncode == 0
    done = subprocess.run([SCRIPT, "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2 and "check FOLDER" in done.stderr and "TORCH_INDEX" in done.stderr
