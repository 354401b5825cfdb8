# ruff: noqa: F811  fixtures
"""The dialog "Compare models" of the panel: two models on saved cases, side by side, and the file with all figures."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import ClassVar

import pytest
import SimpleITK as sitk
from child_stand_in import StandInChild
from ClassScaleSegLib import ClassScaleError, Segmentation
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.process import Event
from ClassScaleSegLib.process import training as process_module
from conftest import TOY
from slicer_application import SAMPLE, application, qt, slicer, wait_until
from test_module_compare import panel, scene, told  # noqa: F401

# isort: split
from ClassScaleSegPanel.install import packages
from ClassScaleSegPanel.training import choices as choices_module
from ClassScaleSegPanel.training.choices import ComparedModels, compared_models
from ClassScaleSegPanel.training.words import panel_words
from ClassScaleSegPanel.widgets import saving

FIGURES = b"Case,Other,Name,Dice\n"
RESULT = {
    "names": ["Toy atlas, 120 classes", "Mine"],
    "cases": ["CT_1", "CT_2"],
    "structures": [
        {"name": "liver", "cases": 2, "dice": [0.9, 0.95]},
        {"name": "spleen", "cases": 1, "dice": [0.9, 0.8]},
        {"name": "cyst", "cases": 2, "dice": [None, 0.7]},
    ],
    "mean_dice": [0.9, 0.8167],
    "structures_of_all": 2,
    "mean_dice_of_all": [0.9, 0.875],
    "faults": [],
    "without_common_classes": [],
}


class Child(StandInChild):
    made: ClassVar[list[StandInChild]] = []
    folder: Path

    def __init__(self, arguments):
        super().__init__(arguments)
        self.work_folder = Child.folder

    def finish(self, **changed):
        (self.work_folder / "models.csv").write_bytes(FIGURES)
        self.state, self.result = "finished", RESULT | changed


@pytest.fixture
def child(monkeypatch, tmp_path):
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(Child, "folder", tmp_path / "work", raising=False)
    monkeypatch.setattr(process_module, "ModelComparisonProcess", Child)
    monkeypatch.setattr("ClassScaleSegPanel.training.models_dialog.ensure_dependencies", lambda wanted, **more: None)
    Child.made.clear()
    return Child.made


@pytest.fixture
def settings():
    yield slicer.app.userSettings()
    compared = choices_module._COMPARED
    for name in (compared, compared + choices_module._SEEN, "ClassScaleSeg/TrainingFolder"):
        slicer.app.userSettings().remove(name)


@pytest.fixture
def compare(panel, settings, tmp_path):
    """The open dialog, with a folder of two cases and two models."""
    cases = tmp_path / "cases" / "segmentations"
    cases.mkdir(parents=True)
    for name in ("CT_1", "CT_2"):
        (cases / f"{name}.seg.nrrd").write_bytes(b"NRRD0004\n\n")
    settings.setValue("ClassScaleSeg/TrainingFolder", str(tmp_path / "cases"))
    panel.ui.compareModelsButton.click()
    choose(panel.model_comparison.second, "toy-1000")
    yield panel.model_comparison
    panel.model_comparison.end()


def choose(box, model: str) -> None:
    box.setCurrentIndex(box.findData(model))


def shown(table) -> list[list[str]]:
    rows, columns = table.proxy.rowCount(), table.proxy.columnCount()
    return [[table.proxy.index(row, column).data() for column in range(columns)] for row in range(rows)]


def test_it_proposes_the_folder_and_the_shown_model_beside_all_others(panel, compare, tmp_path):
    assert compare.choices() == ComparedModels(str(tmp_path / "cases"), panel.state.shown.id, "toy-1000")
    assert compare.cases.text.startswith("2 cases, the latest of which is CT_")
    for box in (compare.first, compare.second):
        offered = {box.itemData(index) for index in range(box.count)}
        assert {"toy-120", "toy-1000", "head-mr-312"} <= offered and "totalsegmentator-3mm" not in offered
    names = {field.accessibleName for field in (compare.folder, compare.first, compare.second, compare.device)}
    assert names == {"Cases", "Model A", "Model B", "Device"}
    assert not (compare.cancel_button.enabled or compare.save_button.enabled)


def test_what_is_chosen_is_what_the_command_gets_and_is_there_the_next_time(panel, compare, child, tmp_path):
    choose(compare.device, "cpu")
    compare.start_button.click()
    table = str(tmp_path / "work" / "models.csv")
    words = [str(tmp_path / "cases"), "-m", "toy-120", "-m", "toy-1000", "-device", "cpu", "-o", table]
    assert list(child[0].arguments) == words
    from classscale_training.commands import _parser

    _parser().parse_args(["compare-models", *words, "--json-progress"])
    compare.cancel_button.click()
    compare.close()
    chosen = ComparedModels(str(tmp_path / "cases"), "toy-120", "toy-1000", "cpu")
    assert compared_models() == chosen
    panel.ui.compareModelsButton.click()
    assert compare.choices() == chosen


def test_a_folder_in_which_cases_were_saved_since_then_is_proposed(panel, compare, child, settings, tmp_path):
    compare.start_button.click()
    compare.close()
    settings.setValue("ClassScaleSeg/TrainingFolder", str(tmp_path / "more"))
    panel.ui.compareModelsButton.click()
    assert compare.choices().folder == str(tmp_path / "cases"), "these are under way"
    compare.close()
    compare.cancel()
    panel.ui.compareModelsButton.click()
    assert compare.choices() == ComparedModels(str(tmp_path / "more"), "toy-120", "toy-1000")
    compare.folder.text = str(tmp_path / "cases")
    compare.close()
    panel.ui.compareModelsButton.click()
    assert compare.choices().folder == str(tmp_path / "cases"), "the user has chosen it"


def test_progress_is_shown_until_the_table_is_there_and_can_be_saved(compare, child, tmp_path, monkeypatch, told):
    compare.start_button.click()
    assert compare.cancel_button.enabled and not (compare.start_button.enabled or compare.first.enabled)
    child[0].events = [Event("progress", "start")]
    compare.poll()
    assert (compare.status.text, compare.bar.value, compare.bar.maximum) == ("Starting", 0, 0)
    child[0].events, child[0].log = [Event("progress", "segment", 1, 4, remaining=300)], "Mine: CT_1"
    compare.poll()
    assert (compare.status.text, compare.bar.value) == ("Segmentation 2 of 4, about 5 min left", 25)
    assert compare.log.plainText == "Mine: CT_1"
    child[0].finish()
    compare.poll()
    assert compare.status.text == (
        "On 2 cases, the mean Dice of A (Toy atlas, 120 classes) is 0.900, and that of B (Mine) is 0.875. Structures "
        "that both know: 1 better with B, 1 worse."
    )
    assert shown(compare.comparison) == [
        ["spleen", "1", "0.900", "0.800", "-0.100"],
        ["liver", "2", "0.900", "0.950", "+0.050"],
        ["cyst", "2", "", "0.700", ""],
    ]
    titles = [compare.comparison.model.horizontalHeaderItem(column).text() for column in range(5)]
    assert titles == ["Structure", "Cases", "A", "B", "Change"]
    offered = []
    monkeypatch.setattr(saving, "show", lambda title, proposed, filters: offered.append(proposed) or (proposed, ""))
    monkeypatch.setattr(slicer.mrmlScene, "GetRootDirectory", lambda: str(tmp_path), raising=False)
    compare.save_button.click()
    assert Path(offered[0]).read_bytes() == FIGURES and told == []
    assert Path(offered[0]).name == "Toy atlas, 120 classes - Toy atlas, 1000 classes.csv"
    monkeypatch.setattr(saving, "show", lambda *given: ("", ""))
    compare.save_button.click()
    (tmp_path / "file").touch()
    monkeypatch.setattr(saving, "show", lambda *given: (str(tmp_path / "file" / "a.csv"), ""))
    compare.save_button.click()
    assert len(told) == 1 and "cannot be written" in told[0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"cases": ["a"]},
            ["On one case, the mean Dice of A (Toy atlas, 120 classes) is 0.900, and that of B (Mine) is 0.875."],
        ),
        (
            {"mean_dice_of_all": [], "mean_dice": [0.9, None], "without_common_classes": [["Toy", "Mine"]]},
            [
                "A (Toy atlas, 120 classes) and B (Mine) have no class in common.",
                "B (Mine) knows none of the structures that are drawn.",
            ],
        ),
        ({"mean_dice_of_all": []}, ["Both models know structures that are drawn, but none of these together."]),
        ({"faults": ["Bad."]}, ["One case could not be compared, and counts for no model: Bad."]),
        (
            {"faults": ["Bad.", "Worse."]},
            ["2 cases could not be compared, and count for no model. The first fault was: Bad."],
        ),
    ],
)
def test_what_is_said_of_all_structures_and_of_what_is_wrong(compare, child, changed, said):
    compare.start_button.click()
    child[0].finish(**changed)
    compare.poll()
    for sentence in said:
        assert sentence in compare.status.text
    if "mean_dice_of_all" in changed:
        assert compare.status.text == " ".join(said)


def test_a_closed_dialog_opens_at_the_end_with_the_table(compare, child):
    compare.start_button.click()
    compare.dialog.reject()
    assert compare.dialog is None and compare.process is not None
    child[0].finish()
    compare.poll()
    assert compare.dialog is not None and len(shown(compare.comparison)) == 3 and compare.save_button.enabled


def test_what_the_command_says_of_its_options_is_said_of_the_dialog():
    pytest.importorskip("nnunetv2")
    from classscale_training.evaluation import model_results
    from classscale_training.evaluation.case_checks import CheckedCases

    with pytest.raises(ClassScaleError) as found:
        CheckedCases().refuse_if_unknown([])
    assert panel_words(str(found.value)).endswith(
        "Give the structures the names that a model has for them, and save the cases again, or choose other models."
    )
    replaced = "Run the same command again: it segments the cases with the new one."
    assert replaced in re.sub(r'"\s+f?"', "", Path(model_results.__file__).read_text())
    assert panel_words(replaced) == "Press Compare again: it segments the cases with the new one."


def test_it_can_be_cancelled_and_a_new_comparison_forgets_the_last_one(compare, child):
    compare.start_button.click()
    child[0].finish()
    compare.poll()
    compare.start_button.click()
    assert not (compare.save_button.enabled or shown(compare.comparison))
    compare.dialog.activateWindow()
    application.processEvents()
    compare.cancel_button.setFocus()
    compare.cancel_button.click()
    assert child[1].state == "cancelled" and not compare.timer.isActive()
    assert compare.status.text.startswith("Cancelled. Begin the same comparison again within a week")
    assert qt.QApplication.focusWidget() is compare.start_button


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("folder", "", "Choose the folder with the cases. Save for training... writes one."),
        ("folder", "cases", "cases does not say where it is. Give the whole path, or choose it."),
        ("second", "toy-120", "Choose two models to compare."),
        ("second", "", "Choose two models to compare."),
    ],
)
def test_what_is_missing_is_told_before_anything_is_done(compare, child, told, field, value, said):
    if field == "folder":
        compare.folder.text = value
    else:
        choose(compare.second, value)
    compare.start_button.click()
    assert told == [said] and child == []


def test_a_fault_is_told_in_the_words_of_the_dialog(compare, child, told):
    compare.start_button.click()
    child[0].state = "failed"
    child[0].error = "x has no folder images. Name the two folders by themselves, with -i IMAGES -s SEGMENTATIONS."
    compare.poll()
    assert told == ["x has no folder images. Save for training... writes one."] and compare.start_button.enabled
    compare.start_button.click()
    child[1].state, child[1].result = "finished", RESULT
    compare.poll()
    assert told[1].startswith("The table ") and not compare.save_button.enabled


def test_packages_that_are_missing_are_asked_for(compare, monkeypatch, told):
    monkeypatch.setattr(packages, "missing_packages", lambda wanted: ["nnunetv2"])
    monkeypatch.setattr("ClassScaleSegPanel.install.dialog.show", lambda text, button: "")
    compare.start_button.click()
    assert told[-1].startswith("Models cannot be compared without these Python packages: nnunetv2.")
    assert compare.process is None


def test_closing_the_module_ends_it(panel, compare, child):
    compare.start_button.click()
    panel.close()
    assert child[0].state == "cancelled" and compare.dialog is None


def test_two_models_are_compared_by_the_command_itself(panel, compare, tmp_path, monkeypatch, told):
    """Both know the cells of the sample: one was made for it, and the other has the same names for others."""
    pytest.importorskip("nnunetv2")
    folder, box = tmp_path / "drawn", (slice(28, 60), slice(30, 62), slice(30, 62))
    for name in ("images", "segmentations"):
        (folder / name).mkdir(parents=True)
    whole, truth = (sitk.ReadImage(str(file)) for file in (SAMPLE, SAMPLE.with_name("toy-120-labels.nrrd")))
    sitk.WriteImage(whole[box], str(folder / "images" / "CT_0000.nii.gz"))
    sitk.WriteImage(truth[box], str(tmp_path / "truth.nii.gz"))
    drawn = Segmentation.from_image(tmp_path / "truth.nii.gz")
    Segmentation(drawn.labels, summarize(TOY).table, drawn.geometry).write(folder / "segmentations" / "CT.seg.nrrd")
    compare.folder.text = str(folder)
    choose(compare.device, "cpu")
    compare.start_button.click()
    wait_until(lambda: compare.process is None, 180)
    assert compare.status.text.startswith("On one case, the mean Dice of A (Toy atlas, 120 classes) is 0."), (
        compare.status.text,
        compare.log.plainText,
    )
    rows = shown(compare.comparison)
    assert len(rows) > 5 and float(rows[0][4]) < 0 and rows[0][0].startswith("cell ")
    monkeypatch.setattr(saving, "show", lambda *given: (str(tmp_path / "all"), ""))
    compare.save_button.click()
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        others = {row["Other"] for row in csv.DictReader(file)}
    assert others == {"Toy atlas, 120 classes", "Toy atlas, 1000 classes"} and told == []
