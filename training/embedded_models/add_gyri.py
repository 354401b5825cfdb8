"""Draw the gyri of the atlas on the cortex of the individuals, in the file that prepare_brain_data.py wrote.

    python training/embedded_models/add_gyri.py

The label maps of the individuals know the cortex as a whole; a training with this file learns its gyri from them too
(:mod:`classscale_training.data.brain.gyri`). The file is written after each individual, and the same command goes on
where it stopped. The script needs SciPy.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from classscale_training.data.brain import BrainTables, LabelMaps
from classscale_training.data.brain.gyri import gyri_of
from embedded_models import LABEL_MAPS, run

OPTIONS = {"--label-maps": {**LABEL_MAPS, "help": "file to change (default: %(default)s)"}}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    return run(__doc__, OPTIONS, _add, arguments)


def _add(options: argparse.Namespace) -> str:
    tables = BrainTables.read()
    maps = LabelMaps.read(options.label_maps, tables)
    for individual in maps.training:
        if individual not in maps.gyri:
            maps = replace(maps, gyri={**maps.gyri, individual: gyri_of(maps, tables, individual)})
            maps.write(options.label_maps, tables)
            print(f"Individual {individual} has its gyri.", flush=True)
    return f"{options.label_maps}: {len(maps.gyri)} individuals with gyri."


if __name__ == "__main__":
    sys.exit(main())
