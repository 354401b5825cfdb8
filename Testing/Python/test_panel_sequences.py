"""Random sequences of user actions on the panel: see ``panel_user.py``."""

from panel_sequences import run_sequences


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
