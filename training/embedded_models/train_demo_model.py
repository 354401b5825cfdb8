"""Train the embedded demo model (120 classes, 64^3 grid) on a CPU; the same command resumes the training.

    python training/embedded_models/train_demo_model.py [--folder .benchmarks/demo] [--steps 4000] ...

This is the bare loop (:mod:`classscale_training.loop`) with the preset ``toy-120``. It accepts all options of the loop
and writes an nnU-Net v2 model folder. ``classscaleseg pack`` makes the bundle in ``Resources/Models`` from that folder.
The data are generated, so there is nothing to download and no licence other than that of this project.
"""

import sys

from classscale_training.loop.train import main

if __name__ == "__main__":
    sys.exit(main(["--preset", "toy-120", "--folder", ".benchmarks/demo", *sys.argv[1:]]))
