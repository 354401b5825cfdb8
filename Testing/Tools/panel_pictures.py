"""Make pictures of the panel for inspection: after a run of the sample, in a narrow window, and at 300 % scaling.

    python Testing/Tools/panel_pictures.py FOLDER

A copy of ``panel.png`` is in Resources/Screenshots. Fonts and colours differ from those in Slicer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# file, width in pixels before scaling, scale factor, source of the list of classes
PICTURES = (("panel.png", 440, "1", "model"), ("narrow.png", 350, "1", "anatomy"), ("scaled.png", 440, "3", "anatomy"))


def draw(file: Path, width: int, classes: str) -> None:
    """Write a picture of the panel.

    :param width: pixels, before scaling.
    :param classes: "model": run the sample, and tick two structures. "anatomy": show a list with long names, and the
        section "Advanced".
    """
    sys.path[:0] = [str(ROOT / "Testing" / "Python")]
    from slicer_application import application, load_sample, module

    panel = application.make_widget(module)
    panel.ui.inputSelector.setCurrentNode(load_sample())
    if classes == "anatomy":  # has the longest names, codes and groups
        from ClassScaleSegLib import LabelTable

        panel.classList.set_table(LabelTable.from_csv(ROOT / "Resources" / "LabelTables" / "totalsegmentator.csv"))
        panel.classList.table.search.text = "left"
        panel.ui.advancedCollapsibleButton.collapsed = False
    else:
        panel.ui.applyButton.click()
        while panel.state.run is not None:
            application.processEvents()
            time.sleep(0.05)
        panel.results.table.tick(["Segment_3", "Segment_4"])
    holder = panel.parent
    holder.layout().setContentsMargins(4, 4, 4, 4)
    holder.resize(width, 200)
    holder.show()
    application.processEvents()
    holder.resize(width, holder.sizeHint().height())
    application.processEvents()
    if not holder.grab().save(str(file)):
        raise SystemExit(f"{file} could not be written.")
    print(f"{file}: {holder.width} pixels wide, {width} requested")
    panel.cleanup()


def main() -> int:
    """Draw all pictures, each in a process of its own, because Qt reads the scale factor only once."""
    if len(sys.argv) == 4:
        draw(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
        return 0
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, scale, classes in PICTURES:
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "QT_SCALE_FACTOR": scale}
        subprocess.run([sys.executable, __file__, str(folder / name), str(width), classes], env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
