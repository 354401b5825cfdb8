"""The label maps from which head images are made, in one ``.npz`` file of a few megabytes that NumPy can read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import replacing

from .tables import BrainTables

VALIDATION = (11, 12, 13, 14)  # individuals that training never sees
_GYRI = "gyri_"  # and the number of the individual: its name in the file


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """The label maps of all subjects. Their axes run from inferior to superior, anterior to posterior, right to left.

    :ivar spacing: mm.
    :ivar subjects: each ``(Z, Y, X)``. Subject 0 is the atlas (int16, class labels); subject n > 0 is the individual n
        (uint8, rows of the coarse table).
    :ivar centres: ``(subjects, 3)`` voxel at the middle of the brain, z y x.
    :ivar from_atlas: ``(subjects, 3, 4)`` affine map from voxels of the atlas to voxels of the subject.
    :ivar gyri: the gyri of individuals that were made by :func:`.gyri_of`, by number of the subject: ``(Z, Y, X)``
        int16, classes of the atlas, 0 outside the cortex.
    """

    spacing: float
    subjects: tuple[np.ndarray, ...]
    centres: np.ndarray
    from_atlas: np.ndarray
    gyri: dict[int, np.ndarray] = field(default_factory=dict)

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
        content |= {f"{_GYRI}{n:02d}": classes for n, classes in self.gyri.items()}
        content |= {"spacing": self.spacing, "centres": self.centres, "from_atlas": self.from_atlas, **_values(tables)}
        with replacing(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **content)

    def digests(self) -> dict[str, str]:
        """Return what tells the label maps from others: a digest for the atlas, the individuals and the gyri."""
        places = np.float64(self.spacing), self.centres, self.from_atlas
        gyri = [array for n in sorted(self.gyri) for array in (np.int64(n), self.gyri[n])]
        parts = {"atlas": (*places, self.subjects[0]), "individuals": self.subjects[1:], "gyri": gyri}
        return {name: _digest(arrays) for name, arrays in parts.items()}

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
                gyri = {int(n[len(_GYRI) :]): content[n] for n in content.files if n.startswith(_GYRI)}
                if odd := [n for n, classes in gyri.items() if classes.shape != subjects[n].shape]:
                    raise ValueError(f"the gyri of individual {odd[0]} have another shape than its label map")
                return cls(float(content["spacing"]), subjects, content["centres"], content["from_atlas"], gyri)
        except (OSError, KeyError, IndexError, ValueError) as fault:
            raise ClassScaleError(
                f"{path} is not a file of label maps ({fault}): make it with prepare_brain_data.py."
            ) from fault


def set_centres(sets: np.ndarray, count: int) -> np.ndarray:
    """Return the centre of each set of structures, ``(count, 3)`` in voxels; NaN for ``rest`` and for missing sets.

    :param sets: labels of sets ``(Z, Y, X)``; what is below 0 counts as ``rest``, which is 0.
    """
    labels = np.maximum(sets, 0).ravel()
    voxels = np.bincount(labels, minlength=count).astype(float)
    voxels[0] = 0
    voxels[voxels == 0] = np.nan
    places = np.indices(sets.shape, np.float32).reshape(3, -1)
    return np.stack([np.bincount(labels, weights=place, minlength=count) / voxels for place in places], 1)


def affine_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the affine map ``(3, 4)`` that best maps the centres ``first`` to ``second``, where both are known."""
    both = ~(np.isnan(first) | np.isnan(second)).any(1)
    rows = np.concatenate([first[both], np.ones((both.sum(), 1))], 1)
    return np.linalg.lstsq(rows, second[both], rcond=None)[0].T


def _digest(arrays: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _values(tables: BrainTables) -> dict[str, np.ndarray]:
    """Return the values to which the numbers in the volumes refer.

    Adding or moving rows of a table changes what these numbers mean, so the volumes then no longer fit it.
    """
    atlas, coarse = [row.atlas_value for row in tables.structures], [row.value for row in tables.coarse]
    return {"atlas_values": np.array(atlas), "coarse_values": np.array(coarse)}
