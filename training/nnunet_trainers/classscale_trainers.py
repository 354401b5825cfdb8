"""Where nnU-Net finds our trainers: the environment variable ``nnUNet_extTrainer`` points at this folder.

Imports only: a class defined here could not be pickled, since nnU-Net forgets modules of this folder after the lookup.
"""

from classscale_training.nnunet.trainer_variants import *  # noqa: F403
