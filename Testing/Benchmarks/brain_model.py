"""Measure the embedded brain model: every structure, unseen people, the sample in the panel, and one real image.

    python training/embedded_models/prepare_brain_data.py --atlas .../spl_brain --individuals .../synthseg_labels
    python Testing/Benchmarks/brain_model.py [--quick] [--root FOLDER]

* Dice of each structure on unseen synthesised heads of the atlas subject, and of coarse sets on individuals 11 to 14,
  who were not used for training (``training/embedded_models/evaluate_brain_model.py``; its results are kept in the root
  folder).
* Seconds and memory from Apply to a complete segmentation node for the sample ``head-mr``, on two threads. The panel
  runs on the stand-ins of Testing/Slicer; the scene is Slicer's own. The memory is that of both processes.
* A picture of the MNI template of ``neuroparc_mni``, the average of the heads of 152 people, without the skull. It has
  no labels to compare with, so the picture is for visual inspection.

The results are ``results/head-mr-312.json`` and ``results/head-mr-312-mni.png``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import DATA, HERE, Bar, parse, report, run_job

ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "training" / "embedded_models"), str(HERE.parent / "Slicer"), str(HERE.parent / "Python")]

MODEL = ROOT / "Resources" / "Models" / "head-mr-312.zip"
LABEL_MAPS = Path(".benchmarks") / "brain" / "label_maps.npz"
TEMPLATE = DATA / "neuroparc_mni" / "MNI152NLin6_res-1x1x1_T1w_descr-brain.nii.gz"


def evaluation(root: Path, quick: bool) -> dict[str, Any]:
    """Return the results of ``evaluate_brain_model.py``; they are kept in the root folder for each model file."""
    from evaluate_brain_model import main as evaluate

    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()[:16]
    kept = root / f"{digest}{'-quick' * quick}.json"
    cases = ["--heads", "1", "--each", "1"] if quick else []
    if not kept.exists() and evaluate([str(MODEL), "--label-maps", str(LABEL_MAPS), "--output", str(kept), *cases]):
        raise SystemExit(f"{MODEL.name} could not be evaluated.")
    return json.loads(kept.read_text())


def panel_job(root: Path) -> dict[str, Any]:
    """Run the sample in the panel, in a separate process, and return the figures."""
    kept = root / "panel.json"
    job = run_job([sys.executable, __file__, "--task", json.dumps({"output": str(kept)})], threads=2)
    return {**json.loads(kept.read_text()), "peak_GiB": round(job.peak / 2**30, 3)}


def run_in_panel(output: str) -> None:
    """Click Apply, wait, and write the seconds and the number of non-empty segments to a file."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    with tempfile.TemporaryDirectory() as models:
        os.environ["CLASSSCALESEG_MODELS"] = models
        import slicer_application as stand_in

        stand_in.SAMPLE = ROOT / "Resources" / "SampleData" / "head-mr.nrrd"
        panel = stand_in.application.make_widget(stand_in.module).panel
        panel.ui.inputSelector.setCurrentNode(stand_in.load_sample("head-mr"))
        panel.store(model="head-mr-312")
        begin = time.perf_counter()
        panel.ui.applyButton.click()
        while panel.state.run is not None:
            time.sleep(0.05)
            panel.runs.poll()
        seconds = time.perf_counter() - begin
        node = panel.ui.segmentationSelector.currentNode()
        labels, _ = stand_in.shared_labels(node)
        found = {"segments": node.GetSegmentation().GetNumberOfSegments(), "non_empty": len(np.unique(labels)) - 1}
        stand_in.application.widget.cleanup()
    Path(output).write_text(json.dumps({"what": "sample in the panel", "seconds": round(seconds, 1), **found}))


def template_picture(quick: bool, root: Path) -> dict[str, Any]:
    """Segment the template, draw it, and return the figures."""
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.commands.demo import draw

    begin = time.perf_counter()
    result = segment(TEMPLATE, open_model(MODEL), device="cpu")
    seconds = time.perf_counter() - begin
    draw(TEMPLATE, result, (root if quick else HERE / "results") / "head-mr-312-mni.png")
    found = len(np.unique(result.labels)) - 1
    return {"what": "MNI template, 182 x 218 x 182", "seconds": round(seconds, 1), "non_empty": found}


def main() -> int:
    options = parse(__doc__, "brain_model")
    if options.task:
        run_in_panel(**options.task)
        return 0
    figures, sample = evaluation(options.root, options.quick), panel_job(options.root)
    atlas, individuals = figures["atlas"], figures["individuals"]
    least = atlas["least_voxels"]
    summary = {"structures": atlas["structures_as_large"], "dice": atlas["dice"], "pooled_dice": atlas["pooled_dice"]}
    rows = [
        {"what": f"structures of at least {least} voxels", "kind": "summary", **summary},
        {"what": "all structures", "kind": "summary", "structures": 311, "dice": atlas["dice_of_all"]},
        {**sample, "kind": "job"},
        {**template_picture(options.quick, options.root), "kind": "job"},
        *({"what": name, "kind": "bar", **dice} for name, dice in individuals["bars"].items()),
        *({"what": row["name"], "kind": "set", **_dice(row)} for row in individuals["sets"]),
        *(
            {"what": row["name"], "kind": "structure", "group": row["group"], "voxels": row["voxels"], **_dice(row)}
            for row in atlas["structures"]
        ),
    ]
    bars = [
        Bar(f"mean Dice, {summary['structures']} structures of {least} voxels or more", atlas["dice"], 0.70, True),
        *(Bar(f"individuals: Dice of {what}", dice["dice"], 0.75, True) for what, dice in individuals["bars"].items()),
        Bar("sample: seconds from Apply to the node", sample["seconds"], 180),
        Bar("sample: GiB, both processes", sample["peak_GiB"], 2.0),
        Bar("sample: segments that are not empty", sample["non_empty"], 250, True),
    ]
    return report(options, "head-mr-312", rows, bars)


def _dice(row: dict[str, Any]) -> dict[str, Any]:
    return {"dice": row["dice"], "pooled_dice": row["pooled_dice"]}


if __name__ == "__main__":
    sys.exit(main())
