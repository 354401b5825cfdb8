"""What a user does with models: see ``panel_user.py``."""

from __future__ import annotations

import shutil

from hypothesis import strategies as st
from panel_actions import Acting, action, number, yes
from slicer_application import ROOT, qt

MODELS = ("toy-120", "toy-1000", "own-two", "own-five", "totalsegmentator-3mm", "totalsegmentator-1.5mm")


class ModelActions(Acting):
    """Chooses, searches, drops, downloads and removes models."""

    @action(model=st.sampled_from(MODELS))
    def choose_model(self, model: str) -> None:
        box = self.panel.ui.modelComboBox
        if self.open and box.findData(model) >= 0:
            box.setCurrentIndex(box.findData(model))

    @action(index=number)
    def add_model(self, index: int) -> None:
        menu = self.panel.model_list.add_menu
        if self.open and len(self.panel.state.models) < 4:
            menu.aboutToShow.emit()
            actions = [action for action in menu.actions() if action.enabled]
            if actions:
                actions[index % len(actions)].trigger()

    @action(index=number, button=st.sampled_from(("", "modelUpButton", "modelDownButton", "removeModelButton")))
    def arrange_models(self, index: int, button: str) -> None:
        ui = self.panel.ui
        if self.open and not ui.modelsFrame.isHidden():
            ui.modelsListWidget.setCurrentRow(index % ui.modelsListWidget.count)
            if button:
                getattr(ui, button).click()

    @action(text=st.sampled_from(("", "toy", "cell 1000", "qqqq", "pancreas mr")))
    def search_models(self, text: str) -> None:
        if self.open:
            self.panel.ui.modelSearchBox.setText(text)

    @action(index=number)
    def choose_locating(self, index: int) -> None:
        box = self.panel.ui.locateComboBox
        if self.open:
            box.setCurrentIndex(index % box.count)

    @action(file=st.sampled_from(("two channels", "copy.zip", "evil.zip", "ct.nrrd")))
    def drop(self, file: str) -> None:
        path = self._two if file == "two channels" else self.folder / file
        if file == "copy.zip":
            shutil.copy(ROOT / "Resources" / "Models" / "toy-120.zip", path)
        elif file == "evil.zip":
            path.write_bytes(b"PK\x05\x06" + bytes(18))
        mime = qt.QMimeData()
        mime.setUrls([qt.QUrl.fromLocalFile(str(path))])
        event = qt.QDropEvent(qt.QPoint(5, 5), qt.Qt.CopyAction, mime, qt.Qt.LeftButton, qt.Qt.NoModifier)
        if self.open:
            self.panel.model_drop.eventFilter(self.panel.widget, event)

    @action(yes=yes)
    def remove_model(self, yes: bool) -> None:
        self.yes = yes
        if self.open:
            self.panel.models.remove()

    @action()
    def delete_a_dropped_model(self) -> None:
        (self.folder / "copy.zip").unlink(missing_ok=True)

    @action(yes=yes, file=st.sampled_from(("", "a", "arrives")))
    def download(self, yes: bool, file: str) -> None:
        self.yes, self.file = yes, file
        if self.open and not self.panel.ui.downloadButton.isHidden():
            self.panel.ui.downloadButton.click()

    @action()
    def read_catalogue_again(self) -> None:
        self.panel.models.reload()

    @action(opened=st.booleans())
    def read_card(self, opened: bool) -> None:
        (self.panel.models.show_card if opened else self.panel.models.close)()
