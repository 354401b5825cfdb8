"""Stand-ins for the steps of ``classscaleseg-train finetune``, and cases to train on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import collect_cases  # noqa: E402
from classscale_training import commands  # noqa: E402
from classscale_training.files import write_json  # noqa: E402
from classscale_training.nnunet.finetuning import work as finetune_work  # noqa: E402
from classscale_training.processes import subcommand  # noqa: E402
from ClassScaleSegLib import LabelTable, Segmentation  # noqa: E402
from ClassScaleSegLib.process.exit_codes import ExitCode  # noqa: E402
from ClassScaleSegLib.process.job import parse_event  # noqa: E402
from collect_cases import Training  # noqa: E402

NAMES = {1: "cell 1", 2: "cell 2"}


FACTS = {
    "cases": ["a"],
    "structures": [
        {"name": "cell 1", "cases": 1, "dice": [0.5, 0.75]},
        {"name": "cell 2", "cases": 1, "dice": [None, 1.0]},
    ],
    "mean_dice": [0.5, 0.875],
}


class Steps:
    """Stands in for the commands: collects really, and lets the others leave the files that matter."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failing = ""

    def __call__(self, arguments, variables, log, on_line, on_errors):
        self.calls.append(arguments)
        name, preprocessed = arguments[0], Path(variables["nnUNet_preprocessed"])
        if name == self.failing:
            return subcommand.Ended(ExitCode.MODEL, "That is why.")
        if name == "collect":
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("nnUNet_raw", variables["nnUNet_raw"])
                collect_cases.main(*arguments[1:], "--workers", "1")  # the last one counts: no processes for two cases
        elif name == "fill":
            on_line("[1/1] a: 1 structures in 0.5 s -> a.seg.nrrd")
            folder = Path(arguments[arguments.index("-o") + 1])
            for image in Path(arguments[arguments.index("-i") + 1]).iterdir():
                found = folder / f"{image.name.partition('_')[0]}.seg.nrrd"
                if not found.exists():  # what is there stays
                    found.parent.mkdir(parents=True, exist_ok=True)
                    table = LabelTable.from_names({1: "cell 7"})
                    Segmentation(collect_cases.boxes(0, 0, 1), table, collect_cases.GRID).write(found)
        elif name == "plan":
            folder = preprocessed / "Dataset001_Cases"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "ClassScalePlans.json").write_text("{}")
        elif name == "train":
            trained = f"{arguments[arguments.index('-tr') + 1]}__ClassScalePlans__3d_fullres/fold_{arguments[3]}"
            fold = Path(variables["nnUNet_results"], "Dataset001_Cases", trained)
            fold.mkdir(parents=True)
            (fold / "checkpoint_final.pth").write_text(str(len(self.calls)))
            if arguments[3] != "all":
                splits = [{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]
                (preprocessed / "Dataset001_Cases" / "splits_final.json").write_text(json.dumps(splits))
        elif name == "export":
            Path(arguments[arguments.index("-o") + 1]).write_bytes(b"bundle")
        elif name == "compare-models":
            on_line("before: a (1 of 2)")
            write_json(Path(arguments[arguments.index("--results") + 1], "comparison.json"), FACTS)
        return subcommand.Ended(0, "")

    @property
    def names(self) -> list[str]:
        names, self.calls = [call[0] for call in self.calls], []
        return names


@pytest.fixture
def steps(monkeypatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(finetune_work, "run_subcommand", steps)
    return steps


@pytest.fixture
def corrected(tmp_path) -> Training:
    training = Training(tmp_path)
    training.case("a", NAMES)
    return training


def finetune(training, *words, output="mine.zip", model="toy-120"):
    output = training.folder.parent / output
    return commands.main(["finetune", str(training.folder), "-m", model, "-o", str(output), *map(str, words)])


ALL = ["collect", "plan", "preprocess", "train", "export"]


def events_in(text):
    return [event for line in text.splitlines() if (event := parse_event(line))]
