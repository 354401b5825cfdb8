"""The low-rank head, and a plain U-Net."""
