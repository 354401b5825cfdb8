"""Write ``RESULTS.md``, the page of results, and its plots from the JSON files in ``results/``.

    python Testing/Benchmarks/results_page.py

Every figure on the page comes from one of these files. The page names the command that wrote the file, and says so
where something was not measured. This script measures nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from measure import HERE
from published import PUBLISHED

RESULTS = HERE / "results"
HEAD = """# Results

`python Testing/Benchmarks/results_page.py` writes this page from the JSON files in `Testing/Benchmarks/results`. Below
each table is the command that measured it. Compare seconds only within one run, not between runs: machines and load
differ.
"""


def load(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def machine(result: dict[str, Any]) -> str:
    about = result["machine"]
    parts = [about.get("device") or about.get("processor", ""), f"{about['cores']} threads" if "cores" in about else ""]
    parts += [f"{name} {about[name]}" for name in ("torch", "nnunetv2") if name in about]
    return ", ".join(part for part in (*parts, about.get("date", "")) if part)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and 0.999 < value < 1:
        return f"{value:.6f}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def table(rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> str:
    """Return a table in Markdown; ``columns`` maps keys to headings."""
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(key, "")) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def bars(result: dict[str, Any]) -> str:
    rows = [
        {**bar, "sign": f"{'at least' if bar['at_least'] else 'at most'} {cell(float(bar['limit']))}"}
        for bar in result.get("bars", ())
    ]
    if not rows:
        return ""
    return table(rows, {"what": "bar", "measured": "measured", "sign": "required", "met": "met"})


def plot(name: str, draw: Callable[[Any], None], size: tuple[float, float] = (9, 3.4)) -> str:
    """Save the picture that ``draw`` makes on a figure, and return its Markdown."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="tight")
    draw(figure)
    (RESULTS / "plots").mkdir(exist_ok=True)
    figure.savefig(RESULTS / "plots" / f"{name}.png", dpi=90)
    return f"![{name}](results/plots/{name}.png)"


def section(title: str, text: str, *parts: tuple[str, str, Callable[[dict[str, Any]], str]]) -> str:
    """Return a section in Markdown.

    :param parts: name of the result, command, and function that returns the Markdown of the result.
    """
    lines = [f"## {title}", text]
    for name, command, render in parts:
        result = load(name)
        if result is None:
            lines.append(f"*Not measured yet:* `{command}`")
        else:
            lines += [render(result), f"<sub>`{command}`; {machine(result)}</sub>"]
    return "\n\n".join(line for line in lines if line)


def class_sweep(result: dict[str, Any]) -> str:
    def draw(figure: Any) -> None:
        panels = [("training", "MiB"), ("loss", "MiB"), ("prediction", "MiB")]
        panels += [("training", "seconds"), ("loss", "seconds"), ("export", "seconds")]
        for axes, (work, unit) in zip(figure.subplots(2, 3).flat, panels, strict=True):
            for side, colour in (("ours", "tab:blue"), ("stock", "tab:orange")):
                rows = [row for row in result["cases"] if (row["work"], row["side"]) == (work, side)]
                done = [row for row in rows if unit in row]
                axes.loglog([r["classes"] for r in done], [r[unit] for r in done], ".-", color=colour, label=side)
                failed = [row for row in rows if "out of memory, GiB" in row]
                top = max((row[unit] for row in done), default=1)
                axes.plot([r["classes"] for r in failed], [top] * len(failed), "x", color="red")
            axes.set(title=f"{work}, {unit}", xlabel="classes")
            axes.legend()

    columns = {"work": "work", "side": "side", "classes": "classes", "seconds": "s", "MiB": "peak MiB"}
    columns |= {"out of memory, GiB": "not run: would need GiB"}
    return "\n\n".join([plot("class_sweep", draw, (12, 6.8)), table(result["cases"], columns), bars(result)])


def memory_growth(result: dict[str, Any]) -> str:
    columns = {"engine": "engine", "classes": "classes", "shape": "image", "peak_MiB": "peak MiB"}
    return (
        table(result["cases"], {**columns, "working_MiB": "without image and label map, MiB"}) + "\n\n" + bars(result)
    )


