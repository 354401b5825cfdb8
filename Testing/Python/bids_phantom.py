"""A BIDS dataset for tests."""

from __future__ import annotations

import json
from pathlib import Path


def touch(root: Path, name: str, content: bytes = b"") -> None:
    """Write a file, and the folders above it."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


def dataset(root: Path, *names: str, **described: object) -> Path:
    """A dataset with empty files of these names, and further entries of its description."""
    description = {"Name": "Phantom", "BIDSVersion": "1.8.0", **described}
    touch(root, "dataset_description.json", json.dumps(description).encode())
    for name in names:
        touch(root, name)
    return root
