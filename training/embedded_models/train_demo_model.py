"""Train the embedded demo model (120 classes, 64^3 grid) on CPU; call again to resume.

    python training/embedded_models/train_demo_model.py [--folder .benchmarks/demo] [--steps 4000] ...

The bare loop (:mod:`classscale_training.loop`) with the preset ``toy-120``; all its options can be given. Writes an
nnU-Net v2 model folder; ``classscaleseg pack`` makes the bundle in ``Resources/Models`` from it. Data are generated,
so there is nothing to download and no licence beyond this project's.
"""

import sys

from classscale_training.loop.train import main

if __name__ == "__main__":
    sys.exit(main(["--preset", "toy-120", "--folder", ".benchmarks/demo", *sys.argv[1:]]))
