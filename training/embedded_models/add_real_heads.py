"""Write the Dice of real heads into the card of the embedded brain model.

    python Testing/Benchmarks/miccai2012.py prepare
    python Testing/Benchmarks/miccai2012.py embedded
    python training/embedded_models/add_real_heads.py

Weights and tables of the bundle stay as they are, byte for byte. A card that has these figures gets the new ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.models.packing import write_members
from embedded_models import RESOURCES, run

_RESULTS = Path(__file__).resolve().parents[2] / "Testing" / "Benchmarks" / "results" / "miccai2012-head-mr-312.json"
_SENTENCE = re.compile(
    r"^(No Dice on real images is known|The Dice on real images is not known|On 15 real heads).*$", re.MULTILINE
)
_NEXT, _TITLE = "## Dice of every structure, on unseen synthesised heads", "## Dice of structures of real heads"
OPTIONS = {
    "--bundle": {"type": Path, "default": RESOURCES / "Models" / "head-mr-312.zip", "help": "bundle to change"},
    "--results": {"type": Path, "default": _RESULTS, "help": "what miccai2012.py wrote"},
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    return run(__doc__, OPTIONS, _add, arguments, OSError, ValueError, KeyError)


def _add(options: argparse.Namespace) -> str:
    with zipfile.ZipFile(options.bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    rows = json.loads(options.results.read_text(encoding="utf-8"))["cases"]
    text = card(members["README.md"].decode(), rows).encode()
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["README.md"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    members |= {"README.md": text, "manifest.json": json.dumps(manifest, indent=2).encode() + b"\n"}
    with replacing(options.bundle, overwrite=True) as temporary:
        write_members(temporary, members)
    return f"{options.bundle} has the Dice of real heads."


def card(text: str, rows: list[dict[str, Any]]) -> str:
    """Return the card with a sentence on real heads under its quality, and a table of their structures.

    :param rows: those of ``deep`` and ``cortex`` structures together, then one for each structure.
    :raises ValueError: if the card has no place for them.
    """
    deep, cortex, *structures = rows
    sentence = (
        "On 15 real heads (skull-stripped T1, 1 mm) that people have labelled, the training subjects of the MICCAI "
        f"2012 challenge on multi-atlas labelling: mean Dice **{deep['Dice']:.3f}** over {deep['what'].split()[0]} "
        f"deep structures and **{cortex['Dice']:.3f}** over {cortex['what'].split()[0]} of the cortex that both lists "
        "share, some of them as sets; the table below has each. The two lists draw many borders differently, so a "
        "perfect model would not reach 1 either. Measured by `Testing/Benchmarks/miccai2012.py`; the model was neither "
        "trained nor chosen with these heads. Images: OASIS; labels: Neuromorphometrics, Inc. "
        "(http://Neuromorphometrics.com/) under academic subscription."
    )
    without = re.sub(rf"{_TITLE}\n.*?(?={_NEXT})", "", text, flags=re.S)
    written, found = _SENTENCE.subn(sentence, without)
    if found != 1 or _NEXT not in written:
        raise ValueError("The card has no place for real heads.")
    lines = [_TITLE, "", "| structure | mean Dice | pooled Dice |", "|---|---|---|"]
    lines += [f"| {row['what']} | {row['Dice']:.3f} | {row['pooled Dice']:.3f} |" for row in structures]
    return written.replace(_NEXT, "\n".join([*lines, "", _NEXT]), 1)


if __name__ == "__main__":
    sys.exit(main())
