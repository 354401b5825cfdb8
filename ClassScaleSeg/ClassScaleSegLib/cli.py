"""The command ``classscaleseg``: segment, inspect, pack, demo."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path
from typing import Any

from . import errors
from .cases import Case, find_cases
from .reporting import JsonReporter, Reporter, TerminalReporter


class ExitCode(IntEnum):
    """What the command's exit status says."""

    OK = 0
    SOME_FAILED = 1  # of several cases; the others are done
    USAGE = 2
    MODEL = 3  # the model cannot be used
    IMAGE = 4  # the image cannot be read or does not fit the model
    OUTPUT = 5  # the result cannot be written, or is there already
    OUT_OF_MEMORY = 6
    LABELS = 7  # a label table or a class name is wrong
    FAULT = 8  # any other fault that has a message
    CANCELLED = 130  # Ctrl-C or a termination signal


_CODES = (
    (errors.ModelError, ExitCode.MODEL),
    (errors.ImageError, ExitCode.IMAGE),
    (errors.OutputError, ExitCode.OUTPUT),
    (errors.OutOfMemoryError, ExitCode.OUT_OF_MEMORY),
    (errors.LabelTableError, ExitCode.LABELS),
    (errors.Cancelled, ExitCode.CANCELLED),
    (errors.ClassScaleError, ExitCode.FAULT),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns an :class:`ExitCode`."""
    options = _parser().parse_args(arguments)
    reporter = JsonReporter() if getattr(options, "json_progress", False) else TerminalReporter()
    # a polite kill cleans up like Ctrl-C; signals can be caught in the main thread only
    embedded = threading.current_thread() is not threading.main_thread()
    before = None if embedded else signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.run(options, reporter))
    except errors.ClassScaleError as error:
        reporter.error("", error)
        return int(exit_code(error))
    except KeyboardInterrupt:
        reporter.error("", errors.Cancelled("Cancelled; nothing unfinished was written."))
        return int(ExitCode.CANCELLED)
    except MemoryError:
        reporter.error("", errors.OutOfMemoryError("Memory ran out. Close other programs, or crop the image."))
        return int(ExitCode.OUT_OF_MEMORY)
    finally:
        reporter.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def exit_code(error: errors.ClassScaleError) -> ExitCode:
    return next(code for kind, code in _CODES if isinstance(error, kind))


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def segment_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment one case, or many: finished ones are skipped, a broken one does not stop the others."""
    from .model import open_model
    from .output import IMAGE_SUFFIXES, SEGMENTATION_SUFFIXES, TABLE_SUFFIXES, check_writable

    suffixes = {"confidence": IMAGE_SUFFIXES, "statistics": TABLE_SUFFIXES}
    model = open_model(options.model, options.folds, options.checkpoint, options.configuration)
    found = find_cases(options.images, model.channels, options.output, options.format)
    failed = []
    for index, case in enumerate(found.cases, start=1):
        reporter.begin(case.name, index, len(found.cases))
        if found.many and case.output.exists() and not options.overwrite:
            reporter.skipped(case.name, f"{case.output} is there already")
            continue
        try:
            files = _side_files(options, case, found.many)
            check_writable(case.output, options.overwrite, SEGMENTATION_SUFFIXES)
            for kind, path in files.items():
                check_writable(path, options.overwrite, suffixes[kind])
            _segment_case(options, reporter, case, files, model)
        except errors.Cancelled:
            raise
        except Exception as error:
            if not found.many:
                raise
            if not isinstance(error, errors.ClassScaleError):
                traceback.print_exc()  # a bug of ours or of a library: shown, and the other cases go on
                error = errors.ClassScaleError(f"{case.name} failed unexpectedly ({type(error).__name__}: {error}).")
            reporter.error(case.name, error)
            failed.append(case.name)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _side_files(options: argparse.Namespace, case: Case, many: bool) -> dict[str, Path]:
    """Confidence and statistics files of a case; with many cases the options name folders."""
    files = {}
    for kind, suffix in (("confidence", ".nrrd"), ("statistics", ".csv")):
        if (named := getattr(options, kind)) is not None:
            files[kind] = Path(named) / f"{case.name}{suffix}" if many else Path(named)
    return files


def _segment_case(options: argparse.Namespace, reporter: Reporter, case: Case, files: dict, model: Any) -> None:
    from .files import replacing
    from .inference.progress import Progress
    from .inference.segmenter import segment

    begin = time.monotonic()
    result = segment(
        case.files[0] if len(case.files) == 1 else case.files,
        model,
        progress=reporter.progress,
        device=options.device,
        step=options.step,
        mirroring=not options.no_mirroring,
        classes=options.classes,
        confidence="confidence" in files,
        memory_limit=None if options.memory_limit is None else int(options.memory_limit * 2**30),
        threads=options.threads,
    )
    reporter.progress(Progress("write", 0, 1))
    writers = {"confidence": result.write_confidence, "statistics": result.write_statistics}
    with ExitStack() as stack:  # all are written before any gets its name
        for kind, path in files.items():
            writers[kind](stack.enter_context(replacing(path, options.overwrite)))
        result.write(case.output, options.overwrite, options.keep_empty)
    structures = sum(row.voxels > 0 for row in result.statistics())
    reporter.result(
        case.name, output=case.output, **files, structures=structures, seconds=round(time.monotonic() - begin, 2)
    )


def inspect_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Tell what a model is, and what it takes to run it on an image."""
    from .inspection import describe, describe_job
    from .model import open_model

    model = open_model(options.model, options.folds, options.checkpoint, options.configuration)
    facts = describe(model)
    if options.image:
        image = options.image[0] if len(options.image) == 1 else options.image
        facts |= describe_job(model, image, options.step)
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        for key, value in facts.items():
            if key != "classes":
                print(f"{key:>24}  {value}")
        for value, name in facts["classes"].items():
            print(f"{value:>24}  {name}")
    return ExitCode.OK


def pack_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Make a bundle of a model folder."""
    from .bundle import pack

    written = pack(
        options.model,
        options.output,
        folds=options.folds,
        checkpoint=options.checkpoint,
        configuration=options.configuration,
        labels=options.labels,
        card=options.card,
        name=options.name,
        licence=options.licence,
        modality=options.modality,
        orientation=options.orientation,
        notice=options.notice,
        overwrite=options.overwrite,
    )
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB")
    return ExitCode.OK


def demo_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment the sample volume with the model, both shipped with the project."""
    from .demo import run_demo

    run_demo(options.output, options.device, reporter)
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code.value:>3}  {code.name.lower().replace('_', ' ')}" for code in ExitCode)
    parser = argparse.ArgumentParser(
        "classscaleseg",
        description="Segment 3D medical images into hundreds of named structures.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    segment = command("segment", segment_command)
    segment.add_argument("images", nargs="+", metavar="IMAGE", help="file, one file a channel, DICOM or case folder")
    segment.add_argument("-o", "--output", required=True, metavar="OUT", help="result: a file, or a folder")
    _model_options(segment, "-m")
    segment.add_argument("--format", default=".seg.nrrd", choices=(".seg.nrrd", ".nii.gz", ".nrrd", ".mha"))
    segment.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    segment.add_argument("--step", type=_fraction, default=0.5, help="distance of windows in patches (default 0.5)")
    segment.add_argument("--no-mirroring", action="store_true", help="faster, a little less precise")
    segment.add_argument("--classes", nargs="+", metavar="NAME", help="keep only these (names or label values)")
    segment.add_argument("--confidence", metavar="FILE", help="also write the probability of each voxel's class")
    segment.add_argument("--statistics", metavar="FILE", help="also write voxels and mL of each class as CSV")
    segment.add_argument("--memory-limit", type=_positive, metavar="GIB", help="of the GPU, or of RAM on a CPU")
    segment.add_argument("--threads", type=_count, help="default: OMP_NUM_THREADS, or all cores but one")
    segment.add_argument("--keep-empty", action="store_true", help="list classes that were not found as well")
    segment.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    segment.add_argument("--json-progress", action="store_true", help="JSON lines on standard output")

    inspect = command("inspect", inspect_command)
    _model_options(inspect, None)
    inspect.add_argument("image", nargs="*", help="estimate memory and windows for this image (a file a channel)")
    inspect.add_argument("--step", type=_fraction, default=0.5)
    inspect.add_argument("--json", action="store_true")

    pack = command("pack", pack_command)
    _model_options(pack, None)
    pack.add_argument("-o", "--output", required=True, metavar="BUNDLE.zip")
    pack.add_argument("--labels", metavar="CSV", help="names, colours and codes (Slicer's colour table columns)")
    pack.add_argument("--card", metavar="README.md", help="the model card")
    pack.add_argument("--name", help="what people call the model")
    pack.add_argument("--licence", help="of the weights, such as CC-BY-4.0")
    pack.add_argument("--modality", help="such as CT or MR")
    pack.add_argument("--orientation", help="that images must be turned to first, such as RAS")
    pack.add_argument("--notice", help="to be shown to users")
    pack.add_argument("--overwrite", action="store_true")

    demo = command("demo", demo_command)
    demo.add_argument("-o", "--output", default="classscaleseg-demo", metavar="FOLDER")
    demo.add_argument("--device", default="auto")
    return parser


def _model_options(parser: argparse.ArgumentParser, flag: str | None) -> None:
    text = "nnU-Net v2 model folder, exported zip, or bundle"
    if flag:
        parser.add_argument(flag, "--model", required=True, help=text)
    else:
        parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument("--folds", nargs="+", default=None, help="such as 0 1 2 (default: all there are)")
    parser.add_argument("--checkpoint", default="final", choices=("final", "best"))
    parser.add_argument("--configuration", help="which of several models in MODEL")


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
