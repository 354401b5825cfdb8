"""Which program a model is from: nnU-Net and our own bundles, or another one with a reader of its own."""

from __future__ import annotations

from . import auto3dseg, brainchop
from .files import Files
from .foreign import Reader

_READERS: dict[str, Reader] = {auto3dseg.MODEL: auto3dseg, brainchop.MODEL: brainchop}  # by the file that tells


def foreign_reader(files: Files) -> Reader | None:
    """Return the reader of a model, or ``None`` if it is one of nnU-Net or a bundle."""
    if "manifest.json" in files or "plans.json" in files:
        return None
    return next((reader for marker, reader in _READERS.items() if marker in files), None)
