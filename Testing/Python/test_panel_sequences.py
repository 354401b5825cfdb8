"""Random sequences of user actions on the panel: see ``panel_user.py``."""

from panel_sequences import run_sequences
from panel_user import PanelUser


def test_random_sequences_leave_nothing_behind_and_the_panel_agrees_with_its_parameters():
    counts = run_sequences(sequences=20, steps=15)
    assert counts["sequences"] >= 20 and counts["runs finished"] > 0


def test_a_fault_is_noticed(monkeypatch):
    from ClassScaleSegPanel.runs.device_list import DeviceList

    monkeypatch.setattr(DeviceList, "render", lambda self, device: None)
    found = []
    for start in range(2026, 2036):  # few of the random steps touch the device
        run_sequences(20, 15, lambda kind, text, steps: found.append(kind), start)
        if found:
            break
    assert set(found) == {"disagree with what is shown: device"}


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
