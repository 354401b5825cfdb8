"""The last, linear layer: which class wins at a basis vector, classes and voxels taken tile by tile.

No array here has more than ``tile_elements`` logits, whatever the number of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Projection:
    """``logits = weight @ basis + bias`` and what the classes mean.

    :ivar weight: ``(C, R)`` float. :ivar bias: ``(C,)`` float.
    :ivar values: label value of each row, ``(C,)``; ``None`` means 0..C-1.
    :ivar regions: overlapping sigmoid regions: of the rows above zero the last one gives the value, 0 if there is none
        (nnU-Net's ``regions_class_order``).
    """

    weight: torch.Tensor
    bias: torch.Tensor
    values: tuple[int, ...] | None = None
    regions: bool = False
    tile_elements: int = 1 << 18

    @property
    def classes(self) -> int:
        return self.weight.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Projection:
        moved = (self.weight.to(device, dtype), self.bias.to(device, dtype))
        return Projection(*moved, self.values, self.regions, self.tile_elements)

    def best(self, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Winning row and best losing logit at each voxel.

        :param basis: ``(R, N)``.
        :returns: row ``(N,)`` int64 (for regions: row + 1, 0 for none) and, for softmax models, the second largest
            logit ``(N,)``; for regions that array is empty, no bound being needed.
        """
        voxels = basis.shape[1]
        winner = torch.empty(voxels, dtype=torch.long, device=basis.device)
        second = basis.new_empty(0 if self.regions else voxels)
        step = max(1, self.tile_elements // self.classes)
        for start in range(0, voxels, step):
            tile = slice(start, min(start + step, voxels))
            logits = torch.addmm(self.bias[:, None], self.weight, basis[:, tile])
            if self.regions:
                order = torch.arange(1, self.classes + 1, device=basis.device, dtype=torch.int32)[:, None]
                winner[tile] = ((logits > 0) * order).amax(0).long()
            else:
                winner[tile], second[tile] = _top_two(logits)
        return winner, second


def _top_two(logits: torch.Tensor, group: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the largest (first of equals) and value of the second largest of ``(C, N)`` along C.

    One vectorised maximum over groups of classes, then only the winning group is searched: several times faster than
    ``argmax`` along a strided axis.
    """
    classes, voxels = logits.shape
    if classes == 1:
        return torch.zeros(voxels, dtype=torch.long, device=logits.device), torch.full_like(logits[0], -torch.inf)
    if classes <= 2 * group:
        two = logits.topk(2, dim=0).values
        return logits.argmax(0), two[1]
    whole = classes // group * group
    maxima = logits[:whole].view(-1, group, voxels).amax(1)
    if whole < classes:
        maxima = torch.cat([maxima, logits[whole:].amax(0, keepdim=True)])
    best_group = maxima.argmax(0)
    second = maxima.topk(2, dim=0).values[1]
    rows = best_group * group + torch.arange(group, device=logits.device)[:, None]
    inside = logits.gather(0, rows.clamp_max(classes - 1)).masked_fill_(rows >= classes, -torch.inf)
    return best_group * group + inside.argmax(0), torch.maximum(second, inside.topk(2, dim=0).values[1])
