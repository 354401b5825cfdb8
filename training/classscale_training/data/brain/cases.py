"""Synthesised heads as training cases. Like the toy data, a case depends on seed and index alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ..random_fields import case_generator, uniform
from .label_maps import LabelMaps
from .synthesis import Palette, degrade, nearest, paint, random_pose
from .tables import AIR, IGNORE_INDEX, BrainTables

_LEAST_MM3 = 200.0  # a smaller class counts as this large in the shares
_SKULL_STRIPPED = 0.18  # of the cases
_FAR = 0.08  # of the cases: patches that contain little of the brain, as some sliding windows do
# mm from the middle of the brain, z y x: most sliding windows of a whole head are near, some are far
_NEAR_OFFSETS = ((-42.0, 25.0), (-25.0, 25.0), (-18.0, 18.0))
_FAR_OFFSETS = ((-110.0, 60.0), (-75.0, 75.0), (-60.0, 60.0))
_SMALL_IMAGE = 0.4  # of the cases: images smaller than the patch, mostly along all axes
_LEAST_FIELD = 0.65  # of a patch, along each axis


@dataclass(frozen=True)
class BrainOptions:
    """Which heads to synthesise.

    :ivar patch: voxels, z y x.
    :ivar spacing: mm.
    :ivar seed: another seed gives other cases.
    :ivar atlas_share: share of the cases that show the atlas subject; the others show individuals.
    :ivar mirrored: share of the cases that are mirrored, with left and right labels exchanged. Nobody is symmetric, so
        a mirrored subject is another one.
    :ivar deformation: largest standard deviation, in mm, of the displacements that are drawn every 28 mm.
    :ivar warm_up: number of cases over which they get harder: at first all are T1-weighted images of the atlas subject
        around the middle of the brain, then more and more are any others.
    """

    patch: tuple[int, int, int] = (64, 96, 80)
    spacing: float = 2.0
    seed: int = 0
    atlas_share: float = 0.7
    mirrored: float = 0.0
    deformation: float = 3.0
    warm_up: int = 0


class BrainCases(Dataset):
    """Cases computed on access, in the form that nnU-Net's preprocessing produces.

    An item is an image ``(1, Z, Y, X)`` float32 with mean 0 and standard deviation 1 over itself and some air,
    labels ``(Z, Y, X)`` int16, and the dataset whose label table the labels follow: 0 the atlas, 1 an individual, 2 an
    individual whose gyri are known. An
    image smaller than the patch is in the middle of the patch, surrounded by zeros, as nnU-Net pads, and by labels to
    ignore.

    :param maps: the label maps to synthesise from.
    :param cases: number of cases.
    :param device: where they are computed.
    """

    def __init__(
        self,
        maps: LabelMaps,
        tables: BrainTables,
        options: BrainOptions,
        cases: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.maps, self.tables, self.options, self.cases, self.device = maps, tables, options, cases, device
        self._gyri = {n: torch.from_numpy(classes).to(device) for n, classes in maps.gyri.items()}
        self._volumes = [torch.from_numpy(subject).to(device) for subject in maps.subjects]
        self._centres = torch.from_numpy(maps.centres).float()
        self._from_atlas = torch.from_numpy(maps.from_atlas).float()
        self._air = tables.tissue_numbers([AIR])[0]

    @classmethod
    def read(cls, path: Path, options: BrainOptions, cases: int, device: torch.device | str = "cpu") -> BrainCases:
        """Return the cases of the label maps in file ``path``.

        :raises ClassScaleError: as :meth:`LabelMaps.read`.
        """
        tables = BrainTables.read()
        return cls(LabelMaps.read(path, tables), tables, options, cases, device)

    def __len__(self) -> int:
        return self.cases

    def shares(self) -> torch.Tensor:
        """Return the share of each class in a patch around the brain of the atlas subject, ``(C,)`` float32.

        A class smaller than 200 mm^3 counts as 200 mm^3, so that a class of a few voxels does not get a huge weight.
        """
        counts = torch.bincount(self._volumes[0].flatten().long(), minlength=len(self.tables.names)).float().cpu()
        volumes = counts.clamp_min(_LEAST_MM3 / self.maps.spacing**3) * self.maps.spacing**3
        volumes[0] = 0
        patch = math.prod(self.options.patch) * self.options.spacing**3
        volumes[0] = max(patch - float(volumes.sum()), 0.1 * patch)
        return volumes / volumes.sum()

    def made_from(self) -> dict[str, str]:
        """Return digests of what the cases are made from, apart from the options: the label maps and the tables."""
        return {**self.maps.digests(), "tables": self.tables.digest()}

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        if not 0 <= index < self.cases:
            raise IndexError(f"head {index} of {self.cases}")
        generator = case_generator(index, self.options.seed)
        from_atlas, far, free = uniform(generator, 0, 1, 3).tolist()
        progress = min(1.0, index / self.options.warm_up) if self.options.warm_up else 1.0
        easy = free >= progress
        if easy:
            from_atlas, far = 0.0, 1.0
        chosen = self.maps.training[int(torch.randint(len(self.maps.training), (1,), generator=generator))]
        ranges = _FAR_OFFSETS if far < _FAR else _NEAR_OFFSETS
        offset = torch.cat([uniform(generator, low, high, 1) for low, high in ranges]) * (progress if easy else 1.0)
        subject, donor = (0, chosen) if from_atlas < self.options.atlas_share else (chosen, None)
        image, labels = self.make(generator, subject, donor, self.options.patch, offset, like_t1=easy)
        air = float(uniform(generator, 0.0, 1.5, 1))  # a whole image has more air than a patch
        box = _field_of_view(generator, self.options.patch)
        padded, padded_labels = torch.zeros_like(image), torch.full_like(labels, IGNORE_INDEX)
        padded[box], padded_labels[box] = _normalized(image[box], air), labels[box]
        dataset = 0 if subject == 0 else 2 if subject in self._gyri else 1
        if float(uniform(generator, 0, 1, 1)) < self.options.mirrored:
            padded, padded_labels = padded.flip(2), self._other_sides(padded_labels.flip(2), dataset)
        return padded[None], padded_labels, dataset

    def _other_sides(self, labels: torch.Tensor, dataset: int) -> torch.Tensor:
        """Return ``labels`` with left and right exchanged. Labels to ignore stay as they are."""
        tables = self.tables
        others = (tables.other_side_of_class, tables.other_side_of_set, tables.other_side_of_label)[dataset]
        swapped = others.to(labels)[labels.clamp_min(0).long()]
        return torch.where(labels == IGNORE_INDEX, labels, swapped)

    def unseen(self, index: int, subject: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image (grey values of at least 0) and labels, both ``(Z, Y, X)``, of a head that training never sees.

        :param index: number of the case; the seed is that of the options plus 1.
        :param subject: 0 for the atlas, surrounded by an individual held out for validation; or such an individual.
        :param shape: voxels, z y x, centred on the brain.
        """
        generator = case_generator(index, self.options.seed + 1)
        held_out = self.maps.validation
        donor = held_out[index % len(held_out)] if subject == 0 else None
        return self.make(generator, subject, donor, shape, torch.zeros(3))

    def unseen_patch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image ``(1, *patch)`` and labels ``patch`` of an unseen head of the atlas, centred on the brain."""
        image, labels = self.unseen(index, 0, self.options.patch)
        return _normalized(image, 0.5)[None], labels

    def make(
        self,
        generator: torch.Generator,
        subject: int,
        donor: int | None,
        shape: tuple[int, ...],
        offset: torch.Tensor,
        like_t1: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image (grey values of at least 0) and labels, int16, both of ``shape``, of one subject.

        :param subject: 0 for the atlas, or the number of an individual.
        :param donor: the individual whose skull, skin and fluid surround the atlas, which has none. ``None`` for an
            individual.
        :param shape: voxels, z y x.
        :param offset: offset of the patch from the middle of the brain, ``(3,)``, mm, z y x.
        :param like_t1: whether the contrast is that of T1-weighted images; otherwise it may be any.
        """
        tables, spacing, device = self.tables, self.options.spacing, self.device
        pose = random_pose(generator, shape, spacing, offset, device, self.options.deformation)
        stripped = float(uniform(generator, 0, 1, 1)) < _SKULL_STRIPPED
        palette = Palette.draw(generator, tables, like_t1)
        centre = self._centres[subject]
        labels = pose.labels(self._volumes[subject], centre, self.maps.spacing)
        if donor is None:
            parts, tissue_of_part = labels.long(), tables.tissue_of_coarse
            labels = tables.label_of_coarse.to(device)[parts]
            if subject in self._gyri:
                gyri = pose.labels(self._gyri[subject], centre, self.maps.spacing)
                labels = torch.where(gyri > 0, tables.label_of_gyrus.to(device)[gyri.long()], labels)
        else:
            around = self._around(pose.points, donor)
            classes = len(tables.tissue_of_class)
            parts = torch.where(labels > 0, labels.long(), classes + around)
            tissue_of_part = torch.cat([tables.tissue_of_class, torch.arange(len(tables.tissues))])
        removed = None
        if stripped:
            removed = ~tables.is_brain[tissue_of_part].to(device)[parts]
            air_part = int((tissue_of_part == self._air).nonzero()[-1])
            parts, labels = parts.masked_fill(removed, air_part), labels.masked_fill(removed, 0)
        image = degrade(generator, paint(generator, parts, tissue_of_part, palette, spacing), spacing)
        return image if removed is None else image.masked_fill(removed, 0), labels

    def _around(self, points: torch.Tensor, donor: int) -> torch.Tensor:
        """Return the tissue around the atlas subject, int64: that of the individual ``donor`` aligned with it."""
        affine = self._from_atlas[donor].to(points)  # maps voxels; points are mm from the centre
        start = affine[:, :3] @ self._centres[0].to(points) + affine[:, 3]
        voxels = (affine[:, :3] / self.maps.spacing @ points.flatten(1)).add_(start[:, None]).view_as(points)
        coarse = nearest(self._volumes[donor], voxels)
        return self.tables.around_of_coarse.to(points.device)[coarse.long()]


def _field_of_view(generator: torch.Generator, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the part of a patch that the image fills: all of it, or its middle."""
    small = float(uniform(generator, 0, 1, 1)) < _SMALL_IMAGE
    margins = (uniform(generator, 0.0, (1 - _LEAST_FIELD) / 2, len(shape)) * small).tolist()
    return tuple(slice(round(m * n), n - round(m * n)) for m, n in zip(margins, shape, strict=True))


def _normalized(image: torch.Tensor, air: float) -> torch.Tensor:
    """Shift and scale to mean 0 and standard deviation 1, as if ``air`` times as many zero voxels were in the image."""
    count = image.numel() * (1 + air)
    mean = image.sum() / count
    return (image - mean) / (image.square().sum() / count - mean.square()).clamp_min(1e-8).sqrt()
