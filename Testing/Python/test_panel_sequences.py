"""Random sequences of user actions on the panel: see ``panel_user.py``."""

import contextlib

import pytest
from panel_sequences import run_sequences
from panel_user import PanelFault, PanelUser


def test_random_sequences_leave_nothing_behind_and_the_panel_agrees_with_its_parameters():
    counts = run_sequences(sequences=20, steps=15)
    assert counts["sequences"] >= 20 and counts["runs finished"] > 0


def test_a_panel_that_does_not_show_what_was_chosen_is_noticed(monkeypatch, tmp_path):
    from ClassScaleSegPanel.runs.device_list import DeviceList

    user = PanelUser(tmp_path)
    monkeypatch.setattr(DeviceList, "render", lambda self, device: None)
    try:
        user.act("search_models", text="toy")
        with pytest.raises(PanelFault, match="^disagree with what is shown: device\n"):
            user.act("set_by_a_script", choice=("device", "cuda:7"))
    finally:
        with contextlib.suppress(PanelFault):  # of this fault again
            user.close_application()


def test_a_fault_is_told_with_the_steps_that_led_to_it_and_ends_its_sequence(monkeypatch):
    act, found = PanelUser.act, []

    def broken(self: PanelUser, name: str, /, **arguments: object) -> None:
        act(self, name, **arguments)
        if len(self.steps) == 3:
            raise PanelFault("a fault\nand more")

    monkeypatch.setattr(PanelUser, "act", broken)
    counts = run_sequences(2, 5, lambda kind, text, steps: found.append((kind, len(steps), steps[0][0])))
    assert found == [("a fault", 3, "begin")] * counts["sequences"] and counts["steps"] == 3 * counts["sequences"]


def test_structures_that_have_become_surfaces_are_listed_as_before(tmp_path):
    user = PanelUser(tmp_path)
    try:
        user.act("begin", state="result")
        node, before = user.panel.state.node, user.panel.results.table.keys()
        user.act("edit_segments", index=0, segment=0, how="surface as source")
        assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")
        assert user.panel.results.table.keys() == before and len(before) == 6
        user.act("edit_segments", index=0, segment=0, how="remove")
        assert user.panel.results.table.keys() == before[1:]
    finally:
        user.close_application()
