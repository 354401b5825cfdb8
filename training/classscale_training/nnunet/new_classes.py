"""Fit the rows of new classes to a few patches, while the rest of a pretrained network stays as it is.

A class that a model does not have begins with the mean of its rows (:mod:`.known_classes`), while the rows of the
others are sure of themselves: many steps pass before a new row is ever the highest, and until then its Dice is 0. But
with all else fixed, the cross entropy is convex in the new rows. So they are fitted once, before the first step, to the
features of a few patches that hold the new classes. Imprinted weights (Qi et al., CVPR 2018) have the same purpose.

The background is fitted too if the model has classes that the network lacks: it contains them now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from torch.nn.functional import conv1d

from ..network.low_rank_head import ClassScaleHead, FinestBasis, decoder_of

_CASES = 200  # that are searched for the new classes
_BACKGROUND = 0  # row and label value
_KNOWN = 16  # classes around which the background is looked at if none is new
_PATCHES_OF_CLASS = 4  # each from another case, where there are so many
_PATCHES = 64  # of all classes
_VOXELS_OF_CLASS, _OTHER_VOXELS = 512, 4096  # of each patch
_NUMBERS = 1 << 24  # voxels times new classes
_PENALTY = 1e-4  # of the square of how far a weight moves, beside the mean cross entropy in nats
_OUTSIDE = -1  # label of voxels beyond the image


@dataclass(frozen=True)
class Samples:
    """Voxels of which the rows of new classes are learned.

    :ivar basis: ``(N, R)``.
    :ivar fixed: ``(N,)``, log-sum-exp of the logits of all other classes.
    :ivar own: ``(N,)``, the logit of the voxel's class, if it is one of the others.
    :ivar new: ``(N,)``, the number of its class among the new ones; -1 for the others.
    :ivar weights: ``(N,)``, how many voxels of a patch each stands for.
    """

    basis: torch.Tensor
    fixed: torch.Tensor
    own: torch.Tensor
    new: torch.Tensor
    weights: torch.Tensor


def begin_new_classes(trainer: Any, new: Sequence[int], cases: Sequence[str]) -> tuple[int, int]:
    """Fit the rows of new classes to patches.

    :param trainer: initialised, with a :class:`.ClassScaleHead`; the network has three dimensions and no regions.
    :param new: their rows, which are their label values; 0 if the background is to be fitted too.
    :param cases: for training.
    :returns: how many of them were fitted, and to how many patches: only those that occur in the first cases.
    """
    network, device = trainer.bare_network, trainer.device
    head: ClassScaleHead = decoder_of(network).seg_layers
    generator = np.random.default_rng(0)
    folder, searched = Path(trainer.preprocessed_dataset_folder), [row for row in new if row != _BACKGROUND]
    places = list(_places(folder, searched, cases, generator))
    if not places and _BACKGROUND in new:
        places = list(_places(folder, _known(len(head.bias), generator), cases, generator))
    if not places:
        return 0, 0
    classes = {row for _, row, _ in places} & set(searched)
    fitted = sorted(classes | ({_BACKGROUND} & set(new)))
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, sorted({case for case, _, _ in places}))
    patch, ignore = trainer.configuration_manager.patch_size, trainer.label_manager.ignore_label
    most = min(_OTHER_VOXELS, max(1, _NUMBERS // (len(fitted) * len(places))))
    was, found = network.training, []
    network.eval()
    try:
        with torch.no_grad():
            for case, _, centre in places:
                image, labels = _cut(dataset, case, centre, patch)
                basis = FinestBasis(network)(torch.from_numpy(image)[None].to(device))[0].flatten(1).float().cpu()
                found.append(_sampled(head, basis, labels.reshape(-1), fitted, ignore, most, generator))
    finally:
        network.train(was)
    parts = [torch.cat(columns) for columns in zip(*[vars(one).values() for one in found], strict=True)]
    fit_rows(head, fitted, Samples(*parts))
    return len(classes), len(places)


def _known(classes: int, generator: np.random.Generator) -> list[int]:
    """Return some classes, of a number that includes the background."""
    return sorted(generator.permutation(np.arange(1, classes))[:_KNOWN].tolist())


def _places(
    folder: Path, new: Sequence[int], names: Sequence[str], generator: np.random.Generator
) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Yield case, row and centre of each patch: first one of each class, then a second one, and so on."""
    holding: dict[int, list[tuple[str, np.ndarray]]] = {row: [] for row in new}
    for case in names[:_CASES]:
        locations = load_pickle(str(folder / f"{case}.pkl"))["class_locations"]
        for row, cases in holding.items():
            if len(cases) < _PATCHES_OF_CLASS and len(locations.get(row, ())):
                cases.append((case, np.asarray(locations[row])))
        if all(len(cases) == _PATCHES_OF_CLASS for cases in holding.values()):
            break
    chosen = [
        (cases[turn][0], row, cases[turn][1])
        for turn in range(_PATCHES_OF_CLASS)
        for row, cases in holding.items()
        if turn < len(cases)
    ]
    for case, row, voxels in chosen[:_PATCHES]:
        yield case, row, tuple(voxels[generator.integers(len(voxels))][1:].tolist())  # without the channel


