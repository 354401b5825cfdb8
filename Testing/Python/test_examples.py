"""The examples in the docstrings run, give what they say, and leave no files behind."""

import ast
import doctest
import importlib
import inspect
import os
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import classscale_training  # noqa: E402
import ClassScaleSegLib  # noqa: E402

ROOT = Path(__file__).parents[2]
PACKAGES = {"ClassScaleSegLib": ROOT / "ClassScaleSeg", "classscale_training": ROOT / "training"}
OPTIONAL = {"slicer", "triton", "vtk", "vtkmodules"}


def modules_with_examples() -> list[str]:
    found = []
    for package, folder in PACKAGES.items():
        for file in sorted((folder / package).rglob("*.py")):
            if ">>>" in file.read_text(encoding="utf-8"):
                parts = file.relative_to(folder).with_suffix("").parts
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_a_module(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    monkeypatch.chdir(tmp_path)
    failures, attempted = doctest.testmod(module)
    assert failures == 0 and attempted > 0
    assert os.listdir() == []


@pytest.mark.parametrize("name", [*ClassScaleSegLib.__all__, *classscale_training.__all__])
def test_a_public_name_has_a_docstring_with_an_example(name):
    thing = getattr(ClassScaleSegLib if name in ClassScaleSegLib.__all__ else classscale_training, name)
    documentation = docstring(thing)
    assert documentation
    if not (inspect.isclass(thing) and issubclass(thing, Exception)):
        assert ">>>" in documentation


def docstring(thing) -> str | None:
    """Return the docstring in the source, because a dataclass without one gets a generated one."""
    thing = inspect.unwrap(thing)
    tree = ast.parse(Path(inspect.getsourcefile(thing)).read_text(encoding="utf-8"))
    return next(
        ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == thing.__name__
    )
