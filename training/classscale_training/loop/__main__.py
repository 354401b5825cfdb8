"""``python -m classscale_training.loop`` trains: see :mod:`.train`."""

import sys

from .train import main

if __name__ == "__main__":
    sys.exit(main())
