"""The whole engine against float64 arithmetic that shares no code with it: the benchmark's cases, made small."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
sys.path.insert(0, str(Path(__file__).parents[1] / "Benchmarks"))
from exactness import Case, measure  # noqa: E402

SMALL = {"size": 40, "patch": 16}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case(10, mirroring=True, **SMALL), id="fewer classes than channels, mirroring"),
        pytest.param(Case(80, "ResidualEncoderUNet", separate_z=True, folds=2, **SMALL), id="two folds, separate z"),
        pytest.param(Case(40, folds=2, **SMALL), id="two folds with more channels than classes"),
        pytest.param(Case(40, regions=True, **SMALL), id="regions"),
    ],
)
def test_every_voxel_has_the_label_of_exact_arithmetic(case, tmp_path):
    row = measure(case, tmp_path, stock=False)
    assert row["voxels"] == 64_000 and row["labels_used"] > 0.8 * case.classes
    assert row["differ"] == 0
