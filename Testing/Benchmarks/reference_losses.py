"""References for the losses on the basis: nnU-Net's own losses on all logits, and plain torch where nnU-Net has none.

:func:`cases` pairs each of our options with its reference. Benchmarks and tests use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from classscale_training import CrossEntropyDiceLoss, DeepSupervisionLoss, LabelSets, RegionLoss, SoftDice
from nnunetv2.training.loss import dice as nnunet_dice
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

IGNORE = 4999


@contextmanager
def sums_in_float64() -> Iterator[None]:
    """Let nnU-Net's loss compute all terms in float64.

    It names float32 for some terms, even for float64 logits; inside this context, that name means float64.
    """

    class Torch:
        float32 = torch.float64

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    to_float = torch.Tensor.float
    nnunet_dice.torch, torch.Tensor.float = Torch(), torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        nnunet_dice.torch, torch.Tensor.float = torch, to_float
        torch.set_default_dtype(torch.float32)


def nnunet_loss(
    batch_dice: bool = True,
    do_bg: bool = False,
    smooth: float = 1e-5,
    ddp: bool = False,
    weight_ce: float = 1,
    weight_dice: float = 1,
    ignore: int | None = None,
    **cross_entropy: Any,
) -> DC_and_CE_loss:
    """Return nnU-Net's default loss, as its trainer builds it, of logits (B, C, ...) and labels (B, 1, ...)."""
    dice = {"batch_dice": batch_dice, "do_bg": do_bg, "smooth": smooth, "ddp": ddp}
    cls = nnunet_dice.MemoryEfficientSoftDiceLoss
    return DC_and_CE_loss(dice, cross_entropy, weight_ce, weight_dice, ignore, dice_class=cls)


def head(basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return all logits (B, C, X, Y, Z), computed by a 1x1x1 convolution as in a network."""
    return torch.nn.functional.conv3d(basis, projection[:, :, None, None, None], bias)


@dataclass(frozen=True)
class Case:
    """One option.

    :ivar name: its name.
    :ivar ours: our loss of (basis, projection, bias, labels).
    :ivar reference: the reference of (logits, labels (B, 1, ...)).
    :ivar ignored: share of voxels with the label IGNORE.
    """

    name: str
    ours: Callable[..., torch.Tensor]
    reference: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ignored: float = 0.0


def cases(classes: int) -> list[Case]:
    """Return every option of every loss, for a head with this number of classes."""
    weights = torch.linspace(0.2, 2, classes, dtype=torch.float64)
    listed = tuple(weights.tolist())
    found = [
        Case(
            f"batch_dice={batch} do_bg={bg}{' ignore' * ignored}",
            CrossEntropyDiceLoss(SoftDice(batch, bg), IGNORE if ignored else None),
            nnunet_loss(batch, bg, ignore=IGNORE if ignored else None),
            0.3 * ignored,
        )
        for batch in (True, False)
        for bg in (True, False)
        for ignored in (False, True)
    ]
    smoothing = {"label_smoothing": 0.1}
    return found + [
        Case("smooth=1", CrossEntropyDiceLoss(SoftDice(smooth=1.0)), nnunet_loss(smooth=1.0)),
        Case("smooth=0", CrossEntropyDiceLoss(SoftDice(smooth=0.0)), nnunet_loss(smooth=0.0)),
        Case(
            "weights 0.3, 2",
            CrossEntropyDiceLoss(weight_ce=0.3, weight_dice=2),
            nnunet_loss(True, False, 1e-5, False, 0.3, 2),
        ),
        Case("cross entropy", CrossEntropyDiceLoss(weight_dice=0), nnunet_loss(weight_dice=0)),
        Case("dice", CrossEntropyDiceLoss(weight_ce=0), nnunet_loss(weight_ce=0)),
        Case("all ignored", CrossEntropyDiceLoss(ignore_index=IGNORE), nnunet_loss(ignore=IGNORE), 1.0),
        Case("class weights", CrossEntropyDiceLoss(class_weights=listed), nnunet_loss(weight=weights)),
        Case("label smoothing", CrossEntropyDiceLoss(**smoothing), nnunet_loss(**smoothing)),
        Case(
            "class weights, label smoothing, ignore",
            CrossEntropyDiceLoss(class_weights=listed, ignore_index=IGNORE, **smoothing),
            nnunet_loss(weight=weights, ignore=IGNORE, **smoothing),
            0.3,
        ),
        Case("present_only", CrossEntropyDiceLoss(SoftDice(present_only=True)), _present_only),
        Case("tversky", CrossEntropyDiceLoss(SoftDice(false_positive=0.3, false_negative=0.7)), _tversky),
        Case("deep supervision", _deep(DeepSupervisionLoss(CrossEntropyDiceLoss())), _deep_reference),
        Case("regions", RegionLoss(regions=_regions(classes)), _region_reference(classes, False)),
        Case(
            "regions, ignore",
            RegionLoss(regions=_regions(classes), ignore_index=IGNORE),
            _region_reference(classes, True),
            0.3,
        ),
        Case("label sets", _with_datasets(_label_sets(classes), True), _marginal(_label_sets(classes), True), 0.3),
        Case(
            "label sets, sample dice",
            _with_datasets(_label_sets(classes), False),
            _marginal(_label_sets(classes), False),
            0.3,
        ),
    ]


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return I, P and G, each (C,), over the batch."""
    p = logits.softmax(1)
    target = torch.zeros_like(p).scatter_(1, labels.long(), 1)
    return tuple(x.sum((0, 2, 3, 4)) for x in (p * target, p, target))


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, labels[:, 0].long())


