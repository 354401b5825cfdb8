"""Pack a training as the embedded brain model ``Resources/Models/head-mr-312.zip``, with labels, codes and model card.

    python training/embedded_models/pack_brain_model.py --hardware "one NVIDIA H100" --atlas-licence LICENSE.txt

The card states what ``evaluate_brain_model.py`` measured (``--evaluation``) for each structure, and what
``Testing/Benchmarks/miccai2012.py embedded`` measured on real heads (``--real-heads``). The bundle holds weights in
8 bits, so both must be measured with such weights (``classscaleseg pack --bits 8``). The licence of the atlas demands
that its conditions accompany everything derived from it, so the card ends with them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classscale_training.data.brain import BrainTables
from ClassScaleSegLib import Code, Label, LabelTable
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.labels.label import segment_id
from embedded_models import BRAIN, CHECKPOINT, RESOURCES, option, pack_with_card, read_log, run

NAME = "Head MR, 311 structures"  # as in the catalogue; the 312th class is the background
LICENCE = "3D Slicer License (SPL brain atlas) and Apache-2.0 (SynthSeg's label maps, this project)"
NOTICE = "Research demonstration, not for clinical use. Trained on synthesised images only."
BEGIN, END = "PART B. DOWNLOADING AGREEMENT", "PART C. MISCELLANEOUS"
PREFACE = (
    'All or portions of this licensed product (such portions are the "Software") have been obtained under license from '
    "The Brigham and Women's Hospital, Inc. and are subject to the following terms and conditions:"
)
OUTPUT = RESOURCES / "Models" / "head-mr-312.zip"
WEAK = 0.5  # mean Dice below which a structure is listed as a failure
OPTIONS = {
    "--folder": option("folder of the training", BRAIN / "run"),
    "--checkpoint": CHECKPOINT,
    "--evaluation": option("file that evaluate_brain_model.py wrote", BRAIN / "evaluation.json"),
    "--real-heads": option("file that Testing/Benchmarks/miccai2012.py embedded wrote; none if it is empty", ""),
    "--atlas-licence": {"type": Path, "required": True, "help": "3DSlicer_License.txt, from the folder of the atlas"},
    "--hardware": {"required": True, "help": 'hardware of the training, for the card, as in "one NVIDIA H100"'},
    "--remark": {"default": "", "help": "a sentence about the training, for the card"},
    "--output": option("bundle to write", OUTPUT, "the embedded model in Resources/Models"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    return run(__doc__, OPTIONS, _pack, arguments, OSError, ValueError)


def _pack(options: argparse.Namespace) -> str:
    tables, log = BrainTables.read(), read_log(options.folder)
    evaluation = json.loads(options.evaluation.read_text(encoding="utf-8"))
    evaluated = [entry for entry in log[:-1] if "dice" in entry] + log[-1:]
    real = json.loads(Path(options.real_heads).read_text(encoding="utf-8"))["cases"] if options.real_heads else []
    licence = conditions(options.atlas_licence)
    text = card(tables, evaluation, evaluated, options.hardware, licence, options.remark, real)
    about: dict[str, Any] = {"name": NAME, "licence": LICENCE, "modality": "MR", "orientation": "LPS", "notice": NOTICE}
    about |= {"labels": label_table(tables), "bits": 8}
    return pack_with_card(options, options.output, text, **about)


def label_table(tables: BrainTables) -> LabelTable:
    """Return the names and colours of the atlas, our groups, and RadLex codes where the atlas has them."""
    labels = [Label(0, segment_id(0), "background", (0, 0, 0))]
    anatomy = Code("SCT", "123037004", "Anatomical Structure")
    for row in tables.structures:
        codes = {"category": anatomy, "type": Code("RADLEX", row.radlex, row.name)} if row.radlex else {}
        color = (row.red, row.green, row.blue)
        labels.append(Label(row.label, segment_id(row.label), row.name, color, group=row.group, **codes))
    return LabelTable(tuple(labels))


def conditions(licence: Path) -> str:
    """Return Part B of the 3D Slicer License, which must accompany the atlas and everything derived from it.

    :param licence: the text file of the licence.
    :raises ClassScaleError: if the file has no Part B.
    """
    text = licence.read_text(encoding="utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise ClassScaleError(f"{licence} has no part between {BEGIN!r} and {END!r}: give the 3D Slicer License.")
    return text[begin:end].strip()


def card(
    tables: BrainTables,
    evaluation: dict[str, Any],
    log: list[dict[str, Any]],
    hardware: str,
    conditions: str,
    remark: str = "",
    real: Sequence[dict[str, Any]] = (),
) -> str:
    """Return the model card in Markdown.

    :param evaluation: what ``evaluate_brain_model.py`` wrote.
    :param log: entries of ``log.jsonl`` that have an evaluation, and the last entry.
    :param hardware: hardware of the training.
    :param conditions: see :func:`conditions`.
    :param remark: a sentence about the training.
    :param real: the rows that ``Testing/Benchmarks/miccai2012.py embedded`` wrote; none if no real head was measured.
    """
    atlas, individuals = evaluation["atlas"], evaluation["individuals"]
    large = [row for row in atlas["structures"] if row["voxels"] >= atlas["least_voxels"]]
    weak = sorted((row for row in large if (row["dice"] or 0) < WEAK), key=lambda row: row["dice"] or 0)
    worst = ", ".join(f"{row['name']} ({_figure(row['dice'])})" for row in weak[:20])
    lines = [
        f"# {NAME}",
        "",
        f"**{NOTICE}** It demonstrates that one small network can label {len(tables.structures)} structures of a head.",
        "",
        "## Training data and licences",
        "",
        "No image of a patient or volunteer was used. The images were synthesised from label maps during the training, "
        "as in SynthSeg: random grey values per tissue, affine and elastic deformation, bias field, blur, noise.",
        "",
        "| source | used as | licence |",
        "|---|---|---|",
        "| SPL/NAC brain atlas, Halle, Talos, Jakab, Makris, Meier, Wald, Fischl, Kikinis: Multi-modality MRI-based "
        "Atlas of the Brain, Surgical Planning Laboratory, Brigham and Women's Hospital. "
        "<https://github.com/mhalle/spl-brain-atlas> | the only finely labelled subject; names and RadLex codes | "
        "3D Slicer License, at the end of this card |",
        "| Label maps of SynthSeg, Billot et al., Medical Image Analysis 86 (2023) 102789. "
        "<https://github.com/BBillot/SynthSeg> | individuals 1 to 10, about 50 coarse labels each, as sets of "
        "structures (a marginal loss), and the skull around the atlas subject | Apache-2.0 |",
        "",
        "This is not the atlas but a model derived from it: it contains weights and names, but no label map. "
        "Individuals 11 to 14 were used for validation only.",
        "",
        f"Training: {log[-1]['step']} steps, {log[-1]['seconds'] / 60:.0f} minutes on {hardware}, by "
        f"`training/recipes/head-mr-312.sh`.{' ' * bool(remark)}{remark} The weights are stored in 8 bits. "
        "The tables of Dice below are of these weights. Course of the training:",
        "",
        "| step | loss | minutes | Dice of all structures, in the centre of 4 unseen heads |",
        "|---|---|---|---|",
        *(f"| {e['step']} | {e['loss']:.3f} | {e['seconds'] / 60:.0f} | {_figure(e.get('dice'))} |" for e in log),
        "",
        "## Quality",
        "",
        f"On {atlas['cases']} unseen synthesised heads of the atlas subject (new deformations, grey values and "
        f"surroundings), at {evaluation['spacing_mm']:g} mm: mean Dice **{_figure(atlas['dice'])}** over the "
        f"{atlas['structures_as_large']} structures of at least {atlas['least_voxels']} voxels "
        f"({_figure(atlas['pooled_dice'])} with false positives of all heads pooled), {_figure(atlas['dice_of_all'])} "
        f"over all {len(tables.structures)}. Structures found in a head: {min(atlas['non_empty'])} "
        f"to {max(atlas['non_empty'])}; skull-stripped heads have no muscles and no eyes.",
        "",
        f"On {individuals['cases']} synthesised heads of individuals {', '.join(map(str, individuals['of']))}, whose "
        "anatomy the training never used:",
        "",
        "| set of structures | mean Dice | pooled Dice |",
        "|---|---|---|",
        *_rows({"name": name, **figures} for name, figures in individuals["bars"].items()),
        "",
        *(_real_summary(real) or ["The Dice on real images was not measured.", ""]),
        "## Known failures",
        "",
        "- The 312 classes are 311 structures and the background; label 1 of the atlas, one stray voxel, is omitted.",
        "- Only one subject is finely labelled. Borders inside cortex, cerebellum, thalamus and hypothalamus, and all "
        "muscles, are those of that person, transferred by position. Other people have their sulci in other places.",
        "- The training had no tumours, haemorrhages, large ventricles or operated skulls. Its heads end at about the "
        "third vertebra.",
        "- Skull, skin, vessels and fluid around the brain are background.",
        f"- Structures of few voxels at {evaluation['spacing_mm']:g} mm may be missing completely.",
        f"- Of the larger structures, {len(weak)} have a mean Dice below {WEAK}"
        f"{'; the worst are ' * bool(weak)}{worst}.",
        "",
        *_real_table(real),
        "## Dice of every structure, on unseen synthesised heads of the atlas subject",
        "",
        "| structure | voxels | mean Dice | pooled Dice |",
        "|---|---|---|---|",
        *_rows(atlas["structures"], "voxels"),
        "",
        "## Dice of every set of structures, on unseen individuals",
        "",
        "| set of structures | mean Dice | pooled Dice |",
        "|---|---|---|",
        *_rows(individuals["sets"]),
        "",
        "## Conditions of the atlas",
        "",
        PREFACE,
        "",
        "```text",
        conditions,
        "```",
        "",
    ]
    return "\n".join(lines)


_REAL = {  # columns of the table of real heads
    "mean Dice": "Dice",
    "pooled Dice": "pooled Dice",
    "with exchanged sides": "Dice with exchanged sides",
    "agreement of the lists": "Dice of both lists of borders",
}


def _real_summary(real: Sequence[dict[str, Any]]) -> list[str]:
    """Return the paragraphs on real heads, none if none were measured."""
    sums = [row for row in real if "kind" not in row]
    if not sums:
        return []
    shown = ", ".join(f"**{row['Dice']:.3f}** over {row['what']} structures" for row in sums)
    exchanged = " and ".join(f"{row['Dice with exchanged sides']:.3f}" for row in sums)
    agreed = " and ".join(f"{row['Dice of both lists of borders']:.2f}" for row in sums)
    return [
        "On 15 real heads (skull-stripped T1, 1 mm), labelled by people, the training subjects of the MICCAI 2012 "
        f"challenge on multi-atlas labelling: mean Dice {shown} that both lists of structures share, some of them as "
        "sets. The model was not trained with these heads; that it replaced its predecessor was decided by them. "
        "Images: OASIS; labels: Neuromorphometrics, Inc. (http://Neuromorphometrics.com/) under academic subscription.",
        "",
        f"Packed again with `classscaleseg pack --swap-sides`, the same weights reach {exchanged} there, because the "
        "network then also runs on the mirror image, with left and right exchanged. That takes longer, and is worse on "
        "heads of the atlas subject, whose asymmetry the network knows.",
        "",
        "The two lists draw many borders at different places of the same anatomy, mostly in the cortex. The last "
        "column of the table of real heads estimates what a perfect result of this list would get: the Dice between "
        "the result and what the other list usually calls the same places, judged by the other heads. Its mean is "
        f"{agreed}.",
        "",
    ]


def _real_table(real: Sequence[dict[str, Any]]) -> list[str]:
    if not real:
        return []
    rows = [f"| {row['what']} | {' | '.join(f'{row[key]:.3f}' for key in _REAL.values())} |" for row in real]
    title = ["## Dice of the structures of real heads", "", f"| structure | {' | '.join(_REAL)} |"]
    return [*title, f"|---{'|---' * len(_REAL)}|", *rows, ""]


def _rows(rows: Any, *more: str) -> list[str]:
    lines = []
    for row in rows:
        cells = [row["name"], *(f"{row[key]:.0f}" for key in more), _figure(row["dice"]), _figure(row["pooled_dice"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
