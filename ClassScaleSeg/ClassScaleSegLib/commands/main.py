"""Parse the command line of ``classscaleseg``, run the subcommand, and turn errors into messages and exit codes."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ..catalog.catalog import Catalog, entry_named, resolve_model
from ..catalog.defaults import configuration_of
from ..errors import ModelError
from ..images.dicom.headers import modality_of
from ..images.reading import refuse_missing
from ..models.model import open_model
from ..models.packing import BITS, pack
from ..models.summary import summarize
from ..process.allocator import return_memory_at_once
from ..process.ending import run_command
from ..process.exit_codes import ExitCode, exit_code
from ..process.fault_log import FaultLog
from ..process.parent_watch import ParentWatch
from ..version import VERSION
from .cohort import add_cohort_options, cohort_command
from .compare import add_compare_options, compare_command
from .dicom import add_dicom_options, dicom_command
from .inspect import describe, describe_job
from .models import add_models_options, models_command
from .options import add_command, add_options
from .parsing import Parser
from .reporting import JsonReporter, Reporter, TerminalReporter
from .segment import segment_command
from .segment_options import add_segment_options
from .serve import add_serve_options, serve_command
from .servers import add_servers_options, servers_command

__all__ = ["ExitCode", "exit_code", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: as the shell splits them, without the name of the program; by default those of this process.
    :returns: an :class:`ExitCode`.
    :raises SystemExit: if the command line is not valid, or asks for help.

    >>> main(["models", "card", "toy-120"])  # doctest: +ELLIPSIS
    # Toy atlas, 120 classes
    ...
    0
    """
    faults = FaultLog("classscaleseg", arguments)
    reporter: Reporter = TerminalReporter(faults)

    def run() -> int:
        nonlocal reporter
        options = _parser().parse_args(arguments)
        if getattr(options, "json_progress", False):
            reporter = JsonReporter(faults)
        parent = getattr(options, "stop_with_parent", None)
        with ParentWatch(*parent) if parent else nullcontext():
            return int(options.run(options, reporter) or ExitCode.OK)

    # a termination signal, or the end of the terminal, cleans up like Ctrl-C; only the main thread can catch signals
    embedded = threading.current_thread() is not threading.main_thread()
    before = {} if embedded else {number: signal.signal(number, signal.default_int_handler) for number in _ends()}
    if not embedded:
        return_memory_at_once()
    try:
        return run_command(
            run, lambda error: reporter.error(error), faults, "Cancelled; nothing unfinished was written."
        )
    finally:
        reporter.close()
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _ends() -> list[signal.Signals]:
    """Return the signals that end a command, besides Ctrl-C."""
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows; under nohup it is ignored, and stays so
    return [signal.SIGTERM, *([hang_up] if hang_up and signal.getsignal(hang_up) is not signal.SIG_IGN else [])]


def inspect_command(options: argparse.Namespace, reporter: Reporter) -> None:
    """Print facts about a model, and the memory that it needs for an image."""
    parts, catalog = [], Catalog()
    for file in options.image:
        refuse_missing(Path(file))
    chosen = options.configuration or configuration_of([entry_named(options.model, catalog)])
    for path in resolve_model(options.model, catalog):
        model = open_model(path, options.folds, options.checkpoint, chosen)
        parts.append(describe(model))
        if options.image:
            image = options.image[0] if len(options.image) == 1 else options.image
            summary = summarize(path, chosen)
            parts[-1] |= describe_job(model, summary, image, options.step, modality_of(Path(options.image[0])))
    if options.json:
        print(json.dumps(parts[0] if len(parts) == 1 else parts, indent=2))
        return
    for facts in parts:
        classes, warnings = facts.pop("classes"), facts.pop("warnings", ())
        width = max(map(len, facts))
        for key, value in (*facts.items(), *classes.items(), *(("warning", sentence) for sentence in warnings)):
            print(f"{key:>{width}}  {value}".rstrip())


def pack_command(options: argparse.Namespace, reporter: Reporter) -> None:
    """Pack a model into a bundle, a single zip without pickles that includes a label table and a model card."""
    catalog = Catalog()
    paths = resolve_model(options.model, catalog)
    if len(paths) > 1:
        listed = ", ".join(map(str, paths))
        raise ModelError(f"{options.model} consists of {len(paths)} models. Pack them one by one: {listed}.")
    chosen = options.configuration or configuration_of([entry_named(options.model, catalog)])
    more = {name: value for name, value in vars(options).items() if name not in ("run", "model", "output")}
    written = pack(paths[0], options.output, **{**more, "configuration": chosen})
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB")


