"""Let nnU-Net find our trainers: it searches the folder of this file if ``nnUNet_extTrainer`` names it.

This file only imports the trainers. A class defined here could not be pickled, because nnU-Net removes the modules of
this folder from ``sys.modules`` after its search.
"""

from classscale_training.nnunet.primus_trainers import *  # noqa: F403
from classscale_training.nnunet.trainer_variants import *  # noqa: F403
