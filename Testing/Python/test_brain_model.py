"""Evaluating and packing a brain model: figures from known predictions, a table with codes, a card with its licence."""

from __future__ import annotations

from pathlib import Path

import evaluate_brain_model  # noqa: E402
import numpy as np
import pack_brain_model  # noqa: E402
import pytest
from classscale_training.data.brain import BrainTables
from ClassScaleSegLib import LabelTable
from ClassScaleSegLib.errors import ClassScaleError

DATA = Path(__file__).parents[3] / "shared" / "data"
TABLES = BrainTables.read()
STRUCTURES = {row.name: row.label for row in TABLES.structures}


def one_individual() -> np.ndarray:
    """Left thalamus: half found. Ventricles: all found, but one horn taken for the ventricle."""
    reference = np.repeat(
        [TABLES.set_names.index(name) for name in ("left thalamus", "left inferior lateral ventricle")], 100
    )
    predicted = np.full(200, STRUCTURES["left lateral ventricle"])
    predicted[:50] = STRUCTURES["left pulvinar"]
    predicted[50:100] = 0
    return evaluate_brain_model.confusion(reference, predicted, TABLES)


def test_nuclei_count_as_their_set_and_parts_of_the_ventricles_as_ventricles():
    figures = evaluate_brain_model.set_figures(np.stack([one_individual()] * 2), TABLES)
    assert figures["bars"]["thalamus"]["dice"] == pytest.approx(2 * 50 / 150, abs=1e-4)
    assert figures["bars"]["ventricles"] == {"dice": 1.0, "pooled_dice": 1.0}
    single = {row["name"]: row["dice"] for row in figures["sets"]}
    assert single["left inferior lateral ventricle"] == 0 and single["right thalamus"] is None
    assert len(single) == len(TABLES.set_names) - 1


def test_only_structures_of_at_least_125_voxels_make_the_mean():
    classes = len(TABLES.names)
    counts = np.zeros((2, 3, classes), int)
    voxels = np.zeros(classes)
    for label, size, found in ((1, 1000.0, 100), (2, 125.0, 50), (3, 124.0, 0)):
        voxels[label] = size
        counts[:, :, label] = found, 100, 100
    figures = evaluate_brain_model.structure_figures(counts, voxels, TABLES)
    assert figures["structures_as_large"] == 2 and figures["dice"] == 0.75 and figures["dice_of_all"] == 0.5
    assert figures["structures"][0] == {
        "label": 1,
        "name": "white matter of left cerebral hemisphere",
        "group": "Cerebral white matter",
        "voxels": 1000.0,
        "dice": 1.0,
        "pooled_dice": 1.0,
    }
    assert figures["structures"][3]["dice"] is None


def test_the_label_table_has_codes_groups_and_survives_slicers_csv(tmp_path):
    table = pack_brain_model.label_table(TABLES)
    assert len(table) == 312 and len(table.foreground) == 311
    coded = [label for label in table if label.type is not None]
    assert len(coded) == 142 and {label.type.scheme for label in coded} == {"RADLEX"}
    assert table.names[STRUCTURES["pons"]] == "pons" and table[STRUCTURES["pons"]].type.value == "RID6728"
    assert len(table.groups) == 18 and all(label.group for label in table.foreground)
    table.to_csv(tmp_path / "labels.csv")
    assert LabelTable.from_csv(tmp_path / "labels.csv").labels == table.labels


def test_the_card_states_the_figures_and_ends_with_the_conditions_of_the_atlas(tmp_path):
    licence = tmp_path / "licence.txt"
    licence.write_text("PART A. x\nPART B. DOWNLOADING AGREEMENT - y\n1. z\nPART C. MISCELLANEOUS\n")
    conditions = pack_brain_model.conditions(licence)
    classes = len(TABLES.names)
    counts = np.full((1, 3, classes), 100)
    counts[0, 0, 1:4] = 20
    evaluation = {
        "spacing_mm": 2.0,
        "atlas": {"cases": 1} | evaluate_brain_model.structure_figures(counts, np.full(classes, 500.0), TABLES),
        "individuals": {"cases": 1, "of": [11]} | evaluate_brain_model.set_figures(one_individual()[None], TABLES),
    }
    log = [{"step": 20, "loss": 1.5, "seconds": 60.0, "dice": 0.5}]
    values = {"pooled Dice": 0.6, "Dice with exchanged sides": 0.5, "Dice of both lists of borders": 0.8}
    real = [{"what": "2 deep", "Dice": 0.75, **values}, {"what": "pons", "kind": "deep", "Dice": 0.625, **values}]
    text = pack_brain_model.card(TABLES, evaluation, log, "a CPU", conditions, real=real)
    assert "mean Dice **0.750** over 2 deep structures" in text and "the same weights reach 0.500 there" in text
    assert "| pons | 0.625 | 0.600 | 0.500 | 0.800 |" in text
    text = pack_brain_model.card(TABLES, evaluation, log, "a CPU", conditions)
    assert "was not measured" in text and "real heads" not in text
    assert "3 have a mean Dice below 0.5; the worst are white matter of left cerebral hemisphere (0.200)" in text
    assert "| pons | 500 | 1.000 | 1.000 |" in text and "| thalamus | 0.667 | 0.667 |" in text
    assert "20 steps, 1 minutes on a CPU" in text and "not for clinical use" in text
    assert pack_brain_model.PREFACE in text and text.rstrip().endswith("1. z\n```")
    licence.write_text("Apache")
    with pytest.raises(ClassScaleError, match="give the 3D Slicer License"):
        pack_brain_model.conditions(licence)


@pytest.mark.skipif(not (DATA / "spl_brain").is_dir(), reason="the atlas is not at hand")
def test_the_conditions_of_the_real_licence_are_found_whole():
    text = pack_brain_model.conditions(DATA / "spl_brain" / "3DSlicer_License.txt")
    assert text.startswith("PART B. DOWNLOADING AGREEMENT") and "granted hereunder." in text[-60:]


def test_borders_that_the_other_heads_draw_elsewhere_are_found_at_the_same_place():
    from miccai2012 import usual_borders

    def head(shift: int, border: int) -> np.ndarray:
        """Return eight blocks, whose borders along the first axis are at ``border``; the head is moved by ``shift``."""
        labels = np.zeros((60, 60, 60), np.int64)
        z, y, x = np.indices((48, 48, 48))
        labels[shift : shift + 48, 6:54, 6:54] = 1 + (z >= border) + 2 * (y >= 24) + 4 * (x >= 12)
        return labels

    of_class = np.arange(9)
    heads = [(head(shift, 36), head(shift, 24), of_class) for shift in (0, 6, 12)]
    for (reference, classes, _), usual in zip(heads, usual_borders(heads), strict=True):
        assert (classes != reference).mean() > 0.1 and (usual != reference).mean() < 0.03
    alike = [(classes, classes, of_class) for _, classes, _ in heads]
    unchanged = zip(alike, usual_borders(alike), strict=True)
    assert all(np.array_equal(usual, classes) for (_, classes, _), usual in unchanged)