def exactness(result: dict[str, Any]) -> str:
    keys = {"classes": "classes", "network": "network", "separate_z": "separate z", "mirroring": "mirroring"}
    keys |= {"folds": "folds", "regions": "regions", "voxels": "voxels", "differ": "ours", "stock_differ": "stock"}
    return table(result["cases"], keys) + "\n\n" + bars(result)


def with_bars(columns: dict[str, str] | None = None) -> Callable[[dict[str, Any]], str]:
    """Return a function that shows all columns, or only those given, and the bars."""

    def render(result: dict[str, Any]) -> str:
        keys = columns or {key: key.replace("_", " ") for row in result["cases"] for key in row}
        return table(result["cases"], keys) + "\n\n" + bars(result)

    return render


def cohort(result: dict[str, Any]) -> str:
    """Return a table and the bars of each part, with the columns that it has."""
    titles = {
        "kills": "Workers and the command are killed",
        "poison": "A case that kills every worker",
        "ending": "Ctrl-C and termination signals",
        "overhead": "What the cluster adds to a case",
        "efficiency": "A second worker",
        "many": "Instant cases",
    }
    parts = []
    for part, title in titles.items():
        rows, limits = ([row for row in result[key] if row["part"] == part] for key in ("cases", "bars"))
        if rows:
            shown = table(rows, {key: key for row in rows for key in row if key != "part"})
            parts += [f"**{title}** (`--only {part}`)", shown, *([bars({"bars": limits})] if limits else [])]
        else:
            parts.append(f"**{title}:** *Not measured yet:* `--only {part}`")
    return "\n\n".join(parts)


def curve(name: str) -> Callable[[dict[str, Any]], str]:
    def render(result: dict[str, Any]) -> str:
        columns = {"classes": "classes", "size": "side", "step": "step", "seconds": "s", "dice": "Dice"}
        last = table(result["cases"][-1:], {**columns, "pooled_dice": "pooled Dice"})
        return f"![{name}](results/{name}.png)\n\n{last}"

    return render


def toy_sweep(result: dict[str, Any]) -> str:
    def draw(figure: Any) -> None:
        for axes, sweep in zip(figure.subplots(1, 2), ("classes", "rank"), strict=True):
            rows = sorted((row for row in result["cases"] if row["sweep"] == sweep), key=lambda row: row[sweep])
            for rule in ("dice", "pooled_dice"):
                axes.semilogx([r[sweep] for r in rows], [r[rule] for r in rows], ".-", label=rule.replace("_", " "))
            if sweep == "classes":
                longer = [found["cases"][-1] for name in ("toy-100", "toy-1000") if (found := load(name))]
                axes.plot([r["classes"] for r in longer], [r["dice"] for r in longer], "k*", label="longer trainings")
            axes.set(xlabel=sweep, ylabel="mean Dice", ylim=(0, 1))
            axes.set_xticks([r[sweep] for r in rows], [str(r[sweep]) for r in rows])
            axes.minorticks_off()
            axes.legend()

    return plot("toy_sweep", draw) + "\n\n" + with_bars()(result)


def brain_model(result: dict[str, Any]) -> str:
    """Return the bars, the picture, and every structure by group in foldable parts."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in result["cases"]:
        by_kind.setdefault(row["kind"], []).append(row)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in by_kind["structure"]:
        groups.setdefault(row["group"], []).append(row)
    dice = {"dice": "mean Dice", "pooled_dice": "pooled Dice"}

    def folded(title: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
        return f"<details><summary>{title}</summary>\n\n{table(rows, columns)}\n\n</details>"

    def median(rows: list[dict[str, Any]]) -> float | None:
        values = sorted(row["dice"] for row in rows if row["dice"] is not None)
        return values[len(values) // 2] if values else None

    parts = [table(by_kind["summary"], {"what": "atlas subject, unseen heads", "structures": "structures", **dice})]
    parts.append(bars(result))
    parts.append(
        "The MNI template, a real image (the average of 152 people), with the structures that the model finds in it:"
    )
    parts.append("![The MNI template with structures](results/head-mr-312-mni.png)")
    parts.append("Every structure, by group, with its number of voxels at 2 mm in the atlas:")
    for group, rows in groups.items():
        title = f"{group}: {len(rows)} structures, median Dice {cell(median(rows))}"
        parts.append(folded(title, rows, {"what": "structure", "voxels": "voxels", **dice}))
    parts.append(folded("Individuals 11 to 14: every set of structures", by_kind["set"], {"what": "set", **dice}))
    return "\n\n".join(parts)


def gpu_kernels(result: dict[str, Any]) -> str:
    """Return the errors of the kernels and of nnU-Net's formula, then milliseconds and memory."""
    both, columns = ("kernels", "nnU-Net's formula"), {"classes": "classes", "rank": "rank", "dtype": "basis"}
    parts = ("value", "basis", "projection")
    rows = [
        {**row, **{f"{who} {part}": f"{row[who][part]:.1e}" for who in both for part in parts}}
        for row in result["parity"]
    ]
    columns |= {f"{who} {part}": f"{who}: {part}" for who in both for part in parts}
    columns["same bits twice"] = "two runs bit-identical"
    timing = {"what": "loss and gradients", "classes": "classes", "forward_ms": "forward, ms", "both_ms": "both, ms"}
    timing |= {"peak_MiB": "peak MiB", "fault": "fault"}
    faults = {"AttributeError": "not in this torch", "OutOfMemoryError": "out of memory"}
    rest = [{**row, "fault": faults.get(row.get("fault", "").split(":")[0], "")} for row in result["timing"]]
    errors = "Relative errors of the loss and its gradients, in norm, against torch in float64:"
    return "\n\n".join([errors, table(rows, columns), "2 x 128^3 voxels, rank 32, float16:", table(rest, timing)])


