"""What weights stored in 8 bits cost: the embedded networks with them, and with the weights that they are made of.

    python Testing/Benchmarks/eight_bits.py --head MODEL [--quick]

MODEL is head-mr-312 with more bits, such as the folder of its training: the embedded one may have 8 already. For each
network, the size of both bundles, and on its sample the share of the voxels that get another label, and the mean Dice
of the classes between both results. On the fifteen real heads of MICCAI 2012 also the mean Dice to the structures drawn
by hand.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bfloat16 import SAMPLES, agreement
from ClassScaleSegLib import open_model, pack, segment
from ClassScaleSegLib.models.model import Model
from ClassScaleSegLib.resources import resource
from measure import Bar, parse, report
from real_heads import two_ways


def labels_of_model(model: Model, image: Path) -> np.ndarray:
    return segment(image, model, device="cpu").labels


def sample(name: str, models: dict[str, Model], files: dict[str, Path]) -> dict[str, Any]:
    image = resource("SampleData", f"{SAMPLES[name]}.nrrd")
    exact, found = (labels_of_model(model, image) for model in models.values())
    sizes = {f"MB, {kind}": round(file.stat().st_size / 1e6, 2) for kind, file in files.items()}
    return {
        "what": f"sample of {name}",
        **sizes,
        **agreement(exact, found, models["float32"].classes),
    }


def main() -> int:
    head = {"type": Path, "required": True, "metavar": "MODEL", "help": "head-mr-312 with more than 8 bits"}
    options = parse(__doc__, "eight_bits", more={"--head": head})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("head-mr-312",) if options.quick else SAMPLES:
            source = options.head if name == "head-mr-312" else resource("Models", f"{name}.zip")
            embedded = open_model(resource("Models", f"{name}.zip"))
            about = {"labels": embedded.table, "orientation": embedded.orientation}
            files = {
                kind: pack(source, Path(folder, f"{name}-{bits}.zip"), bits=bits, **about)
                for kind, bits in (("float32", 32), ("8 bits", 8))
            }
            models = {kind: open_model(file) for kind, file in files.items()}
            rows.append(sample(name, models, files))
        heads = two_ways(
            {kind: partial(labels_of_model, model) for kind, model in models.items()}, 1 if options.quick else None
        )
    lost = max(row["dice of float32"] - row["dice of 8 bits"] for row in heads)
    bars = [Bar("mean Dice by hand that 8 bits lose on real heads", lost, 0.002)]
    return report(options, "eight_bits", [*rows, *heads], bars)


if __name__ == "__main__":
    sys.exit(main())