def _cut(dataset: Any, case: str, centre: tuple[int, ...], patch: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a patch around a voxel, image ``(channels, *patch)`` and labels ``patch``, padded where the image ends."""
    image, labels, _, _ = dataset.load_case(case)
    shape = labels.shape[1:]
    starts = [
        min(max(at - size // 2, 0), max(length - size, 0))
        for at, size, length in zip(centre, patch, shape, strict=True)
    ]
    inside = tuple(slice(start, start + size) for start, size in zip(starts, patch, strict=True))
    voxels, drawn = np.asarray(image[(slice(None), *inside)]), np.asarray(labels[(0, *inside)])
    gaps = [(0, size - length) for size, length in zip(patch, drawn.shape, strict=True)]
    background = np.maximum(drawn.astype(np.int32), 0)  # nnU-Net's -1 is background outside of the body
    return (
        np.pad(voxels, [(0, 0), *gaps]).astype(np.float32),
        np.pad(background, gaps, constant_values=_OUTSIDE),
    )


def _sampled(
    head: ClassScaleHead,
    basis: torch.Tensor,
    labels: np.ndarray,
    fitted: Sequence[int],
    ignore: int | None,
    most: int,
    generator: np.random.Generator,
) -> Samples:
    """Return voxels of a patch.

    :param basis: ``(R, voxels)``.
    :param labels: ``(voxels,)``.
    :param most: voxels of other classes, and of the background.
    """
    usable = labels != _OUTSIDE if ignore is None else (labels != _OUTSIDE) & (labels != ignore)
    others = usable & ~np.isin(labels, fitted)
    strata = [(np.flatnonzero(others), -1, most)]
    for number, row in enumerate(fitted):
        voxels = np.flatnonzero((labels == row) & usable)
        strata.append((voxels, number, most if row == _BACKGROUND else _VOXELS_OF_CLASS))
    places, numbers, weights = [], [], []
    for voxels, number, count in strata:
        taken = generator.choice(voxels, min(count, len(voxels)), replace=False) if len(voxels) else voxels
        places.append(taken)
        numbers.append(np.full(len(taken), number))
        weights.append(np.full(len(taken), len(voxels) / max(len(taken), 1)))
    chosen, new = np.concatenate(places), torch.from_numpy(np.concatenate(numbers))
    columns = basis[:, torch.from_numpy(chosen)].double()
    projection, bias = (part.detach().double().cpu() for part in (head.projection, head.bias))
    logits = conv1d(columns[None], projection[:, :, None], bias)[0]  # (C, N)
    own = logits.gather(0, torch.from_numpy(np.maximum(labels[chosen], 0)).long()[None])[0]
    logits[list(fitted)] = -torch.inf
    return Samples(columns.T, logits.logsumexp(0), own, new, torch.from_numpy(np.concatenate(weights)))


def fit_rows(head: ClassScaleHead, rows: Sequence[int], samples: Samples) -> None:
    """Minimise the cross entropy of samples in some rows of a head.

    :param rows: of the new classes, in the order of their numbers in the samples.
    """
    index = list(rows)
    begin = torch.cat([head.projection.detach()[index], head.bias.detach()[index, None]], 1).double().cpu()
    moved = torch.zeros_like(begin, requires_grad=True)
    optimizer = torch.optim.LBFGS([moved], max_iter=200, line_search_fn="strong_wolfe")
    weights, is_new = samples.weights / samples.weights.sum(), samples.new >= 0

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = begin + moved
        logits = samples.basis @ found[:, :-1].T + found[:, -1]
        every = torch.logaddexp(samples.fixed, logits.logsumexp(1))
        own = torch.where(is_new, logits.gather(1, samples.new.clamp(min=0)[:, None])[:, 0], samples.own)
        value = (weights * (every - own)).sum() + _PENALTY / 2 * moved.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        found = (begin + moved).to(head.bias)
        head.projection[index] = found[:, :-1]
        head.bias[index] = found[:, -1]
