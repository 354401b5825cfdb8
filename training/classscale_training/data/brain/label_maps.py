"""The label maps from which head images are made, in one ``.npz`` file of a few megabytes that NumPy can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import replacing

from .tables import BrainTables

VALIDATION = (11, 12, 13, 14)  # individuals that training never sees


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """The label maps of all subjects. Their axes run from inferior to superior, anterior to posterior, right to left.

    :ivar spacing: mm.
    :ivar subjects: each ``(Z, Y, X)``. Subject 0 is the atlas (int16, class labels); subject n > 0 is the individual n
        (uint8, rows of the coarse table).
    :ivar centres: ``(subjects, 3)`` voxel at the middle of the brain, z y x.
    :ivar from_atlas: ``(subjects, 3, 4)`` affine map from voxels of the atlas to voxels of the subject.
    """

    spacing: float
    subjects: tuple[np.ndarray, ...]
    centres: np.ndarray
    from_atlas: np.ndarray

    @property
    def training(self) -> tuple[int, ...]:
        """Numbers of the individuals to train on."""
        return tuple(n for n in range(1, len(self.subjects)) if n not in VALIDATION)

    @property
    def validation(self) -> tuple[int, ...]:
        """Numbers of the individuals that training never sees; those to train on if there are no others."""
        return tuple(n for n in range(1, len(self.subjects)) if n in VALIDATION) or self.training

    def write(self, path: Path, tables: BrainTables) -> None:
        """Write the file ``path``, together with the values of ``tables`` that its numbers refer to.

        :raises OutputError: if it cannot be written.
        """
        content: dict[str, Any] = {f"subject_{n:02d}": subject for n, subject in enumerate(self.subjects)}
        content |= {"spacing": self.spacing, "centres": self.centres, "from_atlas": self.from_atlas, **_values(tables)}
        with replacing(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **content)

    @classmethod
    def read(cls, path: Path, tables: BrainTables) -> LabelMaps:
        """Read a file that :meth:`write` wrote.

        :raises ClassScaleError: if it is not such a file, or was made with other tables.
        """
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
    """Return the values to which the numbers in the volumes refer.

    Adding or moving rows of a table changes what these numbers mean, so the volumes then no longer fit it.
    """
    atlas, coarse = [row.atlas_value for row in tables.structures], [row.value for row in tables.coarse]
    return {"atlas_values": np.array(atlas), "coarse_values": np.array(coarse)}