def gpu_engine(result: dict[str, Any]) -> str:
    memory = {"gpu_reserved_MiB": "GPU MiB", "host_peak_MiB": "main memory MiB"}
    seconds = {"preprocess_s": "preprocessing, s", "network_and_decode_s": "network and decoding, s"}
    bundles = {"model": "model", "voxels": "voxels", "float32_differ": "differ, float32", "differ": "differ, float16"}
    bundles |= {"cpu_s": "CPU, s", "device_s": "GPU, s", "gpu_reserved_MiB": "GPU MiB"}
    stock = {"engine": "engine", "classes": "classes", "image": "image", "spacing": "spacing, mm", "seconds": "s"}
    stock |= {**seconds, "network_s": "network alone, s", "fault": "stopped", **memory}
    small = {"GiB": "GiB", "limited_by": "limited by", "seconds": "s", "differ_from_unlimited": "differ", **memory}
    done = [row for row in result["against_stock"] if "skipped" not in row]
    return "\n\n".join(
        [
            "Voxels whose label differs from that of the CPU, in single and in half precision:",
            table(result["bundles"], bundles),
            "A full-size network, from the image file to the labels:",
            table(done, stock),
            "1000 classes with little GPU memory; how many of 16.8 million voxels differ from those without a limit:",
            table(result["small_gpu"], small),
        ]
    )


