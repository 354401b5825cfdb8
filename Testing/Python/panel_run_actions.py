"""What a user does with runs: see ``panel_user.py``."""

from __future__ import annotations

import time

from ClassScaleSegLib.errors import ClassScaleError
from hypothesis import strategies as st
from panel_actions import Acting, action, leaves, number, toggle, yes
from panel_child import HOWS, ORDINARY
from slicer_application import application


class RunActions(Acting):
    """Fills the queue, starts and cancels runs, also by a script, and opens their reports."""

    @action(spoil=st.sampled_from(("", "", "{", '{"toy-120": {"step": 9, "classes": "x"}}')))
    def use_last_choice(self, spoil: str) -> None:
        if spoil:
            application.settings.setValue("ClassScaleSeg/LastChoices", spoil)
        menu = self.panel.ui.modelMenuButton.menu()
        menu.aboutToShow.emit()
        entry = menu.actions()[0]
        if self.open and entry.enabled:
            entry.trigger()
            menu.aboutToShow.emit()
            self.demand(not entry.enabled, "the last choice was not used", entry.toolTip)

    @action(there=st.booleans())
    def open_report(self, there: bool) -> None:
        page = self.panel.state.page
        if self.open and page is not None:
            if not there:
                page.unlink(missing_ok=True)
            self.opened.clear()
            self.panel.ui.reportButton.click()
            self.demand(self.opened == [str(page)] * page.is_file(), "another page was opened", self.opened)

    @action(what=st.sampled_from(("all", "folder", "empty")), index=number)
    def queue_volumes(self, what: str, index: int) -> None:
        queue = self.panel.queue
        if self.open and self.panel.state.run is None:
            queue.add_menu.aboutToShow.emit()
            actions = [action for action in leaves(queue.add_menu) if action.text and action.enabled]
            if what == "empty":
                queue.empty_button.click()
            elif actions:
                actions[0 if what == "all" else index % len(actions)].trigger()

    @action(index=number)
    def tick_volume(self, index: int) -> None:
        if self.open and self.panel.state.run is None:
            toggle(self.panel.queue.table, index)

    @action(how=st.sampled_from((*HOWS[:-1], *HOWS[:5], "finish", "finish", "unstartable")), yes=yes)
    def apply(self, how: str, yes: bool) -> None:
        self.children.how, self.yes = how, yes
        if self.open:
            self.panel.ui.applyButton.click()

    @action(how=st.sampled_from(ORDINARY), yes=yes)
    def segment(self, how: str, yes: bool) -> None:
        self.apply(how, yes)
        self.let_finish()

    @action()
    def let_go_on(self) -> None:
        time.sleep(0.03)
        self.panel.runs.poll()

    @action()
    def let_finish(self) -> None:
        hanging = self.children.latest in ("hang", "deaf")
        end = time.monotonic() + (0.1 if hanging else 10)
        while self.panel.state.run is not None and time.monotonic() < end:
            time.sleep(0.005)
            self.panel.runs.poll()
        self.demand(hanging or self.panel.state.run is None, "a run does not end")

    @action()
    def cancel(self) -> None:
        self.panel.ui.cancelButton.click()

    @action(index=number, how=st.sampled_from(("finish", "error", "hang")))
    def start_a_script(self, index: int, how: str) -> None:
        self.children.how = how
        if self.script is None and (volume := self.pick(index, "vtkMRMLScalarVolumeNode")):
            try:
                self.script = self.panel.logic.start(self.panel.logic.request(volume, "toy-120"))
            except ClassScaleError:
                self.script = None

    @action(cancel=st.booleans())
    def end_the_script(self, cancel: bool) -> None:
        if self.script is not None:
            end = time.monotonic() + 0.2
            while not cancel and self.script.state == "running" and time.monotonic() < end:
                time.sleep(0.005)
                self.script.poll()
            self.script.cancel()
            self.script = None
