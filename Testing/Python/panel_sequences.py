"""Random sequences of what a user can do in the panel, as a stateful test of hypothesis: see ``panel_user.py``.

run_sequences(20, 15, lambda kind, text, steps: print(kind, steps))
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from panel_actions import ACTIONS
from panel_user import BEGINNINGS, PanelFault, PanelUser

# called with the kind of a fault, its text, and the steps that led to it
OnFault = Callable[[str, str, list[tuple[str, dict[str, Any]]]], None]


class PanelSequence(RuleBasedStateMachine):
    """One sequence. After its first fault nothing more is done.

    :cvar counts: "sequences" and "steps" that were done, each action by its name, and runs by how they ended.
    :cvar on_fault: called at a fault; by default it is raised.
    """

    counts: Counter[str] = Counter()
    on_fault: OnFault | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.broken = Path(tempfile.mkdtemp(prefix="panel-sequence-")), False
        self.user = PanelUser(self.folder)

    def attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except PanelFault as fault:
            self.broken = True
            if self.on_fault is None:
                raise
            text = str(fault)
            type(self).on_fault(text.splitlines()[0], text, self.user.steps)

    def act(self, name: str, arguments: dict[str, Any]) -> None:
        if not self.broken:
            self.counts.update((name, "steps"))
            self.attempt(lambda: self.user.act(name, **arguments))

    @initialize(state=st.sampled_from(BEGINNINGS))
    def begin(self, state: str) -> None:
        self.act("begin", {"state": state})

    def teardown(self) -> None:
        self.counts["sequences"] += 1
        if self.broken:
            try:
                self.user.close_application()
            except PanelFault:
                pass  # the sequence has had its fault
        else:
            self.attempt(self.user.close_application)
        self.counts.update(f"runs {state}" for state in self.user.ended)
        shutil.rmtree(self.folder, ignore_errors=True)


def _rule(name: str) -> Callable[..., None]:
    def perform(self: PanelSequence, **arguments: Any) -> None:
        self.act(name, arguments)

    perform.__name__ = perform.__qualname__ = name
    return rule(**ACTIONS[name])(perform)


def run_sequences(sequences: int, steps: int, on_fault: OnFault | None = None, start: int = 2026) -> Counter[str]:
    """Run random sequences, the same ones for the same ``start``, and return the counts of `PanelSequence`.

    :raises PanelFault: at the first fault, reduced to few steps, unless there is an ``on_fault``.
    """
    members: dict[str, Any] = {name: _rule(name) for name in ACTIONS}
    members |= {"counts": Counter(), "on_fault": staticmethod(on_fault) if on_fault else None}
    machine = type("PanelSequence", (PanelSequence,), members)
    phases = [Phase.generate] if on_fault else [Phase.generate, Phase.shrink]
    run_state_machine_as_test(
        seed(start)(machine),
        settings=settings(
            max_examples=sequences,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return machine.counts
