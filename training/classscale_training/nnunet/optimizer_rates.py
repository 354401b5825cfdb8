"""The optimisers of a training, and their learning rates; nothing here needs torch."""

from __future__ import annotations

SGD, ADAMW = "sgd", "adamw"
RATES = {SGD: 1e-2, ADAMW: 3e-4}  # of the first epoch: those of nnU-Net, for U-Nets and for Primus
