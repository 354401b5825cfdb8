"""The command ``classscaleseg``: segment, inspect, pack, models, demo."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from .. import errors
from ..process.allocator import return_memory_at_once
from ..process.exit_codes import ExitCode, exit_code
from ..process.parent_watch import ParentWatch
from .models import add_models_options, models_command
from .options import fraction, model_options
from .reporting import JsonReporter, Reporter, TerminalReporter
from .segment import add_segment_options, segment_command

__all__ = ["ExitCode", "exit_code", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns an :class:`ExitCode`."""
    options = _parser().parse_args(arguments)
    reporter = JsonReporter() if getattr(options, "json_progress", False) else TerminalReporter()
    # a polite kill cleans up like Ctrl-C; signals can be caught in the main thread only
    embedded = threading.current_thread() is not threading.main_thread()
    before = None if embedded else signal.signal(signal.SIGTERM, _interrupt)
    if not embedded:
        return_memory_at_once()
    parent = getattr(options, "stop_with_parent", None)
    try:
        with ParentWatch(*parent) if parent else nullcontext():
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


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def inspect_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Tell what a model is, and what it takes to run it on an image."""
    from ..catalog.catalog import resolve_model
    from ..models.model import open_model
    from .inspect import describe, describe_job

    parts = []
    for path in resolve_model(options.model):
        model = open_model(path, options.folds, options.checkpoint, options.configuration)
        parts.append(describe(model))
        if options.image:
            image = options.image[0] if len(options.image) == 1 else options.image
            parts[-1] |= describe_job(model, image, options.step)
    if options.json:
        print(json.dumps(parts[0] if len(parts) == 1 else parts, indent=2))
        return ExitCode.OK
    for facts in parts:
        for key, value in facts.items():
            if key != "classes":
                print(f"{key:>24}  {value}")
        for value, name in facts["classes"].items():
            print(f"{value:>24}  {name}")
    return ExitCode.OK


def pack_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Make a bundle of a model folder."""
    from ..models.packing import pack

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
        half_precision=options.half_precision,
        overwrite=options.overwrite,
    )
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB")
    return ExitCode.OK


def demo_command(options: argparse.Namespace, reporter: Reporter) -> ExitCode:
    """Segment a sample volume with its model, both shipped with the project."""
    from .demo import run_demo

    run_demo(options.name, options.output, options.device, reporter)
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
    add_segment_options(segment)

    inspect = command("inspect", inspect_command)
    _one_model(inspect)
    inspect.add_argument("image", nargs="*", help="estimate memory and windows for this image (a file a channel)")
    inspect.add_argument("--step", type=fraction, default=0.5)
    inspect.add_argument("--json", action="store_true")

    pack = command("pack", pack_command)
    _one_model(pack)
    pack.add_argument("-o", "--output", required=True, metavar="BUNDLE.zip")
    pack.add_argument("--labels", metavar="CSV", help="names, colours and codes (Slicer's colour table columns)")
    pack.add_argument("--card", metavar="README.md", help="the model card")
    pack.add_argument("--name", help="what people call the model")
    pack.add_argument("--licence", help="of the weights, such as CC-BY-4.0")
    pack.add_argument("--modality", help="such as CT or MR")
    pack.add_argument("--orientation", help="that images must be turned to first, such as RAS")
    pack.add_argument("--notice", help="to be shown to users")
    pack.add_argument("--half-precision", action="store_true", help="weights as float16: half the size")
    pack.add_argument("--overwrite", action="store_true")

    add_models_options(command("models", models_command))

    demo = command("demo", demo_command)
    demo.add_argument("name", nargs="?", default="toy", help="which sample: toy (default), toy-1000, head")
    demo.add_argument("-o", "--output", default="classscaleseg-demo", metavar="FOLDER")
    demo.add_argument("--device", default="auto")
    return parser


def _one_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="nnU-Net v2 model folder, exported zip, or bundle")
    model_options(parser)


if __name__ == "__main__":
    sys.exit(main())
