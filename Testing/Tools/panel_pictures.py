"""Make pictures of the panel for inspection: narrow and wide, at 200 % and 300 % scaling, light and dark.

    python Testing/Tools/panel_pictures.py FOLDER
    python Testing/Tools/panel_pictures.py FOLDER de     # in German

Copies of ``panel.png``, ``correction-bar.png``, ``train.png``, ``compare-models.png``, ``review-cases.png`` and
``archive.png`` are in Resources/Screenshots. Fonts and colours differ from those in Slicer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# file, width in pixels before scaling, scale factor, source of the list of classes, theme
PICTURES = (
    ("panel.png", 440, "1", "model", "light"),
    ("correction-bar.png", 440, "1", "correcting", "light"),
    ("train.png", 520, "1", "training", "light"),
    ("trained.png", 520, "1", "trained", "light"),
    ("compare-models.png", 520, "1", "models", "light"),
    ("review-cases.png", 600, "1", "review", "light"),
    ("archive.png", 760, "1", "archive", "light"),
    ("watch.png", 760, "1", "watch", "light"),
    ("confidence.png", 350, "1", "confidence", "light"),
    ("350.png", 350, "1", "anatomy", "light"),
    ("371.png", 371, "1", "model", "dark"),
    ("426.png", 426, "1", "long", "light"),
    ("200-percent.png", 371, "2", "long", "dark"),
    ("300-percent.png", 426, "3", "anatomy", "light"),
    ("several.png", 371, "1", "several", "light"),
    ("several-dark.png", 371, "1", "several", "dark"),
    ("several-200-percent.png", 371, "2", "several", "dark"),
)
LANGUAGE = "PANEL_LANGUAGE"  # environment variable for the processes


def darken(qt: Any) -> None:
    """Give the application a dark theme, as Slicer has one."""

    palette, roles = qt.QPalette(qt.QColor(53, 53, 53)), qt.QPalette
    for role, grey in ((roles.Base, 35), (roles.AlternateBase, 53), (roles.Window, 53), (roles.Button, 66)):
        palette.setColor(role, qt.QColor(grey, grey, grey))
    for role in (roles.Text, roles.WindowText, roles.ButtonText):
        palette.setColor(role, qt.QColor(230, 230, 230))
        palette.setColor(roles.Disabled, role, qt.QColor(120, 120, 120))
    palette.setColor(roles.Highlight, qt.QColor(42, 130, 218))
    palette.setColor(roles.Link, qt.QColor(90, 170, 255))
    qt.QApplication.setStyle("Fusion")
    qt.QApplication.setPalette(palette)


def draw(file: Path, width: int, classes: str, theme: str) -> None:
    """Write a picture of the panel.

    :param width: pixels, before scaling.
    :param classes: "model": run the sample, tick two structures, and show the section "Advanced". "anatomy": show a
        list with long names, and the section "Advanced". "long": the same with two channels, a volume and a message
        whose names are very long. "confidence": run the sample, and colour its structures by their confidence.
        "several": run two models on two volumes and a broken one, compare the results, and show every section.
        "correcting": the bar above the Segment Editor, after a run. "training": the dialog in which a model is trained.
        "trained": the same at the end of a training. "models": the dialog in which two are compared. "archive": that in
        which series are fetched from an archive. "watch": that in which an archive is watched.
    :param theme: "light" or "dark".
    """
    sys.path[:0] = [str(ROOT / "Testing" / "Python")]
    from slicer_application import application, load_sample, module, qt, slicer
    from standins.application import ModulePanel

    if theme == "dark":
        darken(qt)
    application.applicationLocaleName = os.environ.get(LANGUAGE, "en_US")
    from ClassScaleSegPanel.translation import load_translations

    load_translations()
    panel = application.make_widget(module).panel
    long = "a name that somebody has made much too long " * 4
    volume = load_sample(f"CT with {long}" if classes == "long" else "CT")
    panel.ui.inputSelector.setCurrentNode(volume)
    if classes in ("anatomy", "long"):  # the table with the longest names, codes and groups
        from ClassScaleSegLib import LabelTable

        panel.class_list.set_table(LabelTable.from_csv(ROOT / "Resources" / "LabelTables" / "totalsegmentator.csv"))
        panel.class_list.table.search.text = "left"
        panel.ui.advancedCollapsibleButton.collapsed = False
    if classes == "long":
        volume.SetSpacing(1, 1, 9)
        panel.state.status = f"{volume.GetName()} could not be segmented: <b>{long}</b>"
        panel.runs.render()
        panel.channels.render(panel.state.parameters, ("T1", long))
    if classes == "model":
        panel.ui.advancedCollapsibleButton.collapsed = False
        run(panel, application)
        panel.results.table.tick(["Segment_3", "Segment_4"])
    if classes == "confidence":
        panel.store(confidence=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence"))
        run(panel, application)
        panel.ui.colorsComboBox.setCurrentIndex(1)
        panel.results.table.view.sortByColumn(2, qt.Qt.AscendingOrder)
        for button in (panel.ui.nextButton, panel.ui.checkedButton, panel.ui.checkedButton):
            button.click()
    if classes == "several":
        show_several(panel, application)
    if classes == "correcting":
        run(panel, application)
        save(correction_bar(panel, application, width), file)
        application.widget.cleanup()
        return
    if classes in ("training", "trained"):
        save(training_dialog(panel, application, classes == "trained"), file)
        application.widget.cleanup()
        return
    if classes == "models":
        save(models_dialog(panel, application), file)
        application.widget.cleanup()
        return
    if classes == "review":
        save(review_dialog(panel, application), file)
        application.widget.cleanup()
        return
    if classes in ("archive", "watch"):
        save({"archive": archive_dialog, "watch": watch_dialog}[classes](panel, application), file)
        application.widget.cleanup()
        return
    window = ModulePanel(application.widget.parent)
    window.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    bar = window.verticalScrollBar().sizeHint().width()
    window.resize(width - bar, 900)
    window.show()
    for _round in range(4):  # heights follow widths
        application.processEvents()
    content = window.widget()
    window.resize(width - bar, content.sizeHint().height())
    for _round in range(4):
        application.processEvents()
    save(content, file)
    least = window.minimumSizeHint().width()
    print(f"{file}: {content.width} pixels without the scroll bar of {bar}; the panel needs {least} with it")
    application.widget.cleanup()
    window.release()


def save(widget: Any, file: Path) -> None:
    """Write a picture of a widget. A panel has few colours, so a palette takes less than half the bytes."""
    from PIL import Image

    if not widget.grab().save(str(file)):
        raise SystemExit(f"{file} could not be written.")
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(file, optimize=True)


def correction_bar(panel: Any, application: Any, width: int) -> Any:
    """Return the bar above the Segment Editor, while it corrects a structure."""
    from slicer_application import slicer

    correcting, editor = panel.results.correcting, slicer.modules.segmenteditor.widgetRepresentation()
    fault = correcting.begin(panel.state.node, "Segment_3")
    if fault:
        raise SystemExit(fault)
    editor.resize(width, 400)
    editor.show()
    for _round in range(4):
        application.processEvents()
    return correcting.bar.widget


def training_dialog(panel: Any, application: Any, done: bool) -> Any:
    """Return the dialog in which a model is trained, with two cases; nothing is trained.

    :param done: at the end of a training, with figures that are made up.
    """
    from ClassScaleSegLib.process import Event
    from slicer_application import slicer

    folder = Path(tempfile.mkdtemp()) / "corrected"
    (folder / "segmentations").mkdir(parents=True)
    for name in ("CT_1", "CT_2"):
        (folder / "segmentations" / f"{name}.seg.nrrd").touch()
    slicer.app.userSettings().setValue("ClassScaleSeg/TrainingFolder", str(folder))
    panel.training.open()
    shown = panel.training
    shown.folder.text, shown.output.text = "/data/corrected", "/data/mine.zip"
    shown.cases.text = "2 cases, the latest of which is CT_2."
    shown.process = SimpleNamespace(cancel=int, close=int, log="")
    shown._follow(Event("progress", "train", 12, 100, remaining=5400))
    if done:
        dices = {"cell 1": (0.91, 0.94), "cell 2": (0.88, 0.87), "cell 3": (0.72, 0.85), "a new cell": (None, 0.79)}
        structures = [{"name": name, "cases": 2, "dice": dice} for name, dice in dices.items()]
        result = {"cases": ["a", "b"], "structures": structures, "mean_dice_of_all": [0.837, 0.887]}
        made = {"output": shown.output.text, **result}
        shown.process = SimpleNamespace(poll=list, state="finished", result=made, close=int, log="", cancel=int)
        shown.validate.checked = True
        shown.poll()
    shown.render()
    shutil.rmtree(folder.parent)
    shown.dialog.adjustSize()
    for _round in range(4):
        application.processEvents()
    return shown.dialog


def models_dialog(panel: Any, application: Any) -> Any:
    """Return the dialog in which two models are compared, at the end, with figures that are made up."""
    shown = panel.model_comparison
    shown.open()
    shown.second.setCurrentIndex(shown.second.findData("toy-1000"))
    shown.folder.text, shown.cases.text = "/data/corrected", "2 cases, the latest of which is CT_2."
    dices = {"cell 1": (0.91, 0.94), "cell 2": (0.88, 0.87), "cell 3": (0.72, 0.85), "a new cell": (None, 0.79)}
    structures = [{"name": name, "cases": 2, "dice": dice} for name, dice in dices.items()]
    result = {"names": [shown.first.currentText, shown.second.currentText], "cases": ["a", "b"], "faults": []}
    result |= {"structures": structures, "mean_dice": [0.837, 0.862], "mean_dice_of_all": [0.837, 0.887]}
    folder = Path(tempfile.mkdtemp())
    (folder / "models.csv").write_text("figures")
    process = SimpleNamespace(poll=list, state="finished", work_folder=folder, close=int, log="", cancel=int)
    process.result = result | {"without_common_classes": []}
    shown.process = process
    shown.poll()
    shutil.rmtree(folder)
    shown.dialog.adjustSize()
    for _round in range(4):
        application.processEvents()
    return shown.dialog


def review_dialog(panel: Any, application: Any) -> Any:
    """Return the dialog that goes through cases, with figures that are made up."""
    from ClassScaleSegLib.images.case_claim import Claim
    from ClassScaleSegLib.images.review_state import ReviewState
    from ClassScaleSegLib.process import Agreement
    from ClassScaleSegLib.scene.case_files import CaseFiles

    shown, names = panel.case_review, [f"CT_{number:03}" for number in range(1, 9)]
    shown.open()
    shown.images.text, shown.segmentations.text = "/data/scans", "/data/results"
    shown.confidences.text, shown.reader.text, shown.others.text = "/data/confidence", "Ben", "/data/anna"
    listed = shown._cases
    listed._cases = {name: CaseFiles(name, (), Path(f"{name}.seg.nrrd")) for name in names}
    done = {name: ReviewState(104, 104, None, (reader,)) for name, reader in zip(names, ("Ben", "Anna"), strict=False)}
    left = {name: ReviewState(104 - number, 0, 0.61 + number / 50) for number, name in enumerate(names[3:])}
    listed._states = {**done, names[2]: ReviewState(103, 17, 0.74, ("Ben",)), **left}
    found = [Agreement("Spleen", 0.91), Agreement("Duodenum", 0.62), Agreement("Adrenal gland left", 0.44)]
    listed._agreements = {name: (each, ()) for name, each in zip(names, found, strict=False)}
    listed._claims = dict.fromkeys(names) | {names[3]: Claim("Anna", "reading-room-2", datetime.now())}
    shown.opened = SimpleNamespace(files=listed.get(names[2]))
    shown._say(f"{names[2]} is open.")
    shown._fill()
    shown.table.go_to(names[2])
    for _round in range(4):
        application.processEvents()
    shown.opened = None
    return shown.dialog


def archive_dialog(panel: Any, application: Any) -> Any:
    """Return the dialog in which series are fetched from an archive, during a fetch; nothing is fetched."""
    from ClassScaleSegLib.process import Event
    from ClassScaleSegPanel.archives.fetching import FoundSeries

    shown = panel.archive
    shown.open()
    shown.access.address.setEditText("https://pacs.example.org/dicom-web")
    shown.access.user.text, shown.access.secret.text = "me", "password"
    shown.criteria.name.text, shown.criteria.first.text = "smith", "2026-01-01"
    shown.criteria.modality.setEditText("CT")
    shown.folder.text = "/data/fetched"
    for number, (name, title, images) in enumerate(
        [("Smith John", "venous", 512), ("Smith John", "arterial, thin slices", 1024), ("Smithson Joe", "lung", None)]
    ):
        study = f"2026-01-0{3 + number // 2} CT Abdomen"
        shown.found[str(number)] = FoundSeries(str(number), "1", name, study, f"CT: {title}", images)
    shown._states = {"0": ("fetched", (60, 160, 60)), "1": ("fetching", (60, 110, 200))}
    shown.process, shown._fetching = SimpleNamespace(cancel=int, close=int), True
    shown._list()
    shown.table.tick(["1"])
    shown._at, shown._count = 2, 2
    shown._follow(Event("progress", "fetch", 300, 1024))
    shown.render()
    for _round in range(4):
        application.processEvents()
    return shown.dialog


def watch_dialog(panel: Any, application: Any) -> Any:
    """Return the dialog in which an archive is watched, while it is; nothing is asked."""
    from ClassScaleSegLib.process import Event

    shown = panel.watch
    shown.open()
    shown.access.address.setEditText("https://pacs.example.org/dicom-web")
    shown.access.user.text, shown.access.secret.text = "me", "password"
    shown.folder.text = "/data/watched"
    uid, day = "1.2.840.113619.2.5", "2026-12-08"
    reasons = (("failed", "511 of 512 images are there."), ("segmented", "its disk is full. Tell its administrator."))
    failed = [
        {"series": f"{uid}.{17 + number}", "state": state, "time": f"{day} 03:12:0{number}", "reason": reason}
        for number, (state, reason) in enumerate(reasons)
    ]
    look = {"time": f"{day} 09:12:40", "fault": "", "due": 2, "arriving": 1, "series": f"{uid}.21"}
    shown.process, shown._answered = SimpleNamespace(cancel=int, close=int), True
    states = {"done": 312, "left out": 4, "segmented": 1, "failed": 1}
    facts = {"look": {**look, "since": f"{day} 09:12:41"}, "states": states, "failed": failed, "faults": []}
    shown._follow(Event("result", facts=facts))
    shown.render()
    for _round in range(4):
        application.processEvents()
    return shown.dialog


def run(panel: Any, application: Any) -> None:
    """Press Apply, and wait."""
    panel.ui.applyButton.click()
    while panel.state.run is not None:
        application.processEvents()
        time.sleep(0.05)


def show_several(panel: Any, application: Any) -> None:
    """Run two models on three volumes, of which one is broken, and compare two results; open every section."""
    import numpy as np
    from slicer_application import add_volume, load_sample, slicer

    add_volume(np.full((20, 20, 20), np.nan, np.float32), "Broken")
    volumes = [node for node in (load_sample("CT 2025"), *slicer.mrmlScene.GetNodes()) if hasattr(node, "GetSpacing")]
    panel.choose_models(("toy-120", "toy-1000"))
    panel.queue.add(dict.fromkeys((node.GetID(), node.GetName()) for node in volumes))
    run(panel, application)
    results = [node for node in slicer.mrmlScene.GetNodes() if node.GetClassName() == "vtkMRMLSegmentationNode"]
    panel.ui.compareSelector.setCurrentNode(next(node for node in results if node is not panel.state.node))
    panel.ui.compareButton.click()
    for section in ("queue", "advanced", "result", "compare", "log"):
        getattr(panel.ui, f"{section}CollapsibleButton").collapsed = False


def main() -> int:
    """Draw all pictures, each in a process of its own, because Qt reads the scale factor only once."""
    if len(sys.argv) == 5:
        draw(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
        return 0
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    language = sys.argv[2] if len(sys.argv) > 2 else "en_US"
    for name, width, scale, classes, theme in PICTURES:
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "QT_SCALE_FACTOR": scale, LANGUAGE: language}
        command = [sys.executable, __file__, str(folder / name), str(width), classes, theme]
        subprocess.run(command, env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
