"""The label maps that head images are made from, in one ``.npz`` of a few megabytes that NumPy alone can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import replacing

from .tables import BrainTables

VALIDATION = (11, 12, 13, 14)  # individuals never trained on


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """All subjects, axes from inferior to superior, anterior to posterior, right to left; ``spacing`` mm.

    Subject 0 is the atlas (int16, class labels); subject n > 0 the individual n (uint8, rows of the coarse table).
    """

    spacing: float
    subjects: tuple[np.ndarray, ...]  # each (Z, Y, X)
    centres: np.ndarray  # (subjects, 3) voxel at the middle of the brain, z y x
    from_atlas: np.ndarray  # (subjects, 3, 4) affine map of voxels of the atlas to those of the subject

    @property
    def training(self) -> tuple[int, ...]:
        return tuple(n for n in range(1, len(self.subjects)) if n not in VALIDATION)

    @property
    def validation(self) -> tuple[int, ...]:
        return tuple(n for n in range(1, len(self.subjects)) if n in VALIDATION) or self.training

    def write(self, path: Path, tables: BrainTables) -> None:
        """:raises OutputError: if it cannot be written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {f"subject_{n:02d}": subject for n, subject in enumerate(self.subjects)}
        content |= {"spacing": self.spacing, "centres": self.centres, "from_atlas": self.from_atlas, **_values(tables)}
        with replacing(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **content)

    @classmethod
    def read(cls, path: Path, tables: BrainTables) -> LabelMaps:
        """:raises ClassScaleError: if this is no such file, or one made with other tables."""
        try:
            with np.load(path, allow_pickle=False) as content:
                for name, expected in _values(tables).items():
                    if not np.array_equal(content[name], expected):
                        raise ClassScaleError(
                            f"{path} was made with other tables ({name} differ): run prepare_brain_data.py again."
                        )
                count = len(content["centres"])
                subjects = tuple(content[f"subject_{n:02d}"] for n in range(count))
                return cls(float(content["spacing"]), subjects, content["centres"], content["from_atlas"])
        except (OSError, KeyError, ValueError) as fault:
            raise ClassScaleError(
                f"{path} is not a file of label maps ({fault}): make it with prepare_brain_data.py."
            ) from fault


def _values(tables: BrainTables) -> dict[str, np.ndarray]:
    """The values behind the numbers in the volumes: a table with rows added or moved no longer fits them."""
    structures, coarse = tables.structures, tables.coarse
    return {
        "atlas_values": np.array([row.atlas_value for row in structures]),
        "coarse_values": np.array([row.value for row in coarse]),
    }
