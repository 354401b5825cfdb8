"""What `lint-imports` cannot express: which modules of the library load torch and other heavy packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "ClassScaleSeg" / "ClassScaleSegLib"
# The arithmetic. Everything else is imported by the panel, or before it is known whether there is anything to do.
WITH_TORCH = {
    "inference.backbone",
    "inference.decode",
    "inference.float64",
    "inference.image_rows",
    "inference.rolling_accumulator",
    "inference.network_slabs",
    "inference.windows",
    "models.checkpoint",
    "models.low_rank",
    "models.meshnet_network",
    "models.network",
    "models.projection",
}
HEAVY = (
    *("torch", "nnunetv2", "SimpleITK", "highdicom", "pydicom", "matplotlib", "scipy"),
    *("requests", "tqdm", "cc3d"),
)


def modules() -> list[str]:
    names = (".".join(file.relative_to(LIBRARY).with_suffix("").parts) for file in LIBRARY.rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names if name not in ("__init__", "__main__"))


def loaded_by(code: str) -> set[str]:
    code += f"\nimport json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_the_library_loads_nothing_heavy_but_for_the_arithmetic():
    light = [name for name in modules() if name not in WITH_TORCH]
    assert len(light) > 60
    assert loaded_by("\n".join(f"import ClassScaleSegLib.{name}" for name in light)) == set()


def test_the_trainer_says_what_its_commands_take_without_loading_anything_heavy():
    assert loaded_by("from classscale_training.commands import _parser; _parser()") == set()


def test_the_list_of_the_arithmetic_is_true():
    code = """
import importlib, sys
sys.modules["torch"] = None  # importing it fails
for name in sys.argv[1:]:
    try:
        importlib.import_module(f"ClassScaleSegLib.{name}")
    except ImportError:
        continue
    print(name)
"""
    run = subprocess.run([sys.executable, "-c", code, *sorted(WITH_TORCH)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
