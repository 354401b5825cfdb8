"""Train on real heads with 134 structures drawn by hand: ClassScaleTrainer against stock nnU-Net in the same time.

    python Testing/Benchmarks/miccai2012.py prepare|train|embedded|compare [--data FOLDER] [--root FOLDER] [--only RUN]

The images (OASIS) and labels (Neuromorphometrics, Inc., under academic subscription) are those of the MICCAI 2012
Grand Challenge and Workshop on Multi-Atlas Labeling, CC BY-NC. They are used for measurements only; the project
contains neither them nor weights trained on them. Twelve subjects are for training, three for testing. Everything is at
2 mm, one thread, batches of two patches of 64x80x64, Adam, without mirroring.

* ``prepare`` writes the dataset, plans it with both planners, gives both plans one small network, and preprocesses it.
* ``train`` trains ``ours`` and ``stock``. Each first does twenty steps to measure its speed, and then as many steps as
  take ``--minutes``; the learning rate falls to 0 within these. ``scratch`` and ``embedded`` do 100 steps with the
  network of the embedded model head-mr-312, from random weights and from its weights. ``--only`` trains one of them,
  so that each can have a core of its own. A training that was stopped goes on.
* ``embedded`` compares head-mr-312 as it is, which was trained on synthesised images alone, on all fifteen subjects:
  ``miccai2012_head.csv`` says which structures both lists share. It also segments them with left and right exchanged
  in mirror images, and estimates how far both lists draw the same borders. It writes
  ``results/miccai2012-head-mr-312.json``. ``--model`` measures another bundle with the same classes, such as one that
  may replace it, and writes the figures into the root folder.
* ``compare`` segments the three test subjects at 1 mm with our engine, which runs both kinds of models, and writes
  ``results/miccai2012.json``.

The seconds are those of the training process on the processor, with reading and augmentation, without validations.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from classscale_training.evaluation.dice import case_dice, foreground_mean, mean_over_cases, pooled_dice
from ClassScaleSegLib.files import replacing, sha256_of
from ClassScaleSegLib.images.counts import overlap_counts
from measure import DATA, HERE, Bar, mebibytes, report, run_job
from raw_datasets import Case, people, write_dataset

NUMBER, NAME, CASES, TEST = 500, "People", 15, 3
FOLDER = f"Dataset{NUMBER}_{NAME}"
SPACING = ("2", "2", "2")
EPOCHS, SHORT = 20, 100
EMBEDDED = HERE.parents[1] / "Resources" / "Models" / "head-mr-312.zip"
NETWORKS = {  # by configuration: patch, and what the plans say of the network
    "small": ([64, 80, 64], [16, 32, 64, 96, 128], [1, 1, 2, 2, 2], [1, 1, 1, 1]),
    "embedded": ([64, 64, 64], [32, 64, 96, 128, 160], [1, 2, 2, 2, 3], [2, 2, 2, 1]),
}


@dataclass(frozen=True)
class Run:
    """One training.

    :ivar trainer: its class.
    :ivar plans: name of its plans.
    :ivar network: name of the configuration.
    :ivar start: what its weights are at the beginning, if not random.
    """

    trainer: str
    plans: str
    network: str
    start: Path | None = None

    @property
    def stock(self) -> bool:
        return self.plans == "nnUNetPlans"


RUNS = {
    "ours": Run("ClassScaleTrainer_benchmark", "ClassScalePlans", "small"),
    "stock": Run("nnUNetTrainer_benchmark", "nnUNetPlans", "small"),
    "scratch": Run("ClassScaleTrainer_benchmark", "ClassScalePlans", "embedded"),
    "embedded": Run("ClassScaleTrainer_benchmark", "ClassScalePlans", "embedded", EMBEDDED),
}


def variables(root: Path, results: str = "results", **more: Any) -> dict[str, str]:
    """Return the environment variables of nnU-Net for small machines."""
    return {
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / results),
        "nnUNet_extTrainer": str(HERE / "nnunet_trainers"),
        "nnUNet_n_proc_DA": "0",
        "BENCHMARK_VALIDATION": "no",  # ``compare`` segments the test subjects
        **{name: str(value) for name, value in more.items()},
    }


def command(stock: bool, name: str, *arguments: Any) -> list[str]:
    """Return a command of stock nnU-Net, or the one of ours that replaces it."""
    if stock:
        return [sys.executable, str(HERE / "stock.py"), f"nnUNetv2_{name}", *map(str, arguments)]
    return [sys.executable, "-m", "classscale_training.commands", name, *map(str, arguments)]


def prepare(
    root: Path,
    named: tuple[dict[int, str], list[Case]],
    spacing: Sequence[str],
    networks: dict[str, tuple],
    splits: list[dict[str, list[str]]],
    stock: bool,
) -> None:
    """Write the raw dataset and the splits, plan, add the networks, and preprocess.

    :param named: the names by label value and the cases.
    :param networks: as ``NETWORKS``; the first one is preprocessed, the others use its data.
    :param stock: whether to plan and preprocess with stock nnU-Net too.
    """
    write_dataset(root, NUMBER, NAME, *named)
    folder, first = root / "preprocessed" / FOLDER, next(iter(networks))
    stocks = {"nnUNetPlans": "plan_and_preprocess"} if stock else {}
    for plans, plan in {**stocks, "ClassScalePlans": "plan"}.items():
        theirs = plans in stocks
        environ = variables(root, nnUNet_n_proc_DA=1) if theirs else variables(root)
        more = [*(["--no_pp"] if theirs else []), "-overwrite_target_spacing", *spacing]
        run_job(command(theirs, plan, "-d", NUMBER, "-npfp", 1, *more), 1, **environ)
        _add_networks(folder / f"{plans}.json", networks)
        arguments = ["-d", NUMBER, "-plans_name", plans, "-c", first, "-np", 1]
        run_job(command(theirs, "preprocess", *arguments), 1, 2, **environ)
    (folder / "splits_final.json").write_text(json.dumps(splits))


def _add_networks(file: Path, networks: dict[str, tuple]) -> None:
    plans = json.loads(file.read_text(encoding="utf-8"))
    planned, data = plans["configurations"]["3d_fullres"], f"{file.stem}_{next(iter(networks))}"
    for name, (patch, features, encoder, decoder) in networks.items():
        network = json.loads(json.dumps(planned["architecture"]))
        stages = len(features)
        network["arch_kwargs"] |= {
            "n_stages": stages,
            "features_per_stage": features,
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            "n_conv_per_stage": encoder,
            "n_conv_per_stage_decoder": decoder,
        }
        configuration = {"inherits_from": "3d_fullres", "data_identifier": data, "patch_size": patch, "batch_size": 2}
        plans["configurations"][name] = {**configuration, "architecture": network}
    file.write_text(json.dumps(plans, indent=2), encoding="utf-8")


def model_folder(root: Path, name: str, results: str) -> Path:
    run = RUNS[name]
    return root / results / FOLDER / f"{run.trainer}__{run.plans}__{run.network}"


def train(root: Path, name: str, minutes: float) -> None:
    """Train one network, or continue its training."""
    run, steps = RUNS[name], SHORT
    if run.network == "small":
        speed = model_folder(root, name, f"speed-{name}") / "fold_0" / "clock.jsonl"
        if len(_clock(speed)) < 2:
            _train(root, name, f"speed-{name}", 2, 10)
        first, second = _clock(speed)
        steps = int(60 * minutes / ((second["seconds"] - first["seconds"]) / 10))
    folder = model_folder(root, name, name) / "fold_0"
    if (folder / "checkpoint_final.pth").exists():
        return
    print(f"{name}: {EPOCHS} epochs of {steps // EPOCHS} steps")
    peak = _train(root, name, name, EPOCHS, steps // EPOCHS)
    file = root / f"{name}-peak.json"
    before = json.loads(file.read_text()) if file.exists() else 0
    file.write_text(json.dumps(max(peak, before)))


def _clock(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _train(root: Path, name: str, results: str, epochs: int, steps: int) -> float:
    """Train or continue, and return the peak in MiB."""
    run, folder = RUNS[name], model_folder(root, name, results) / "fold_0"
    more = ["--c"] if any(folder.glob("checkpoint_*.pth")) else []
    if run.start is not None and not more:
        more = ["-pretrained_weights", str(run.start)]
    arguments = [NUMBER, run.network, 0, "-tr", run.trainer, "-p", run.plans, "-device", "cpu", *more]
    environ = variables(root, results, BENCHMARK_EPOCHS=epochs, BENCHMARK_STEPS=steps)
    return mebibytes(run_job(command(run.stock, "train", *arguments), 1, 2, **environ).peak)


def label_names(root: Path) -> list[str]:
    """Return the names of the labels, the background first."""
    content = json.loads((root / "raw" / FOLDER / "dataset.json").read_text(encoding="utf-8"))
    return list(content["labels"])


def counts(root: Path, model: Any, case: int) -> np.ndarray:
    """Segment a subject at 1 mm and return what :func:`.overlap_counts` does, ``(3, C)``.

    :param case: number of the subject, from 1.
    """
    from ClassScaleSegLib import segment

    raw, name = root / "raw" / FOLDER, f"{NAME}_{case:02d}"
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / f"{name}.nii.gz"))).astype(np.int64)
    found = segment(raw / "imagesTr" / f"{name}_0000.nii.gz", model, device="cpu").labels.astype(np.int64)
    return overlap_counts(reference, found, len(label_names(root)))


def figures(found: np.ndarray) -> dict[str, Any]:
    """Return the mean Dice over the structures by both rules, from counts ``(cases, 3, C)`` with the background."""
    rules = {"Dice": mean_over_cases(case_dice(found)), "pooled Dice": pooled_dice(found)}
    return {name: round(foreground_mean(values), 4) for name, values in rules.items()}


def compare(root: Path) -> int:
    """Segment the test subjects with each model, and write figures and curves."""
    from ClassScaleSegLib import open_model

    rows, curves, structures, found = [], {}, [], {}
    for name, run in RUNS.items():
        folder = model_folder(root, name, name)
        clock = _clock(folder / "fold_0" / "clock.jsonl")
        if not (folder / "fold_0" / "checkpoint_final.pth").exists():
            print(f"{name} is not trained to its end.")
            continue
        model = open_model(folder, checkpoint="final")
        found[name] = np.stack([counts(root, model, case) for case in range(CASES - TEST + 1, CASES + 1)])
        last = clock[-1]
        rows.append(
            {
                "run": name,
                "network": run.network,
                "steps": last["steps"],
                "minutes": round(last["seconds"] / 60, 1),
                "seconds a step": round(last["seconds"] / last["steps"], 2),
                "of them reading and augmentation": round(
                    (last["seconds"] - last["seconds in steps"]) / last["steps"], 2
                ),
                "MiB": json.loads((root / f"{name}-peak.json").read_text()),
                **figures(found[name]),
            }
        )
        curves[name] = clock
    names = label_names(root)
    dice = {name: mean_over_cases(case_dice(array)) for name, array in found.items()}
    for label in range(1, len(names)):
        structures.append({"structure": names[label], **{name: round(float(d[label]), 3) for name, d in dice.items()}})
    bars = []
    if {"ours", "stock"} <= set(found):
        bars.append(Bar("mean Dice of ours minus stock's, same time", rows[0]["Dice"] - rows[1]["Dice"], 0, True))
    if {"scratch", "embedded"} <= set(found):
        by_name = {row["run"]: row["Dice"] for row in rows}
        gain = by_name["embedded"] - by_name["scratch"]
        bars.append(
            Bar("mean Dice from the embedded model's weights minus from random ones, same steps", gain, 0, True)
        )
    code = report(argparse.Namespace(quick=False, root=root), "miccai2012", rows, bars)
    file = HERE / "results" / "miccai2012.json"
    content = json.loads(file.read_text()) | {"curves": curves, "structures": structures}
    file.write_text(json.dumps(content, indent=2) + "\n")
    return code


def embedded(root: Path, bundle: Path) -> int:
    """Compare the embedded model, as it is, with the structures that both lists share, on all fifteen subjects.

    Also say how far the two lists draw the same borders, see :func:`usual_borders`.

    :param bundle: the embedded model, or another with the same classes.
    """
    table, theirs, ours = shared_structures({name: label for label, name in enumerate(label_names(root))}, bundle)
    found: dict[str, list[np.ndarray]] = {what: [] for what in ("plain", "mirrored", "borders")}
    heads = [_segmented_head(root, bundle, case) for case in range(1, CASES + 1)]
    usual = usual_borders([(theirs[head["reference"]], head["plain"], ours) for head in heads])
    for head, borders in zip(heads, usual, strict=True):
        reference, groups = theirs[head["reference"]], len(table) + 1
        for what in ("plain", "mirrored"):
            found[what].append(overlap_counts(reference, ours[head[what]], groups)[:, 1:])
        found["borders"].append(overlap_counts(borders, ours[head["plain"]], groups)[:, 1:])
    dice = {what: mean_over_cases(case_dice(np.array(counted))) for what, counted in found.items()}
    dice["pooled"] = pooled_dice(np.array(found["plain"]))
    kinds = np.array([row["kind"] for row in table])

    def figures_of(rows: np.ndarray) -> dict[str, float]:
        columns = {"Dice": "plain", "pooled Dice": "pooled", "Dice with exchanged sides": "mirrored"}
        columns |= {"Dice of both lists of borders": "borders"}
        return {title: round(float(dice[what][rows].mean()), 3) for title, what in columns.items()}

    rows: list[dict[str, Any]] = []
    for kind in ("deep", "cortex"):
        rows.append({"what": f"{(kinds == kind).sum()} {kind}", **figures_of(kinds == kind)})
    for index, row in enumerate(table):
        rows.append({"what": row["structure"], "kind": row["kind"], **figures_of(np.arange(len(table)) == index)})
    another = bundle != EMBEDDED  # its figures are not those of the project
    return report(argparse.Namespace(quick=another, root=root), f"miccai2012-{bundle.stem}", rows, [])


def shared_structures(labels: dict[str, int], bundle: Path) -> tuple[list[dict[str, str]], np.ndarray, np.ndarray]:
    """Return the structures that both lists share, and which of them, from 1, a label of either list belongs to.

    :param labels: those of the reference, by name.
    :param bundle: the model whose classes are the other list.
    :returns: the rows of ``miccai2012_head.csv``, and the structure of each label of the reference and of the model.
    """
    import csv

    with zipfile.ZipFile(bundle) as archive:
        own = json.loads(archive.read("dataset.json"))["labels"]
    with open(Path(__file__).with_name("miccai2012_head.csv"), encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    theirs, ours = np.zeros(max(labels.values()) + 1, np.int64), np.zeros(len(own), np.int64)
    for structure, row in enumerate(table, 1):
        theirs[[labels[name] for name in row["miccai2012"].split(" + ")]] = structure
        ours[[own[name] for name in row["head-mr-312"].split(" + ")]] = structure
    return table, theirs, ours


def _segmented_head(root: Path, bundle: Path, case: int) -> dict[str, np.ndarray]:
    """Return the reference of a subject, and the labels of the bundle, plain and also mirrored.

    Where it is also mirrored, left and right classes are exchanged, as in a bundle of ``classscaleseg pack
    --swap-sides``.
    """
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.models.side_swap import side_swap

    kept = root / "embedded" / sha256_of(bundle)[:16] / f"{case:02d}.npz"
    if not kept.exists():
        raw, name = root / "raw" / FOLDER, f"{NAME}_{case:02d}"
        reference = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / f"{name}.nii.gz")))
        model, image = open_model(bundle), raw / "imagesTr" / f"{name}_0000.nii.gz"
        forward = model.plans_manager.transpose_forward
        values = model.projection.values or tuple(range(model.classes))
        sides = side_swap(model.table, values, model.orientation, forward, model.patch, model.mirror_axes)
        plain = replace(model, swap_sides=False, side_swap=None)
        models = {"plain": plain, "mirrored": replace(model, swap_sides=True, side_swap=sides)}
        labels = {what: segment(image, used, device="cpu").labels for what, used in models.items()}
        with replacing(kept, overwrite=True) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, reference=reference, **labels)
    with np.load(kept) as content:
        return {what: content[what].astype(np.int64) for what in ("reference", "mirrored", "plain")}


def usual_borders(heads: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Return what the reference usually calls what the model has found at each voxel, judged by the other heads.

    The centres of the model's classes give the affine map from a head to the mean of all, which is divided into cells
    of 8 mm. The voxels of a class in a cell get the group that the references of the other heads have most often where
    the model finds this class in this cell. Where that is another group than the model's, the two lists of structures
    usually draw a border at another place. No better model changes this, as long as it keeps to its own list. If the
    reference were the model's own result, nothing would change.

    :param heads: groups of the reference ``(Z, Y, X)``, classes of the model, and the group of each class.
    :returns: groups ``(Z, Y, X)`` of each head.
    """
    side, cell, least, seen = 64, 8.0, 200, 20
    centres = []
    for _, classes, of_class in heads:
        counts = np.bincount(classes.ravel(), minlength=len(of_class)).astype(float)
        counts[0] = 0
        sums = [np.bincount(classes.ravel(), axis.ravel(), len(of_class)) for axis in np.indices(classes.shape)]
        centres.append(np.where(counts > least, sums / np.maximum(counts, 1), np.nan).T)
    known = np.isfinite(centres).all((0, 2))
    mean = np.mean(centres, 0)[known]
    places, groups = [], 1 + max(int(of_class.max()) for *_, of_class in heads)
    for (_, classes, _), own in zip(heads, centres, strict=True):
        affine = np.linalg.lstsq(np.c_[own[known], np.ones(known.sum())], mean, rcond=None)[0]
        inside = classes > 0
        there = np.c_[np.argwhere(inside), np.ones(inside.sum())] @ affine
        x, y, z = np.clip(there / cell + 2, 0, side - 1).astype(np.int64).T
        places.append((inside, ((classes[inside] * side + x) * side + y) * side + z))
    cells = np.unique(np.concatenate([place for _, place in places]))
    votes = [np.zeros((len(cells), groups), np.int32) for _ in heads]
    for counted, (reference, *_), (inside, place) in zip(votes, heads, places, strict=True):
        np.add.at(counted, (np.searchsorted(cells, place), reference[inside]), 1)
    total, result = np.sum(votes, 0), []
    for counted, (_, classes, of_class), (inside, place) in zip(votes, heads, places, strict=True):
        others, rows = total - counted, np.searchsorted(cells, place)
        usual = of_class[classes]
        usual[inside] = np.where(others.sum(1)[rows] > seen, others.argmax(1)[rows], usual[inside])
        result.append(usual)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "train", "compare", "embedded"])
    parser.add_argument(
        "--root", type=Path, default=Path(".benchmarks/miccai2012"), help="folder for models and images"
    )
    parser.add_argument("--data", type=Path, default=DATA / "miccai2012", help="folder with the fifteen subjects")
    parser.add_argument("--minutes", type=float, default=50, help="of ours and stock, on the processor (default: 50)")
    text = "bundle that embedded measures instead of the embedded model"
    parser.add_argument("--model", type=Path, default=EMBEDDED, metavar="BUNDLE.zip", help=text)
    parser.add_argument("--only", choices=RUNS, help="train one network")
    options = parser.parse_args()
    root = options.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    if options.step == "prepare":
        subjects = [f"{NAME}_{number:02d}" for number in range(1, CASES + 1)]
        split = {"train": subjects[:-TEST], "val": subjects[-TEST:]}
        prepare(root, people(options.data), SPACING, NETWORKS, [split], stock=True)
    elif options.step == "train":
        for name in [options.only] if options.only else RUNS:
            train(root, name, options.minutes)
    else:
        return compare(root) if options.step == "compare" else embedded(root, options.model.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