def demo_command(options: argparse.Namespace, reporter: Reporter) -> None:
    """Segment a sample volume with an embedded model, and write the result, statistics, a picture and a report."""
    from .demo import run_demo

    run_demo(options.name, options.output, options.device, reporter)


def report_command(options: argparse.Namespace, reporter: Reporter) -> None:
    """Write the page of a report again, from the files of its cases, such as after several machines have added some."""
    from ..report.report import Report

    print(Report(options.folder).write(options.title))


def _parser() -> Parser:
    codes = "\n".join(f"  {code.value:>3}  {code.name.lower().replace('_', ' ')}" for code in ExitCode)
    parser = Parser(
        "classscaleseg",
        description="Segment 3D medical images into hundreds of named structures.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.example = "classscaleseg demo"
    parser.meant, parser.meant_by_file = "classscaleseg segment {} -m MODEL -o OUT", True
    parser.add_argument("--version", action="version", version=f"ClassScaleSeg {VERSION}")
    command = partial(add_command, parser.add_subparsers(required=True, metavar="COMMAND"), "run")

    add_segment_options(command("segment", segment_command, "ct.nii.gz -m toy-120 -o ct.seg.nrrd"))

    inspect = command("inspect", inspect_command, "toy-120 ct.nii.gz")
    _one_model(inspect, "nnU-Net v2 model folder, exported zip, bundle, or id or name of a model of the catalogue")
    text = "also estimate memory and windows for this image (one file per channel)"
    inspect.add_argument("image", nargs="*", default=[], metavar="IMAGE", help=text)  # a default: it is not required
    add_options(inspect, "step")
    inspect.add_argument("--json", action="store_true", help="print JSON")

    bundle = command("pack", pack_command, "nnUNetTrainer__nnUNetPlans__3d_fullres -o my-model.zip")
    _one_model(bundle, "nnU-Net v2 model folder, exported zip, or bundle")
    bundle.add_argument("-o", "--output", required=True, metavar="BUNDLE.zip", help="file to write")
    bundle.add_argument(
        "--labels", metavar="TABLE", help="label table: a CSV with names, colours and codes, or a colour table"
    )
    bundle.add_argument("--card", metavar="README.md", help="file with the model card")
    bundle.add_argument("--name", help="name of the model that users see")
    bundle.add_argument("--licence", help="licence of the weights, such as CC-BY-4.0")
    bundle.add_argument("--modality", help="modality of the images, such as CT or MR")
    bundle.add_argument("--orientation", help="anatomical orientation to which images are turned first, such as RAS")
    bundle.add_argument("--notice", help="a sentence that is shown to users")
    text = "bits of a stored weight: 32 (default), 16 for half the size, or 8 for a quarter"
    bundle.add_argument("--bits", type=int, choices=BITS, help=text)
    text = "with mirroring, also segment the mirror image of the patient, with left and right exchanged: twice the time"
    bundle.add_argument("--swap-sides", action="store_true", help=text)
    bundle.add_argument("--overwrite", action="store_true", help="replace the file if it exists")

    add_models_options(command("models", models_command, "list --search kidney"))

    add_servers_options(command("servers", servers_command, "add lab https://lab-gpu:8471"))

    add_cohort_options(command("cohort", cohort_command, "status results/"))

    add_compare_options(command("compare", compare_command, "reference.seg.nrrd ct.seg.nrrd"))

    report = command("report", report_command, "report/")
    report.add_argument("folder", metavar="DIR", help="folder of the report, as of segment --report")
    report.add_argument("--title", help="title of the page (default: the name of the case, or the number of cases)")

    add_dicom_options(command("dicom", dicom_command, "send ct.seg.dcm --to http://localhost:8042/dicom-web"))

    add_serve_options(command("serve", serve_command, "--models toy-120 head-mr-312"))

    demo = command("demo", demo_command, "head")
    text = "sample to segment: toy (default), toy-1000 or head"
    demo.add_argument("name", nargs="?", default="toy", metavar="NAME", help=text)
    text = "folder for the files; existing ones are replaced (default: classscaleseg-demo)"
    demo.add_argument("-o", "--output", default="classscaleseg-demo", metavar="FOLDER", help=text)
    add_options(demo, "device")
    return parser


def _one_model(parser: argparse.ArgumentParser, kinds: str) -> None:
    parser.add_argument("model", metavar="MODEL", help=kinds)
    add_options(parser, "folds", "checkpoint", "configuration")