def sections() -> list[str]:
    command = "python Testing/Benchmarks/{}.py".format
    return [
        section(
            "1. Memory and time against the number of classes",
            "Measured on one CPU thread. Red crosses: stock would need more memory than was free, so it was not run. "
            "With fewer classes than channels, the logits themselves are the smaller basis. The last two rows of the "
            "training step are the Dice of unseen volumes, after a small network has learned in float32 and in "
            "bfloat16.",
            ("class_sweep", command("class_sweep"), class_sweep),
            ("training_step", command("training_step"), with_bars()),
            ("loss_memory_time", command("loss_memory_time"), with_bars()),
            ("export_time", command("export_time"), with_bars()),
            ("whole_job", command("whole_job"), with_bars()),
            ("large_scan", command("large_scan"), with_bars()),
            ("plan_patch", command("plan_patch"), with_bars()),
        ),
        section(
            "2. Memory against the length of the scan",
            "The row with 448 voxels is a scan that is four times as long.",
            ("memory_growth", command("memory_growth"), memory_growth),
        ),
        section(
            "3. Agreement with float64 and with stock",
            "The first table counts the voxels that differ from full logits, resampled and compared in float64.",
            ("exactness", command("exactness"), exactness),
            ("mouse", command("mouse") + " prepare|train|compare", with_bars()),
            ("mouse_cycle", command("mouse_cycle"), with_bars()),
            ("loss_equal", command("loss_equal"), bars),
        ),
        section(
            "4. Dice against the number of classes and the rank",
            "Measured on unseen volumes of the toy atlas, by both rules: TotalSegmentator's, and pooled, which counts "
            "false positives. All points of the sweep have the same short schedule, too short for many classes, and "
            "one run each. The longer trainings in the plot are those below it, with other networks and sizes.",
            ("toy_sweep", command("toy_sweep"), toy_sweep),
            ("toy-1000", "training/recipes/toy-1000.sh", curve("toy-1000")),
            ("toy-100", command("learning_curve") + " .benchmarks/toy-100", curve("toy-100")),
            ("label_sets", command("label_sets"), with_bars()),
        ),
        section(
            "5. The brain model, 311 structures",
            "`training/recipes/head-mr-312.sh` trained it on synthesised images alone, in 18 minutes on one H100.",
            ("head-mr-312", command("brain_model"), brain_model),
            ("brain_cases", command("brain_cases"), with_bars()),
        ),
        section(
            "6. Segmentation nodes in 3D Slicer",
            "Measured with the MRML of slicer-core.",
            ("segmentation_node", command("segmentation_node"), with_bars()),
            ("seg_nrrd", command("seg_nrrd"), with_bars()),
            ("panel", command("panel"), with_bars()),
            ("panel_sequences", command("panel_sequences"), with_bars()),
        ),
        section("7. Published figures of others", PUBLISHED),
        section(
            "8. On a GPU",
            "`gpu.md` lists the runs that still need a GPU. Some rows of the engine are missing because no time was "
            "left. Stock was stopped after 50 s, including loading and warm-up (18 s in the last row). With 118 "
            "classes it had finished its network and was in its export; with 1000 classes it had not finished the one "
            "window of the warm-up. With torch limited to 2 GiB the engine did the same as with more memory, so the "
            "differing voxels must come from other algorithms in cuDNN; random weights have many near ties. The brain "
            "model of these rows is the predecessor of that in section 5.",
            ("loss_launches", command("loss_launches"), with_bars()),
            ("gpu_kernels", command("gpu_kernels"), gpu_kernels),
            ("gpu_engine", command("gpu_engine") + " --minutes 4 --limit 50", gpu_engine),
            ("gpu_step", command("gpu_step"), with_bars()),
            ("toy-1000-gpu", command("learning_curve") + " .benchmarks/gpu/toy-1000", curve("toy-1000-gpu")),
        ),
        section(
            "9. Statistics of all classes",
            "At 256^3, on one thread; each figure is the median of five runs. SimpleITK's two filters give no "
            "percentiles.",
            ("measures", command("measures"), with_bars()),
        ),
        section(
            "10. Islands and smoothing of all classes",
            "At 256^3, on one thread; each figure of ours is the median of three runs. Islands below 50 voxels are "
            "removed. The loops over the classes use SimpleITK; ten classes of each were timed, and the ratio is that "
            "of the seconds per class. Memory is beyond the input, the result included.",
            ("cleanup", command("cleanup"), with_bars()),
        ),
        section(
            "11. DICOM segmentations",
            "512 x 512 x 300 voxels, on one thread. `headers` is the time to read what the file takes from the series; "
            "memory is what writing takes beyond the label map. dcmqi, with which Slicer reads, finds the same label "
            "maps. Other programs were at work on the machine.",
            ("dicom_seg", command("dicom_seg"), with_bars()),
        ),
        section(
            "12. Where a coarse model locates the classes",
            "2 of 117 classes in 512 x 512 x 600 voxels, on two threads; and what a box changes in a trained network, "
            "whose whole image takes twelve windows. `share` is that of the box in the image. The first three rows are "
            "from one run beside programs of low priority, before the image was freed during the windows of a box. "
            "Later, on a quiet machine, the located jobs alone took 22.9 s, 1635 MiB and 35.4 s, 1656 MiB; the whole "
            "scan was not timed again. What a box changes has no bar: the issue asked for the difference alone.",
            ("locate", command("locate"), with_bars()),
        ),
        section(
            "13. Structure sets and reports in DICOM",
            "512 x 512 x 300 voxels, in processor seconds, on one thread. Memory is what writing a structure set "
            "takes beyond the label map. `same`: the filled contours of five slices are their voxels. The report "
            "comes after the measuring, whose time is given apart. Other programs were at work on the machine.",
            ("dicom_rtstruct", command("dicom_rtstruct"), with_bars()),
        ),
        section(
            "14. The report of a thousand cases",
            "117 classes, on one thread; each process with its own. With more than 60 cases the common page has small "
            "pictures. Chromium without a window opened the page from its file; its memory is that of all its "
            "processes. Other programs were at work on the machine.",
            ("report", command("report"), with_bars()),
        ),
        section(
            "15. Cohorts on Dask",
            "The embedded toy model on a CPU, with workers on this machine. A worker is killed by `SIGKILL`, at a "
            "random moment up to 2 s after a random number of cases is done. A result is written again if its worker "
            "was killed before it could note that, and a case is begun again if its worker or the command was killed "
            "meanwhile. Seconds of a case are those between results, after the first one of each worker. Instant cases "
            "write a few bytes in place of a segmentation; ledger, records, listing and scheduler are the real ones.",
            ("cohort", command("cohort"), cohort),
        ),
        section(
            "16. Merged datasets in nnU-Net's own loop",
            "The toy: 60 classes at 32^3; four trainings of the same length on the same volumes, which differ in their "
            "labels. Dice is that of unseen volumes with all labels. The brains: mice, an atlas and people, no two "
            "with the same labels; a row is a whole command with the memory of all its processes, on one thread. "
            "What more classes cost in memory is compared with one volume of logits of all classes.",
            ("merged_toy", command("merged_toy"), with_bars()),
            ("merged_brains", command("merged_brains"), with_bars()),
        ),
        section(
            "17. Rotating and scaling label maps in training",
            "One patch on one thread, as nnU-Net does it with a third of the patches. Stock is batchgeneratorsv2.",
            ("label_augmentation", command("label_augmentation"), with_bars()),
        ),
        section(
            "18. Real heads with 134 structures drawn by hand",
            "MICCAI 2012: twelve subjects for training, three for testing, at 2 mm, on one thread. ours and stock have "
            "the same time, plans and small network; scratch and embedded have the same steps and the network of "
            "head-mr-312. The seconds are those of the process on the processor, because other work ran beside. One "
            "run each.",
            ("miccai2012", command("miccai2012"), miccai2012),
        ),
        section(
            "19. The embedded head model on real heads",
            "All fifteen subjects of MICCAI 2012 at 1 mm, over what both lists of structures share. head-mr-312 was "
            "trained on synthesised images alone. With exchanged sides, the network also runs on the mirror image, as "
            "after `classscaleseg pack --swap-sides`. Dice of both lists of borders: between the result and what the "
            "reference of the other heads usually calls each of its classes at the same place. It estimates what a "
            "perfect result of the model's list would reach.",
            ("miccai2012-head-mr-312", command("miccai2012").replace(".py", ".py embedded"), with_bars()),
        ),
        section(
            "20. Few labelled images, with and without pretraining",
            "The same subjects at 3 mm: 400 steps of ClassScaleTrainer with 1, 3 or 12 of them labelled, from random "
            "weights and from an encoder that was pretrained on the twelve images without labels. The gyri of each "
            "side are one structure. Mean Dice of the three test subjects at 1 mm, mean of the seeds. "
            "The encoder of --sparse had one seed, the first of the others.",
            ("pretraining", command("pretraining"), with_bars()),
        ),
        section(
            "21. Models of Auto3DSeg",
            "Networks with random weights, 32 filters and four levels, on a field of 150 x 150 x 120 voxels of 1 mm"
            " that becomes 100 x 100 x 80 of 1.5 mm, in 27 windows of 64^3. MONAI is the pipeline of "
            "SlicerMONAIAuto3DSeg: MONAI's transforms, network and inferer. nearest copies labels as it does; "
            "linear, our default, interpolates between the classes. differ: voxels that nearest labels otherwise "
            "than MONAI. otherwise: the same for linear; random weights make a field of tiny pieces, so that they "
            "are many. Seconds of the processor, one thread; memory without that of the interpreter and the model.",
            ("auto3dseg", command("auto3dseg"), with_bars()),
        ),
        section(
            "22. A published MeshNet on real heads",
            "Brainchop's model21_104class, whose weights are not part of this project, on heads of MICCAI 2012. "
            "plain is an independent forward pass; conformed: our engine on the same conformed head, whose labels "
            "must be the same; ours: our engine on the original image. Dice with structures drawn by hand. The "
            "seconds are those of the processor, one thread; memory without that of the interpreter.",
            ("meshnet", command("meshnet") + " --weights FOLDER", with_bars()),
        ),
        section(
            "23. The server",
            "The embedded toy model on a CPU, all on one machine. Lines of the clients break after 2,000 to 200,000 "
            "bytes. Server or child are killed by `SIGKILL`, 0.2 to 12 s after the last time. Each client whose job "
            "died with its child is told so; all others get the result that this machine makes without a server.",
            ("server", command("server"), with_bars()),
        ),
        section(
            "24. The first weights of a short training",
            "toy-120 is trained further on twelve volumes that label 100 of its cells, and ten others as one new "
            "structure. random: random weights; network: its weights without the last layer, as nnU-Net takes them; "
            "classes: also the rows of the same classes in the last layer, and a fitted one for the new structure. "
            "Dice of six unseen volumes: of all structures, of the 100 known ones and of the new one. One thread, "
            "Adam; one run each.",
            ("start_weights", command("start_weights"), with_bars()),
        ),
        section(
            "25. bfloat16 on a CPU",
            "A patch of 128^3 voxels through networks of nnU-Net's usual size: its own modules (stock), our engine in "
            "float32 and in bfloat16, best of three. Then the embedded models in bfloat16 against float32: the share "
            "of voxels with another label, the Dice of both results on the samples, and on the heads of MICCAI 2012 "
            "the mean Dice of either result to the structures drawn by hand.",
            ("bfloat16", command("bfloat16"), with_bars()),
        ),
        section(
            "26. Weights in 8 bits",
            "The embedded networks with weights of 32 bits and the same ones stored in 8: the size of both bundles, "
            "the share of voxels of the sample that get another label, and the Dice of both results. On the heads of "
            "MICCAI 2012, the mean Dice of either result to the structures drawn by hand.",
            ("eight_bits", command("eight_bits") + " --head MODEL", with_bars()),
        ),
        section(
            "27. The optimiser of a fine-tuning",
            "toy-120 is trained further on four volumes for one epoch of 250 steps. same: volumes of its own 120 "
            "cells; scanner: the same cells blurred, with another contrast and more noise; new: volumes that label 100 "
            "cells, and ten others as one new structure. The mean Dice of two volumes that are not trained on, of the "
            "structures that the model knows before and after; how many of them became better and worse by 0.001 or "
            "more; and the Dice of the new structure. sgd with 0.001 is what `finetune` does, with 0.01 nnU-Net. One "
            "thread; one run each.",
            ("finetune_optimizer", command("finetune_optimizer"), with_bars()),
        ),
        section(
            "28. A new structure for a model",
            "Ten cells of toy-120 are united to a structure that it does not know, and the model is trained further on "
            "six volumes for one epoch of 250 steps. all: all structures are drawn; filled: the new one alone, and "
            "the model fills in the others (`finetune --fill`); alone: the new one alone. The mean Dice of six volumes "
            "that no training has seen, of the 110 other cells and of the new structure. One thread; one run each.",
            ("new_structure", command("new_structure"), with_bars()),
        ),
        section(
            "29. A longer fine-tuning on more volumes",
            "As section 27, but five epochs of 250 steps on sixteen volumes, and the mean Dice of four that are not "
            "trained on. scanner: blurred, with another contrast and more noise. One thread; one run each.",
            ("finetune_length", command("finetune_length"), with_bars()),
        ),
    ]


def miccai2012(result: dict[str, Any]) -> str:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, clock in result["curves"].items():
            minutes = [entry["seconds"] / 60 for entry in clock]
            axes.plot(minutes, [entry["pseudo Dice"] for entry in clock], ".-", label=name)
        axes.set(xlabel="minutes of training on one thread", ylabel="pseudo Dice of the test subjects", ylim=(0, 1))
        axes.legend()

    rows = "Each structure, mean Dice:\n\n" + table(
        result["structures"], {key: key for row in result["structures"] for key in row}
    )
    return "\n\n".join([with_bars()(result), plot("miccai2012", draw, (7, 3.6)), rows])


def main() -> int:
    from ClassScaleSegLib.files import replacing

    page = "\n\n".join([HEAD.rstrip(), *sections()]) + "\n"
    with replacing(HERE / "RESULTS.md", overwrite=True) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")
    print(f"{HERE / 'RESULTS.md'}: {page.count('Not measured yet')} results are missing.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
