# ruff: noqa: F811  fixtures
"""The dialog "Train" of the panel: what it asks for, the child process, its end, and what is remembered."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
from child_stand_in import StandInChild
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.process import Event
from ClassScaleSegLib.process import training as process_module
from ClassScaleSegLib.resources import resource
from slicer_application import qt, slicer
from test_module_compare import panel, scene, told  # noqa: F401

# isort: split
from ClassScaleSegPanel.install import packages
from ClassScaleSegPanel.training import choices as choices_module
from ClassScaleSegPanel.training.choices import Choices, proposed_output, remembered
from ClassScaleSegPanel.training.comparison import summary_text
from ClassScaleSegPanel.training.progress import TrainingProgress
from ClassScaleSegPanel.training.words import panel_words


class Child(StandInChild):
    made: ClassVar[list[StandInChild]] = []


@pytest.fixture
def child(monkeypatch):
    monkeypatch.setattr(process_module, "TrainingProcess", Child)
    monkeypatch.setattr("ClassScaleSegPanel.training.dialog.ensure_dependencies", lambda wanted, **more: None)
    Child.made.clear()
    yield Child.made
    slicer.app.userSettings().remove(choices_module._SETTING)
    slicer.app.userSettings().remove(choices_module._SETTING + choices_module._SEEN)
    slicer.app.userSettings().remove("ClassScaleSeg/TrainingFolder")


@pytest.fixture
def train(panel, child, tmp_path):
    """The open dialog, with a folder of two cases."""
    cases = tmp_path / "cases" / "segmentations"
    cases.mkdir(parents=True)
    for name in ("CT_1", "CT_2"):
        (cases / f"{name}.seg.nrrd").write_bytes(b"NRRD0004\n\n")
    slicer.app.userSettings().setValue("ClassScaleSeg/TrainingFolder", str(tmp_path / "cases"))
    panel.ui.trainButton.click()
    yield panel.training
    panel.training.end()


def test_it_proposes_the_folder_the_shown_model_and_a_free_file(panel, train, tmp_path):
    assert train.choices() == Choices(str(tmp_path / "cases"), panel.state.shown.id, str(tmp_path / "cases.zip"))
    assert train.cases.text.startswith("2 cases, the latest of which is CT_")
    names = [train.model.itemData(index) for index in range(train.model.count)]
    assert "toy-120" in names and "head-mr-312" in names
    labelled = {"Cases", "Begin with", "New model", "Epochs", "Device", "What a case lacks", "Structures that overlap"}
    fields = (train.folder, train.model, train.output, train.epochs, train.device, train.missing, train.overlap)
    assert {field.accessibleName for field in fields} == labelled
    assert not train.cancel_button.enabled and not train.use_button.visible
    train.folder.text = str(tmp_path / "nothing")
    assert train.cases.text == "No case was saved there." and train.output.text == str(tmp_path / "nothing.zip")
    train.output.text = "/mine.zip"
    train.folder.text = str(tmp_path / "cases")
    assert train.output.text == "/mine.zip", "the user has chosen it"


def test_models_that_cannot_be_trained_further_are_not_offered(panel, child, tmp_path, write_model):
    pytest.importorskip("nnunetv2")
    from brainchop_fixtures import write_folder
    from classscale_training.nnunet.plans_of_model import ModelPlans
    from ClassScaleSegLib.catalog.catalog import Catalog
    from ClassScaleSegLib.models.packing import pack
    from tiny_primus import add_fold, primus_plans, stock_primus

    folder, _arrays = write_folder(tmp_path / "foreign")
    pack(folder, tmp_path / "packed.zip")
    primus = write_model()
    (primus / "plans.json").write_text(json.dumps(primus_plans()))
    add_fold(primus, stock_primus())
    pack(primus, tmp_path / "primus.zip")
    pack(resource("Models", "toy-120.zip"), tmp_path / "ours.zip")
    shutil.copy(tmp_path / "ours.zip", tmp_path / "damaged.zip")
    models = [(folder, "Foreign"), ("packed.zip", "Packed"), ("ours.zip", "Ours"), ("damaged.zip", "Bad")]
    models += [
        ("primus.zip", "Primus"),
        (primus, "Primus folder"),
        (write_model(root=tmp_path / "unet"), "U-Net folder"),
    ]
    for source, name in models:
        Catalog().add(tmp_path / source, name)
    (tmp_path / "damaged.zip").write_bytes(b"")
    panel.ui.trainButton.click()
    offered = {panel.training.model.itemText(index) for index in range(panel.training.model.count)}
    panel.training.end()
    assert {name for _source, name in models} & offered == {"Ours", "Bad", "U-Net folder"}
    for file in (folder, tmp_path / "packed.zip"):
        with pytest.raises(ClassScaleError, match="was not planned by nnU-Net"):
            ModelPlans.read(str(file))


def test_what_is_chosen_is_what_the_command_gets(train, child, tmp_path):
    train.epochs.setCurrentIndex(train.epochs.findData(20))
    train.device.setCurrentIndex(train.device.findData("cpu"))
    train.missing.setCurrentIndex(train.missing.findData("background"))
    train.overlap.setCurrentIndex(train.overlap.findData("last"))
    train.validate.checked = train.corrected.checked = train.fill.checked = True
    train.start_button.click()
    words = [str(tmp_path / "cases"), "-m", "toy-120", "-o", str(tmp_path / "cases.zip"), "--epochs", "20"]
    options = ["-device", "cpu", "--fold", "0", "--missing", "background", "--overlap", "last", "--corrected", "--fill"]
    assert child[0].arguments == words + options
    from classscale_training.commands import _parser

    _parser().parse_args(["finetune", *child[0].arguments])
    child[0].events = [Event("progress", "fill", 0, 1)]
    train.poll()
    assert train.status.text == "Segmenting the cases", "how many there are is not known yet"
    child[0].events = [Event("progress", "fill", 3, 4)]
    train.poll()
    assert (train.status.text, train.bar.value) == ("Segmenting the cases: 3 of 4", 4)
    child[0].events = [Event("progress", "collect", 1, 1)]
    train.poll()
    assert train.bar.value == 6
    train.cancel()
    train.open()
    assert train.fill.checked, "as it was chosen last"


def test_progress_is_shown_until_the_new_model_can_be_used(panel, train, child, tmp_path, monkeypatch, told):
    train.start_button.click()
    assert train.cancel_button.enabled and not train.start_button.enabled and not train.folder.enabled
    child[0].events = [Event("progress", "train", 12, 100, remaining=5400)]
    child[0].log = "train_loss -0.5"
    train.poll()
    assert train.status.text == "Training: 12 of 100 epochs, about 1.5 h left" and train.bar.value == 17
    assert train.log.plainText == "train_loss -0.5"
    train.close()
    assert train.process is not None, "it goes on"
    panel.ui.trainButton.click()
    assert train.status.text.startswith("Training: 12") and train.cancel_button.enabled
    child[0].state, child[0].result = "finished", {"output": str(tmp_path / "cases.zip")}
    train.poll()
    assert train.status.text == f"Done. The new model is {tmp_path / 'cases.zip'}."
    assert train.comparison.widget.isHidden()
    assert train.process is None and train.start_button.enabled and not train.timer.isActive()
    added = []
    monkeypatch.setattr(train, "_on_made", added.append)
    assert not train.use_button.isHidden()
    train.use_button.click()
    assert added == [str(tmp_path / "cases.zip")] and told == []


COMPARED = {
    "output": "/cases.zip",
    "cases": ["CT_1", "CT_2"],
    "structures": [
        {"name": "liver", "cases": 2, "dice": [0.9, 0.95]},
        {"name": "spleen", "cases": 1, "dice": [0.9, 0.8]},
        {"name": "cyst", "cases": 2, "dice": [None, 0.7]},
        {"name": "lung", "cases": 2, "dice": [0.9, 0.8997]},
    ],
    "mean_dice": [0.9, 0.8375],
    "mean_dice_of_all": [0.9, 0.8834],
}


def test_both_models_are_compared_structure_by_structure(panel, train, child):
    train.validate.checked = True
    train.start_button.click()
    child[0].events = [Event("progress", "compare-models", 1, 4)]
    train.poll()
    assert (train.status.text, train.bar.value) == ("Comparing both models", 93)
    child[0].state, child[0].result = "finished", COMPARED
    train.poll()
    said = "On 2 cases that the training has not seen, the mean Dice has gone from 0.900 to 0.883."
    counts = "Structures that both models know: 1 better, 1 worse."
    assert train.status.text == f"Done. The new model is /cases.zip. {said} {counts}"
    table = train.comparison
    shown = [[table.proxy.index(row, column).data() for column in range(5)] for row in range(4)]
    assert shown == [
        ["spleen", "1", "0.900", "0.800", "-0.100"],
        ["lung", "2", "0.900", "0.900", "+0.000"],
        ["liver", "2", "0.900", "0.950", "+0.050"],
        ["cyst", "2", "", "0.700", ""],
    ]
    table.search.text = "LIV"
    assert not table.widget.isHidden() and table.shown() == ["2"]
    train.close()
    panel.ui.trainButton.click()
    assert train.comparison.model.rowCount() == 4, "a dialog that is opened again shows it"
    train.start_button.click()
    assert train.comparison.widget.isHidden() and train.comparison.model.rowCount() == 0


def test_a_comparison_can_be_stopped_and_the_new_model_used(train, child, tmp_path):
    train.validate.checked = True
    train.start_button.click()
    child[0].events = [Event("progress", "compare-models", 0, 4)]
    train.poll()
    train.cancel_button.click()
    said = f"Stopped. The new model is {tmp_path / 'cases.zip'}. It was not compared."
    assert train.status.text == said and not train.use_button.isHidden()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"cases": ["a"]},
            "On the one case that the training has not seen, the mean Dice has gone from 0.900 to 0.883.",
        ),
        (
            {"cases": ["a"], "mean_dice_of_all": []},
            "Its mean Dice on the one case that the training has not seen is 0.838.",
        ),
        ({"mean_dice_of_all": []}, "Its mean Dice on 2 cases that the training has not seen is 0.838."),
        ({"mean_dice_of_all": [], "mean_dice": [None, None]}, ""),
        ({"structures": []}, ""),
    ],
)
def test_what_is_said_of_all_structures(changed, said):
    assert summary_text({**COMPARED, **changed}).startswith(said) and bool(said) == bool(
        summary_text({**COMPARED, **changed})
    )


def test_a_model_that_was_trained_again_to_the_same_file_is_used(panel, train, tmp_path, told):
    for model, classes in (("toy-120", 120), ("head-mr-312", 311)):
        train._made = str(shutil.copy(resource("Models", f"{model}.zip"), tmp_path / "mine.zip"))
        train._use()
        assert panel.state.entry.parts[0].file == train._made and told == []
        assert panel.state.entry.classes == len(panel.state.table.foreground) == classes


def test_the_file_that_was_written_stays_when_the_dialog_is_opened_again(panel, train, child, tmp_path):
    train.start_button.click()
    (tmp_path / "cases.zip").touch()
    child[0].state, child[0].result = "finished", {"output": str(tmp_path / "cases.zip")}
    train.poll()
    train.close()
    panel.ui.trainButton.click()
    assert train.output.text == str(tmp_path / "cases.zip"), "another one would begin another training"


@pytest.mark.parametrize("by", ["button", "Escape", "frame"])
def test_a_closed_dialog_opens_at_the_end(train, child, tmp_path, by):
    train.start_button.click()
    window = train.dialog
    {"button": train.close, "Escape": window.reject, "frame": window.close}[by]()
    assert train.dialog is None
    child[0].state, child[0].result = "finished", {"output": str(tmp_path / "cases.zip")}
    train.poll()
    assert train.dialog is not None and train.status.text == f"Done. The new model is {tmp_path / 'cases.zip'}."


def test_a_training_that_was_stopped_is_gone_on_with_also_after_a_restart(panel, train, child):
    train.epochs.setCurrentIndex(train.epochs.findData(50))
    train.start_button.click()
    train.cancel_button.click()
    assert child[0].state == "cancelled" and train.status.text.startswith("Stopped. What was learned is kept")
    train.end()
    panel.training._status = ""
    panel.ui.trainButton.click()
    train.start_button.click()
    assert child[1].arguments == child[0].arguments and "50" in child[1].arguments


def test_a_case_that_was_saved_elsewhere_begins_another_training(panel, train, child, tmp_path):
    train.start_button.click()
    train.end()
    slicer.app.userSettings().setValue("ClassScaleSeg/TrainingFolder", str(tmp_path / "others"))
    panel.ui.trainButton.click()
    assert (train.folder.text, train.output.text) == (str(tmp_path / "others"), str(tmp_path / "others.zip"))


def test_a_folder_that_was_typed_is_there_again(panel, train, child, tmp_path):
    train.folder.text = str(tmp_path / "typed")
    train.start_button.click()
    train.end()
    panel.ui.trainButton.click()
    train.start_button.click()
    assert child[1].arguments == child[0].arguments and child[1].arguments[0] == str(tmp_path / "typed")


def test_the_keyboard_stays_where_start_and_stop_are(train, child):
    train.dialog.activateWindow()
    qt.QApplication.processEvents()
    train.start_button.setFocus()
    train.start()
    assert qt.QApplication.focusWidget() is train.cancel_button
    train.cancel()
    assert qt.QApplication.focusWidget() is train.start_button


def test_who_reads_the_log_is_left_where_he_is(train, child):
    train.start_button.click()
    scroll = train.log.verticalScrollBar()
    child[0].log = "line\n" * 500
    train.poll()
    assert scroll.value == scroll.maximum > 0
    scroll.value = 7
    child[0].log += "one more\n"
    train.poll()
    assert scroll.value == 7


def test_a_fault_is_told(train, child, told):
    train.start_button.click()
    child[0].state, child[0].error, child[0].log = "failed", "That is why.", "more"
    train.poll()
    assert told == ["That is why."] and train.status.text == "That is why." and train.log.plainText == "more"
    assert train.start_button.enabled


def test_a_long_fault_is_a_short_box_with_details_and_tells_of_the_dialog(train, child, monkeypatch):
    boxes = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: boxes.append((text, more)))
    train.start_button.click()
    faults = ["The dataset has 20 faults:", *["- Say so with --missing background, or --overlap last."] * 20]
    child[0].state, child[0].error = "failed", "\n".join(faults)
    train.poll()
    assert train.status.text == "The dataset has 20 faults: The log has the rest."
    ((text, more),) = boxes
    assert text == "The dataset has 20 faults:" and more["detailedText"].count("\n") == 20
    said = more["detailedText"].splitlines()[-1]
    assert said == '- Say so with "It is not in the image", or "The last of the labels wins".'


def test_what_the_command_says_of_its_options_is_said_of_the_dialog(tmp_path, monkeypatch):
    pytest.importorskip("nnunetv2")
    from classscale_training.data.collect import cases, on_image
    from classscale_training.data.collect.cases import folders_in
    from classscale_training.nnunet import plans_of_model
    from classscale_training.nnunet.finetuning import begin, path_lengths
    from classscale_training.nnunet.finetuning import work as finetune_work
    from classscale_training.nnunet.splits import prepare_splits

    with pytest.raises(ClassScaleError) as found:
        folders_in(tmp_path)
    assert panel_words(str(found.value)).endswith("it has no folder images. Save for training... writes one.")
    with pytest.raises(ClassScaleError) as found:
        prepare_splits(tmp_path, ["a"])
    told = panel_words(str(found.value))
    assert told.endswith(': do not tick "Keep a fifth of the cases to see how good the new model is".')
    for end in (".", ", or choose another model."):
        assert f"Plan without --like{end}" in Path(plans_of_model.__file__).read_text()
        assert panel_words(f"Plan without --like{end}") == "Choose another model to begin with."
    primus = "Choose another model to begin with, or name --trainer ClassScaleTrainer_Primus, which trains 1000 epochs."
    assert primus in re.sub(r'"\s+f?"', "", Path(begin.__file__).read_text())
    assert panel_words(primus) == "Choose another model to begin with."
    for module, sentence, said in (
        (cases, "name them all with --channels", "choose a model that takes as many"),
        (on_image, "Name a label table with --labels, or put a table", "Put a table"),
    ):
        assert sentence.partition("or put")[0] in Path(module.__file__).read_text()
        assert panel_words(sentence) == said
    monkeypatch.setattr(path_lengths, "LONGEST", 10)
    with pytest.raises(ClassScaleError) as found:
        path_lengths.refuse_long_paths(tmp_path, [Path("log.txt")])
    assert panel_words(str(found.value)).endswith(
        "; Windows allows 10. Choose a folder with a shorter path for the new model, or give the cases shorter names."
    )
    assert "the same command again: it goes on there" in Path(finetune_work.__file__).read_text()
    assert panel_words("Delete x, or choose another folder (-o or --work).").endswith("another file for the new model.")
    assert panel_words("and run the same command again: it goes on there.") == "and press Start: it goes on there."


def test_a_model_that_exists_is_replaced_only_after_a_question(train, child, tmp_path, monkeypatch):
    (tmp_path / "cases.zip").write_bytes(b"")
    asked, answer = [], [False]
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: asked.append(text) or answer[0])
    train.start_button.click()
    assert child == [] and asked == [f"{tmp_path / 'cases.zip'} exists. Replace it once the training is done?"]
    answer[0] = True
    train.start_button.click()
    assert child[0].arguments[-1] == "--overwrite"


@pytest.mark.parametrize(
    ("field", "sentence"),
    [("folder", "Choose the folder with the cases."), ("output", "Choose the file of the new model.")],
)
def test_what_is_missing_is_said(train, child, told, field, sentence):
    train.output.text = "/mine.zip"
    getattr(train, field).text = " "
    train.start_button.click()
    assert told[0].startswith(sentence) and child == []


@pytest.mark.parametrize("field", ["folder", "output"])
def test_a_path_that_depends_on_the_current_folder_is_refused(train, child, told, field):
    getattr(train, field).text = "mine.zip"
    train.start_button.click()
    assert told[0].startswith("mine.zip does not say where it is. Give the whole path") and child == []


def test_the_home_folder_may_be_typed_as_a_tilde(train, child, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    train.output.text = ""
    train.folder.text = "~/cases"
    assert train.cases.text.startswith("2 cases") and train.output.text == str(tmp_path / "cases.zip")
    train.output.text = "~/mine.zip"
    train.start_button.click()
    assert child[0].arguments[0] == str(tmp_path / "cases")
    assert child[0].arguments[4] == str(tmp_path / "mine.zip")


@pytest.mark.parametrize("typed", ["/", ".", "..", "/x/" + "n" * 300, "a\0b"])
def test_a_folder_that_is_typed_letter_by_letter_does_no_harm(train, typed):
    for end in range(len(typed) + 1):
        train.folder.text = typed[:end]
    assert proposed_output("/") == "" and train.cases.text


def test_packages_that_are_missing_are_asked_for(panel, train, child, told, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(process_module, "TrainingProcess", Child)
    monkeypatch.setattr(packages, "missing_packages", lambda wanted: list(wanted.more))
    monkeypatch.setattr("ClassScaleSegPanel.install.dialog.show", lambda text, button: "")
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    train.start_button.click()
    assert child == [] and told[-1].startswith("The module cannot train without these Python packages: nnunetv2>=2.8")


def test_files_and_folders_are_browsed_for(train, tmp_path, monkeypatch):
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *given: str(tmp_path / "b")))
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *given: str(tmp_path / "model")))
    for button in train._browse_buttons:
        button.click()
    assert (train.folder.text, train.output.text) == (str(tmp_path / "b"), str(tmp_path / "model.zip"))


def test_closing_the_module_stops_it(panel, train, child):
    train.start_button.click()
    panel.close()
    assert child[0].state == "cancelled" and train.dialog is None


@pytest.mark.parametrize("kept", ["[", "[1]", '{"epochs": "many", "model": 3, "folder": "/a"}'])
def test_settings_of_another_version_do_no_harm(child, kept):
    slicer.app.userSettings().setValue(choices_module._SETTING, kept)
    assert remembered() == Choices(folder="/a" if "folder" in kept else "")


def test_the_proposed_file_is_free(tmp_path):
    folder = str(tmp_path / "cases")
    assert proposed_output("") == "" and proposed_output(folder) == f"{folder}.zip"
    Path(f"{folder}.zip").touch()
    assert proposed_output(folder) == f"{folder}-2.zip"


def test_percentages_never_decrease_and_every_step_has_a_name():
    progress, texts = TrainingProgress(compares=True), []
    steps = [("start", 0), ("collect", 0), ("plan", 0), ("preprocess", 1), ("train", 4), ("export", 0)]
    for stage, done in (*steps, ("compare-models", 2)):
        progress.update(Event("progress", stage, done, 4))
        texts.append((progress.text, progress.percent))
    progress.update(Event("progress", "collect", 0, 4))
    assert progress.percent == 95
    assert texts == [
        ("Starting", 0),
        ("Reading the cases", 1),
        ("Planning", 2),
        ("Preparing the images", 4),
        ("Training: 4 of 4 epochs", 90),
        ("Writing the model", 90),
        ("Comparing both models", 95),
    ]


def test_every_number_of_epochs_has_a_trainer():
    pytest.importorskip("nnunetv2")
    from classscale_training.nnunet.finetuning.checks import trainer_of

    assert len({trainer_of(epochs) for epochs in choices_module.EPOCHS}) == len(choices_module.EPOCHS)


def test_qt_can_ask_the_stand_in_of_a_progress_bar_for_its_text():
    assert callable(qt.QProgressBar().text), "as an attribute, which asks Qt, it would call itself without end"
