"""What a user chooses in the panel: volumes, classes and options: see ``panel_user.py``."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from panel_actions import SEARCHES, Acting, action, leaves, number, toggle, yes
from panel_checks import NODES

REPORTS = ("", "", "*report", "*report", "*folder", "*a", "not whole", " ")  # with a star: in the folder of results
FOLDS = ("", "0", "0,1", "x", "all")


class ChoiceActions(Acting):
    """Fills in the controls, ticks classes, and lets scripts set the parameters."""

    @action(name=st.sampled_from(NODES), index=number)
    def choose(self, name: str, index: int) -> None:
        selector = self.widgets()[name]
        if self.open and (nodes := ([None] if selector.noneEnabled else []) + selector._nodes()):
            selector.setCurrentNode(nodes[index % len(nodes)])

    @action(index=number)
    def choose_fifth_channel(self, index: int) -> None:
        if self.open and len(self.panel.state.channels) == 5:
            selector = self.panel.channels.selector(5)
            nodes = [None, *selector._nodes()]
            selector.setCurrentNode(nodes[index % len(nodes)])

    @action(name=st.sampled_from(("region", "segmentation", "confidence", "statistics")))
    def create(self, name: str) -> None:
        if self.open:
            self.widgets()[name].addNode()

    @action(text=st.sampled_from(REPORTS), how=st.sampled_from(("type", "choose", "script")))
    def choose_report(self, text: str, how: str) -> None:
        folder = str(self.folder / "results" / text[1:]) if text.startswith("*") else text
        if how == "script":
            self.panel.logic.getParameterNode().report = folder
        elif self.open and how == "type":
            self.panel.ui.reportLineEdit.selectAll()
            self.panel.ui.reportLineEdit.insert(folder)
        elif self.open:
            self.folder_chosen = folder
            self.panel.ui.reportFolderButton.click()

    @action(index=number)
    def choose_in_a_list(self, index: int) -> None:
        if self.open:
            box = self.panel.ui.overlapComboBox if index % 4 < 2 else self.panel.ui.interpolationComboBox
            box.setCurrentIndex(index % 2)

    @action(
        choice=st.sampled_from(
            [("model", "gone"), ("model", ""), ("model", "toy-120"), ("classes", "cell 5\ncell 6"), ("classes", "x\ny")]
            + [("locateWith", "gone"), ("locateWith", "toy-120"), ("locateWith", "")]
            + [("moreModels", "toy-120"), ("moreModels", "gone\ntoy-1000"), ("moreModels", "")]
            + [
                ("step", 0.75),
                ("threads", 3),
                ("device", "cuda:7"),
                ("device", "server:https://gone:8471"),
                ("segmentation", None),
                ("inputVolume", None),
            ]
        )
    )
    def set_by_a_script(self, choice: tuple[str, Any]) -> None:
        setattr(self.panel.logic.getParameterNode(), *choice)

    @action(
        option=st.one_of(
            st.tuples(st.just("step"), st.sampled_from((0.1, 0.55, 1.0))),
            st.tuples(st.just("threads"), st.sampled_from((0, 1, 1024))),
            st.tuples(st.just("folds"), st.sampled_from(FOLDS)),
            st.tuples(st.just("memoryLimit"), st.sampled_from((0.0, 0.1, 1024.0))),
            st.tuples(st.just("smooth"), st.sampled_from((0.0, 1.5))),
            st.tuples(st.just("removeIslands"), st.sampled_from((0.0, 500.0))),
            st.tuples(st.sampled_from(("allFrames", "standardNames", "keepEmpty", "mirroring")), st.booleans()),
        )
    )
    def set_option(self, option: tuple[str, Any]) -> None:
        name, value = option
        widget = self.widgets()[name]
        if self.open:
            key = "checked" if isinstance(value, bool) else "text" if name == "folds" else "value"
            setattr(widget, key, value)

    @action(index=number)
    def choose_device(self, index: int) -> None:
        box = self.panel.ui.deviceComboBox
        if self.open:
            box.setCurrentIndex(index % box.count)

    @action(answers=st.integers(1, 2))
    def hear_of_server(self, answers: int) -> None:
        for _answer in range(answers):
            self.panel.servers.poll()

    @action()
    def ask_server_again(self) -> None:
        if self.open and not self.panel.ui.retryButton.isHidden():
            self.panel.ui.retryButton.click()

    @action(section=st.sampled_from(("classes", "advanced", "result")))
    def open_or_close_section(self, section: str) -> None:
        button = getattr(self.panel.ui, f"{section}CollapsibleButton")
        button.collapsed = not button.collapsed

    @action(index=number)
    def tick_class(self, index: int) -> None:
        if self.open:
            toggle(self.panel.class_list.table, index)

    @action(which=st.sampled_from(("all_button", "none_button")))
    def tick_all_or_none(self, which: str) -> None:
        if self.open:
            getattr(self.panel.class_list, which).click()

    @action(text=st.sampled_from(SEARCHES))
    def search(self, text: str) -> None:
        self.panel.class_list.table.search.text = text
        self.panel.results.table.search.text = text

    @action(menu=st.sampled_from(("group_menu", "preset_menu")), index=number, file=st.sampled_from(("", "a")), yes=yes)
    def use_menu(self, menu: str, index: int, file: str, yes: bool) -> None:
        self.yes, self.file, opened = yes, file, getattr(self.panel.class_list, menu)
        if self.open:
            opened.aboutToShow.emit()
            actions = [a for a in leaves(opened) if a.text]
            if actions:
                actions[index % len(actions)].trigger()
