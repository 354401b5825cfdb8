"""Ask for a folder, beginning with the one that was chosen last."""

from __future__ import annotations

import qt
import slicer

TRAINING_FOLDER = "ClassScaleSeg/TrainingFolder"  # setting: where cases for training are saved


def ask_folder(title: str, setting: str) -> str:
    """Let the user choose a folder, and remember it in Slicer's settings, for all scenes; empty if the user cancels.

    :param setting: the name under which it is remembered.
    """
    settings = slicer.app.userSettings()
    before = str(settings.value(setting) or slicer.mrmlScene.GetRootDirectory() or "")
    chosen = str(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, before) or "")
    if chosen:
        settings.setValue(setting, chosen)
    return chosen
