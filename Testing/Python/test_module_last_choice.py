"""The last choice of each model: remembered at Apply, offered in the menu of the model, not trusted when read."""

import json
import typing

import pytest
from slicer_application import application, load_sample, wait_until

SETTING = "ClassScaleSeg/LastChoices"
CHOICES = {
    "classes": "cell 5\ncell 6",
    "step": 0.75,
    "mirroring": False,
    "threads": 1,
    "smooth": 1.5,
    "keepEmpty": True,
}
PLAIN = {"classes": "", "step": 0.0, "mirroring": True, "threads": 0, "smooth": 0.0, "keepEmpty": False}


def offered(panel):
    menu = panel.ui.modelMenuButton.menu()
    menu.aboutToShow.emit()
    action = menu.actions()[0]
    assert action.text == "Use last choice"
    return action


def chosen(panel):
    return {name: getattr(panel.state.parameters, name) for name in CHOICES}


def test_the_choice_at_apply_is_offered_for_that_model_and_used_on_demand(panel):
    panel.ui.inputSelector.setCurrentNode(load_sample("CT"))
    assert not offered(panel).enabled and "No other choice was used with this model." in offered(panel).toolTip
    panel.store(**CHOICES)
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None)
    assert not offered(panel).enabled  # it is that of now
    panel.store(**PLAIN)
    assert chosen(panel) == PLAIN  # nothing is changed silently
    panel.store(model="toy-1000")
    assert not offered(panel).enabled
    panel.store(model="toy-120")
    assert chosen(panel) == PLAIN
    action = offered(panel)
    assert action.enabled and "Classes: cell 5, cell 6<br>Step: 0.75<br>Mirroring: no" in action.toolTip
    action.trigger()
    assert chosen(panel) == CHOICES and panel.class_list.count.text == "2 of 120"
    assert panel.ui.mirroringCheckBox.checked is False and not offered(panel).enabled


def test_all_choices_of_the_panel_are_remembered_but_those_of_the_scene_and_the_models(panel):
    from ClassScaleSegPanel.parameters import LIMITS, NODES, ClassScaleSegParameterNode
    from ClassScaleSegPanel.runs.last_choice import _KINDS

    hints = typing.get_type_hints(ClassScaleSegParameterNode, include_extras=True)
    assert hints.keys() - _KINDS.keys() == {"model", "moreModels", "allFrames", *NODES}
    most = {name: hint.__metadata__[0].maximum for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    assert {name for name, kind in _KINDS.items() if kind in (int, float)} == LIMITS.keys()
    assert most == LIMITS and (LIMITS["step"], LIMITS["smooth"]) == (1, 20)


def test_a_run_that_did_not_begin_is_not_remembered_and_the_oldest_of_many_models_goes(panel, monkeypatch):
    from ClassScaleSegPanel.runs import last_choice

    panel.ui.inputSelector.setCurrentNode(load_sample("CT"))
    panel.logic.start = lambda request: (_ for _ in ()).throw(last_choice_error())
    panel.ui.applyButton.click()
    assert last_choice.load_choices() == {}
    for number in range(60):
        panel.store(model=f"m{number}", step=0.5)
        last_choice.remember(panel.state.parameters)
    panel.store(model="m20")
    last_choice.remember(panel.state.parameters)
    kept = list(last_choice.load_choices())
    assert len(kept) == 50 and kept[0] == "m10" and kept[-1] == "m20"
    monkeypatch.setattr(last_choice, "_BYTES", 8000)
    panel.store(model="last")
    last_choice.remember(panel.state.parameters)
    assert 1 < len(last_choice.load_choices()) < 40 and "last" in last_choice.load_choices()


def last_choice_error():
    from ClassScaleSegLib import ClassScaleError

    return ClassScaleError("It cannot begin.")


def test_classes_that_the_model_no_longer_has_are_left_out_with_a_word(panel, answers):
    application.settings.setValue(SETTING, json.dumps({"toy-120": {"classes": "cell 5\ngone\n<b>old</b>"}}))
    assert "no longer has 2 of the classes" in offered(panel).toolTip
    offered(panel).trigger()
    assert panel.state.parameters.classes == "cell 5"
    assert answers[-1] == "This model no longer has 2 of the classes that were chosen. They were left out."
    application.settings.setValue(SETTING, json.dumps({"toy-120": {"classes": "gone"}}))
    assert "no longer has 1 of the classes" in offered(panel).toolTip and not offered(panel).enabled
    choices = {"toy-120": {"classes": "gone", "step": 0.5}}
    application.settings.setValue(SETTING, json.dumps(choices))
    offered(panel).trigger()  # no class is left, which would be stored as all
    assert (panel.state.parameters.classes, panel.state.parameters.step) == ("cell 5", 0.5)


def test_several_models_have_a_choice_of_their_own(panel):
    application.settings.setValue(
        SETTING, json.dumps({"toy-120\ntoy-1000": {"overlap": "keep"}, "toy-120": {"step": 0.5}})
    )
    assert "Step: 0.5" in offered(panel).toolTip and "Overlap" not in offered(panel).toolTip
    panel.store(moreModels="toy-1000")
    assert "Overlap: keep both" in offered(panel).toolTip and "Step" not in offered(panel).toolTip
    offered(panel).trigger()
    assert panel.ui.overlapComboBox.currentData == "keep"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        "[]",
        "5",
        json.dumps({"toy-120": 5}),
        json.dumps({"toy-120": {"step": 7, "threads": 1.5, "mirroring": 1, "smooth": -1, "removeIslands": "much"}}),
        json.dumps({"toy-120": {"step": float("nan"), "memoryLimit": float("inf"), "overlap": "never", "folds": 0}}),
        json.dumps({"toy-120": {"inputVolume": "x", "model": "evil", "__class__": "x", "classes": ["cell 5"]}}),
        json.dumps({"toy-120": {"device": "x" * 300_000, "threads": True}}),
        json.dumps({"toy-120": {"step": 10**400}}),
        json.dumps({"toy-120": {"device": "\ud800"}}),
    ],
)
def test_settings_that_cannot_be_right_are_not_offered(panel, text):
    application.settings.setValue(SETTING, text)
    assert not offered(panel).enabled


def test_a_hostile_text_is_shown_without_markup(panel):
    application.settings.setValue(SETTING, json.dumps({"toy-120": {"device": "<b>cuda</b>"}}))
    assert "Device: &lt;b&gt;cuda&lt;/b&gt;" in offered(panel).toolTip
