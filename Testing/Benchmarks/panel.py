"""Measure how fast the panel responds: import, search in 1000 classes, a whole run, cancel, results of 1000 segments.

    python Testing/Benchmarks/panel.py

The benchmark needs slicer-core and PySide6. Qt is PySide6 here but PythonQt in Slicer; the scene is Slicer's own.
``cancel.py`` measures cancelling without the panel, at every stage.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from measure import HERE, Bar, parse, report, undisturbed

sys.path[:0] = [str(HERE.parent / "Slicer"), str(HERE.parent / "Python")]

ROOT = HERE.parents[1]
IMPORT = """
import sys, time
sys.path.insert(0, "Testing/Slicer")
import standins
application = standins.start()
import numpy  # Slicer has loaded it
before, begin = set(sys.modules), time.perf_counter()
application.load_module("ClassScaleSeg/ClassScaleSeg.py")
seconds = time.perf_counter() - begin
heavy = {"torch", "nnunetv2", "SimpleITK"} & {name.partition(".")[0] for name in set(sys.modules) - before}
print(seconds, len(set(sys.modules) - before), len(heavy))
"""
TYPED = ("kidney", "left rib 7", "vertebra l", "10200004", "structure 99", "zzz")


def import_seconds(repeats: int) -> dict:
    """Return the median of several processes: seconds, modules loaded, and how many of them must not be loaded."""
    command = [sys.executable, "-c", IMPORT]
    lines = [subprocess.check_output(command, cwd=ROOT, text=True).split() for _ in range(repeats)]
    middle = sorted(lines, key=lambda line: float(line[0]))[len(lines) // 2]
    return {
        "what": "import of ClassScaleSeg.py",
        "seconds": float(middle[0]),
        "modules": int(middle[1]),
        "heavy": int(middle[2]),
    }


def search_seconds(classes: int) -> dict:
    """Time each key stroke of several searches, with the painting that follows it.

    ``computing`` is the longest processor time of a stroke. The rest of ``longest`` was spent waiting: for the threads
    by which Qt 6 paints scroll bars, and, unless it was ``undisturbed``, for other programs. Where these want more
    processors than there are, that takes tens of milliseconds.
    """
    from ClassScaleSegLib import LabelTable
    from ClassScaleSegPanel.models.class_list import ClassList
    from slicer_application import application

    known = LabelTable.from_csv(ROOT / "Resources" / "LabelTables" / "totalsegmentator.csv").names
    names = {value: known.get(value, f"structure {value}") for value in range(classes + 1)}
    listed = ClassList(lambda classes: None)
    begin = time.perf_counter()
    listed.set_table(LabelTable.from_names(names))
    filled = time.perf_counter() - begin
    listed.table.widget.resize(400, 600)
    listed.table.widget.show()
    application.processEvents()
    times, computing = [], []
    for text in TYPED:
        for length in [*range(1, len(text) + 1), 0]:
            begin, worked = time.perf_counter(), time.thread_time()
            listed.table.search.text = text[:length]
            application.processEvents()
            times.append(time.perf_counter() - begin)
            computing.append(time.thread_time() - worked)
    begin = time.perf_counter()
    listed.none_button.click()
    application.processEvents()
    ticked = time.perf_counter() - begin
    return {
        "what": f"search in {classes} classes, a key stroke",
        "seconds": statistics.median(times),
        "longest": max(times),
        "computing": max(computing),
        "filling_the_list": filled,
        "unticking_all": ticked,
    }


def run_seconds() -> list[dict]:
    """Time a whole run in the panel and the longest time it blocked the application; then cancel a second run."""
    import psutil
    from slicer_application import application, load_sample, module

    panel = application.make_widget(module).panel
    panel.ui.inputSelector.setCurrentNode(load_sample())
    holds = [_timed(panel.ui.applyButton.click)]
    begin = time.perf_counter()
    while panel.state.run is not None:
        time.sleep(0.1)
        holds.append(_timed(panel.runs.poll))
    rows = [{"what": "a run of the sample", "seconds": time.perf_counter() - begin, "longest": max(holds)}]
    panel.ui.segmentationSelector.setCurrentNode(None)  # otherwise the panel asks whether to replace its content
    panel.ui.applyButton.click()
    process = panel.state.run._process
    while not any(event.stage == "segment" for event in panel.state.run.poll()):
        time.sleep(0.01)
    child = psutil.Process(process.pid)
    tree = [child, *child.children(recursive=True)]
    seconds = _timed(panel.ui.cancelButton.click)
    gone = not any(one.is_running() for one in tree) and not process.work_folder.exists()
    rows.append({"what": "cancel by the button", "seconds": seconds if gone else float("inf")})
    application.widget.cleanup()
    return rows


def _timed(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def result_seconds(size: int, chosen: int) -> list[dict]:
    """Time what users do with a result of 1000 segments, the cells of ``seg_nrrd.py``.

    :param chosen: segments to show in 3D, spread over the image.
    """
    from ClassScaleSegLib import Geometry, LabelTable, Segmentation
    from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
    from ClassScaleSegLib.scene.surfaces import SURFACE, show_3d
    from seg_nrrd import frayed_cells
    from slicer_application import application, module, slicer

    cells, geometry = frayed_cells(size), Geometry((size,) * 3, (0.8, 0.8, 1.0), (0.0, 0.0, 0.0))
    first, second = (
        Segmentation(
            cells, LabelTable.from_names({0: "background", **{v: f"{name} {v}" for v in range(1, 1001)}}), geometry
        )
        for name in ("cell", "other")
    )
    counted = first.statistics()
    panel = application.make_widget(module).panel
    application.widget.parent.show()
    panel.ui.resultCollapsibleButton.collapsed = False
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Cells")

    def fill(segmentation: Segmentation) -> None:
        fill_segmentation_node(node, segmentation, replace=True, statistics=counted)
        application.processEvents()

    def choose() -> None:
        panel.state.parameters.segmentation = node
        application.processEvents()

    filled, opened = _timed(lambda: fill(first)), _timed(choose)
    ids = [node.GetSegmentation().GetNthSegmentID(index * 1000 // chosen) for index in range(chosen)]
    seconds = _timed(lambda: show_3d(node, ids))
    polygons = sum(node.GetSegmentation().GetSegment(i).GetRepresentation(SURFACE).GetNumberOfPolys() for i in ids)
    panel.state.parameters.segmentation = None
    panel.results.show(None, None)
    again, other = (_timed(lambda segmentation=segmentation: fill(segmentation)) for segmentation in (first, second))
    application.widget.cleanup()
    application.widget.parent.deleteLater()
    slicer.mrmlScene.RemoveNode(node)
    return [
        {"what": f"3D of {chosen} of 1000 segments at {size}^3", "seconds": seconds, "polygons": polygons},
        {"what": f"a result of 1000 segments at {size}^3 is opened", "seconds": opened, "voxels_counted": cells.size},
        {"what": "filling a new node with it", "seconds": filled},
        {"what": "replacing it by the same structures", "seconds": again},
        {"what": "replacing it by other structures", "seconds": other},
    ]


def compare_seconds(size: int) -> list[dict]:
    """Time the comparison of two segmentations of 1000 segments, and each key stroke of searches in its table."""
    from ClassScaleSegLib import Geometry, LabelTable, Segmentation
    from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
    from seg_nrrd import frayed_cells
    from slicer_application import application, module, slicer

    table = LabelTable.from_names({0: "background", **{value: f"cell {value}" for value in range(1, 1001)}})
    geometry, nodes = Geometry((size,) * 3, (0.8, 0.8, 1.0), (0.0, 0.0, 0.0)), []
    cells = frayed_cells(size)
    for name, voxels in (("Reference", cells), ("Other", cells[:, :, [0, 0, *range(size - 2)]])):
        nodes.append(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name))
        fill_segmentation_node(nodes[-1], Segmentation(voxels, table, geometry))
    panel = application.make_widget(module).panel
    application.widget.parent.show()
    panel.ui.compareCollapsibleButton.collapsed = False
    panel.ui.resultSelector.setCurrentNode(nodes[0])
    panel.ui.compareSelector.setCurrentNode(nodes[1])
    application.processEvents()

    def compare() -> None:
        panel.ui.compareButton.click()
        application.processEvents()

    seconds, times = _timed(compare), []
    rows, dice = panel.comparing.rows, [row.dice or 0 for row in panel.comparing.rows]
    for text in ("cell 9", "cell 123", "zzz"):
        for length in [*range(1, len(text) + 1), 0]:
            begin = time.perf_counter()
            panel.comparing.table.search.text = text[:length]
            application.processEvents()
            times.append(time.perf_counter() - begin)
    application.widget.cleanup()
    application.widget.parent.deleteLater()
    for node in nodes:
        segmentation = node.GetSegmentation()
        for identifier in segmentation.GetSegmentIDs():  # a segment that is removed would copy the image that it shares
            segmentation.GetSegment(identifier).RemoveAllRepresentations()
        slicer.mrmlScene.RemoveNode(node)
    return [
        {"what": f"two of 1000 segments at {size}^3 are compared", "seconds": seconds, "structures": len(rows)},
        {"what": "search in that table, a key stroke", "seconds": statistics.median(times), "longest": max(times)},
        {"what": "mean Dice of the comparison", "dice": statistics.mean(dice)},
    ]


def main() -> int:
    options = parse(__doc__, "panel")
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ["CLASSSCALESEG_MODELS"] = tempfile.mkdtemp(dir=options.root)
    import slicer_application  # noqa: F401  starts the stand-ins, which importing the panel needs

    imported = import_seconds(1 if options.quick else 5)
    with undisturbed() as quiet:
        searched = search_seconds(1000)
        results = result_seconds(64 if options.quick else 256, 10)
        compared, typed, _dice = comparison = compare_seconds(64 if options.quick else 256)
    for row in (searched, *results, *comparison):
        row["undisturbed"] = quiet
    run, cancelled = run_seconds()
    shown, opened, _filled, _again, replaced = results
    bars = [
        Bar("seconds that importing the module adds", imported["seconds"], 0.1),
        Bar("torch, nnunetv2 or SimpleITK loaded by it", imported["heavy"], 0),
        Bar("seconds a key stroke in 1000 classes, the longest", searched["longest"], 0.01),
        Bar("seconds to cancel, processes gone and folder removed", cancelled["seconds"], 2.0),
        Bar("seconds for 3D of 10 of 1000 segments at 256^3", shown["seconds"], 3.0),
        Bar("seconds to open a result of 1000 segments at 256^3", opened["seconds"], 0.3),
        Bar("seconds to replace a result of 1000 segments by another", replaced["seconds"], 1.0),
        Bar("seconds to compare two of 1000 segments at 256^3", compared["seconds"], 1.0),
        Bar("seconds a key stroke in that table, the longest", typed["longest"], 0.01),
        Bar("structures compared", compared["structures"], 1000, at_least=True),
        Bar("polygons in it", shown["polygons"], 10_000 if not options.quick else 100, at_least=True),
    ]
    return report(options, "panel", [imported, searched, run, cancelled, *results, *comparison], bars)


if __name__ == "__main__":
    sys.exit(main())
