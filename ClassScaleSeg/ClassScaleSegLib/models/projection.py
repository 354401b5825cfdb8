"""Apply the last, linear layer: find the winning class of each basis vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Decision(NamedTuple):
    """Result of :meth:`Projection.decide` for N voxels.

    :ivar row: ``(N,)`` int64, row of the winning class; for regions row + 1, or 0 for no region.
    :ivar second: ``(N,)``, second largest logit; for regions 0, because no bound is needed.
    :ivar lead: ``(N,)``, margin of the decision: largest minus second largest logit; for regions the smallest distance
        of a logit from 0.
    """

    row: torch.Tensor
    second: torch.Tensor
    lead: torch.Tensor


@dataclass(frozen=True)
class Projection:
    """The linear map ``logits = weight @ basis + bias`` and the label values of its rows.

    The methods compute all logits of the voxels they get, so callers pass one tile of voxels at a time.

    :ivar weight: ``(C, R)`` float.
    :ivar bias: ``(C,)`` float.
    :ivar values: label value of each row, ``(C,)``; ``None`` means 0..C-1.
    :ivar regions: the rows are overlapping sigmoid regions. The last row with a logit above 0 gives the value, which is
        0 if there is no such row (nnU-Net's ``regions_class_order``).

    >>> projection = Projection(torch.eye(3), torch.zeros(3))
    >>> decision = projection.decide(torch.tensor([[0.0, 1.0, 4.0]]))
    >>> decision.row.item(), decision.lead.item()
    (2, 3.0)
    """

    weight: torch.Tensor
    bias: torch.Tensor
    values: tuple[int, ...] | None = None
    regions: bool = False

    @property
    def classes(self) -> int:
        """Number of rows C."""
        return self.weight.shape[0]

    @property
    def rank(self) -> int:
        """Number of channels R of the basis."""
        return self.weight.shape[1]

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Projection:
        """Return a copy with weight and bias on another device, converted to ``dtype``."""
        return Projection(self.weight.to(device, dtype), self.bias.to(device, dtype), self.values, self.regions)

    def with_exchanged(self, rows: Sequence[int]) -> Projection:
        """Return the projection of two bases, one after the other, whose logits are the mean of those of both.

        :param rows: for each row, the row of this projection that gives its logits from the second basis.

        >>> both = Projection(torch.eye(2), torch.zeros(2)).with_exchanged((1, 0))
        >>> both.rank, both.logits(torch.tensor([[1.0, 0.0, 0.0, 3.0]])).flatten().tolist()
        (4, [2.0, 0.0])
        """
        order = list(rows)
        weight = torch.cat([self.weight, self.weight[order]], 1) / 2
        return Projection(weight, (self.bias + self.bias[order]) / 2, self.values, self.regions)

    def decision_values(self) -> torch.Tensor:
        """Return the label value of each row that :meth:`decide` can give: int32 ``(C,)``, for regions ``(C + 1,)``."""
        values = list(range(self.classes)) if self.values is None else list(self.values)
        return torch.tensor([0, *values] if self.regions else values, dtype=torch.int32, device=self.weight.device)

    def logits(self, basis: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(C, N)`` of a basis ``(N, R)``."""
        return torch.addmm(self.bias[:, None], self.weight, basis.T)

    def decide(self, basis: torch.Tensor) -> Decision:
        """Return the decision at each voxel of a basis ``(N, R)``."""
        logits = self.logits(basis)
        if self.regions:
            order = torch.arange(1, self.classes + 1, device=basis.device, dtype=torch.int32)[:, None]
            row = ((logits > 0) * order).amax(0).long()
            return Decision(row, logits.new_zeros(logits.shape[1]), logits.abs().amin(0))
        row, second = _top_two(logits)
        return Decision(row, second, logits.gather(0, row[None])[0] - second)

    def confidence(self, basis: torch.Tensor, decision: torch.Tensor) -> torch.Tensor:
        """Return the probability of each decision.

        It is the softmax of the winning class. For regions it is the sigmoid of the region that gives the value, or 1
        minus the largest sigmoid if there is no region.

        :param basis: ``(N, R)``.
        :param decision: ``(N,)`` int64, `Decision.row`.
        :returns: ``(N,)``, 0..1.
        """
        logits = self.logits(basis)
        if self.regions:
            chosen = logits.gather(0, (decision - 1).clamp_min(0)[None])[0].sigmoid()
            return torch.where(decision > 0, chosen, 1 - logits.amax(0).sigmoid())
        return torch.exp(logits.gather(0, decision[None])[0] - logits.logsumexp(0))


def _top_two(logits: torch.Tensor, group: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the index of the largest (first of equals) and the value of the second largest of ``(C, N)`` along C.

    Vectorised maxima are taken over groups of classes, then over the groups, and only the winning group is searched.
    ``argmax`` and ``topk`` along the strided axis take 3 to 20 times longer.
    """
    classes, voxels = logits.shape
    if classes <= group:
        order = torch.arange(classes, 0, -1, dtype=torch.int8, device=logits.device)[:, None]
        at_maximum = (logits == logits.amax(0)) * order
        best = (classes - at_maximum.amax(0).long()).clamp_max(classes - 1)  # NaN does not equal its maximum
        return best, logits.scatter(0, best[None], -torch.inf).amax(0)
    whole = classes // group * group
    maxima = logits[:whole].view(-1, group, voxels).amax(1)
    if whole < classes:
        maxima = torch.cat([maxima, logits[whole:].amax(0, keepdim=True)])
    best_group, second = _top_two(maxima)
    rows = best_group * group + torch.arange(group, device=logits.device)[:, None]
    inside = logits.gather(0, rows.clamp_max(classes - 1))
    if whole < classes:
        inside.masked_fill_(rows >= classes, -torch.inf)
    best, second_inside = _top_two(inside)
    return best_group * group + best, torch.maximum(second, second_inside)