def _present_only(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    intersection, predicted, reference = _sums(logits, labels)
    present = [c for c in labels.unique().tolist() if c > 0]
    dice = (2 * intersection + 1e-5) / (predicted + reference + 1e-5)
    return _cross_entropy(logits, labels) - dice[present].mean()


def _tversky(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    intersection, predicted, reference = _sums(logits, labels)
    half = 0.5e-5
    index = (intersection + half) / (
        intersection + 0.3 * (predicted - intersection) + 0.7 * (reference - intersection) + half
    )
    return _cross_entropy(logits, labels) - index[1:].mean()


# Deep supervision: the coarser scales are strided views, so that both sides use the same basis and the same logits.
def _scales(volume: torch.Tensor) -> list[torch.Tensor]:
    return [volume[..., ::step, ::step, ::step] for step in (1, 2, 3, 4)]


def _deep(loss: DeepSupervisionLoss) -> Callable[..., torch.Tensor]:
    return lambda basis, projection, bias, labels: loss(_scales(basis), projection, bias, _scales(labels))


def _deep_reference(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weights = [w / 1.75 for w in (1, 0.5, 0.25, 0)]
    return DeepSupervisionWrapper(nnunet_loss(), weights)(_scales(logits), _scales(labels))


def _regions(classes: int) -> tuple[tuple[int, ...], ...]:
    """Return overlapping regions of up to three labels; label 0 belongs to none."""
    return tuple(tuple(range(k, min(k + 3, classes))) or (1,) for k in range(1, classes)) + ((1, classes - 1),)


def _region_reference(classes: int, ignore: bool) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    dice = {"batch_dice": True, "do_bg": True, "smooth": 1e-5, "ddp": False}
    loss = DC_and_BCE_loss({}, dice, use_ignore_label=ignore, dice_class=nnunet_dice.MemoryEfficientSoftDiceLoss)

    def of_label_map(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        channels = [torch.isin(labels, torch.tensor(region)) for region in _regions(classes)]
        return loss(logits, torch.cat(channels + [labels == IGNORE] * ignore, 1))

    return of_label_map


def _label_sets(classes: int) -> list[dict[int, list[int]]]:
    """Return three datasets: with every class, with the lower half, and with pairs of classes under one label."""
    half, pairs = range(1, 1 + classes // 2), range(1, classes - 1, 2)
    return [
        {c: [c] for c in range(classes)},
        {c: [c] for c in half},
        {label: [c, c + 1] for label, c in enumerate(pairs, 1)},
    ]


def _folded(tables: list[dict[int, list[int]]], labels: torch.Tensor, datasets: list[int]) -> torch.Tensor:
    """Return the label maps as the dataset of each sample would have annotated them; IGNORE is kept."""
    folded = labels.clone()
    for b, d in enumerate(datasets):
        values = {c: label for label, members in tables[d].items() for c in members}
        folded[b].apply_(lambda c, values=values: c if c == IGNORE else values.get(c, 0))
    return folded


def _with_datasets(tables: list[dict[int, list[int]]], batch_dice: bool) -> Callable[..., torch.Tensor]:
    def of_label_map(basis, projection, bias, labels):
        datasets = [b % 3 for b in range(len(basis))]
        sets = LabelSets.from_classes(len(projection), tables)
        loss = CrossEntropyDiceLoss(SoftDice(batch_dice), IGNORE, label_sets=sets)
        return loss(basis, projection, bias, _folded(tables, labels, datasets), torch.tensor(datasets))

    return of_label_map


def _marginal(
    tables: list[dict[int, list[int]]], batch_dice: bool
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the reference of the marginal loss.

    It is minus the log of the summed probability of the label's set, minus the Dice of summed probabilities, pooled
    over equal sets, or else the mean over the samples of the mean over their sets.
    """

    def of_label_map(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        datasets = [b % 3 for b in range(len(logits))]
        folded, p = _folded(tables, labels, datasets)[:, 0], logits.softmax(1)
        terms, sums = [], {}
        for b, d in enumerate(datasets):
            valid = folded[b] != IGNORE
            named = {c for label, members in tables[d].items() if label for c in members}
            sets = {**tables[d], 0: [c for c in range(p.shape[1]) if c not in named]}
            for label, members in sets.items():
                probability, here = p[b, members].sum(0), folded[b] == label
                terms.append(-probability[here].log())
                if label:
                    key = (tuple(members), 0 if batch_dice else b)
                    parts = probability[here].sum(), probability[valid].sum(), here.sum()
                    sums[key] = [x + y for x, y in zip(sums.get(key, (0, 0, 0)), parts, strict=True)]
        dice: dict[int, list[torch.Tensor]] = {}
        for (_, sample), (i, predicted, reference) in sums.items():
            dice.setdefault(sample, []).append((2 * i + 1e-5) / (predicted + reference + 1e-5))
        means = [torch.stack(of_sample).mean() for of_sample in dice.values()]
        return torch.cat(terms).mean() - torch.stack(means).mean()

    return of_label_map
