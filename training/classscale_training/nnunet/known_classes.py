"""Begin with the weights of the last layer that a model has for the same classes.

nnU-Net's ``-pretrained_weights`` leaves the last layer to chance, because its rows stand for other classes, or for the
same ones in another order. Here, rows are found by the names of the classes, or by their terminology codes.

- A row of the model is ``w f + b`` for the features f of the finest scale. The basis spans what the rows of all classes
  of the model use (their singular vectors), so that known classes keep their logits if the rank allows it.
- A class that the model does not have begins with the mean of all rows. Softmax does not notice what is added to all
  rows, so this is the logit of a class that is neither likely nor unlikely. :mod:`.new_classes` fits it afterwards.
- Basis and projection are scaled as initial weights are: both share what training has added to the logits.
- The bases of the coarser scales, which a model does not need after training, begin with zeros: the first steps then
  do not change the rest of the network for the sake of layers that have learned nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.models.dataset_json import label_rows
from ClassScaleSegLib.models.low_rank import (
    PATCH_DECODER,
    PREFIX,
    fold_low_rank_head,
    has_low_rank_head,
    split_patch_head,
)

from ..data.merge.class_names import ClassNames
from ..network.low_rank_head import ClassScaleHead, decoder_of

_SHOWN = 5  # names of classes in a message


@dataclass(frozen=True)
class Rows:
    """What the rows of a last layer stand for.

    :ivar table: names and codes by label value, with the background.
    :ivar values: label value of each row.
    :ivar regions: the rows are overlapping regions, and a voxel may belong to several.
    """

    table: LabelTable
    values: tuple[int, ...]
    regions: bool

    @classmethod
    def of_dataset(cls, dataset: dict, codes: LabelTable | None = None) -> Rows:
        """Return the rows of a network for a ``dataset.json``.

        :param codes: labels whose codes are used for equal names.
        :raises ModelError: if its labels cannot be those of a network.
        """
        values, names, regions = label_rows(dataset)
        return cls(LabelTable.from_names(names, codes), values, regions)


def same_classes(there: Rows, here: Rows) -> dict[int, int]:
    """Return the row of a model for each row of a network that stands for the same class.

    >>> there, here = ({"labels": {"background": 0, "liver": 1, "kidney_left": 2}}, {"labels":
    ...     {"background": 0, "spleen": 1, "left kidney": 2}})
    >>> same_classes(Rows.of_dataset(there), Rows.of_dataset(here))
    {0: 0, 2: 2}
    """
    if there.regions != here.regions:
        return {}
    classes = ClassNames()
    values = {number: value for value, number in classes.match(there.table.foreground).items()}
    same = {value: values.get(number, -1) for value, number in classes.match(here.table.foreground).items()} | {0: 0}
    rows = {value: row for row, value in enumerate(there.values)}
    return {row: rows[same[value]] for row, value in enumerate(here.values) if same.get(value, -1) in rows}


@dataclass(frozen=True)
class LastLayer:
    """The last layer of a model.

    :ivar weight: ``(C, F)`` for the F features before it; of a Primus, for the R channels of its basis.
    :ivar bias: ``(C,)``.
    :ivar basis: of a Primus, weights and bias of the layer that makes the basis; None for a U-Net.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    basis: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, weights: Mapping[str, torch.Tensor]) -> LastLayer | None:
        """Find the last layer among the weights of a network, by nnU-Net's names or those of ClassScaleTrainer.

        :returns: None if there is none with a row for each class, as in a Primus that stock nnU-Net has trained.
        """
        weights = dict(weights)
        if has_low_rank_head(weights):
            weights = fold_low_rank_head(weights)
        weights = split_patch_head(weights)
        scales = [int(name.split(".")[2]) for name in weights if _is_last_layer(name, PREFIX)]
        if scales:
            name = f"{PREFIX}{max(scales)}."
            return cls(weights[f"{name}weight"].flatten(1).float(), weights[f"{name}bias"].float())
        name = f"{PATCH_DECODER}seg_layers.0."
        if f"{name}weight" not in weights:
            return None
        last = max(int(name.split(".")[2]) for name in weights if name.startswith(f"{PATCH_DECODER}decode."))
        basis = tuple(weights[f"{PATCH_DECODER}decode.{last}.{part}"].float() for part in ("weight", "bias"))
        return cls(weights[f"{name}weight"].flatten(1).float(), weights[f"{name}bias"].float(), (basis[0], basis[1]))


def _is_last_layer(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.endswith(".weight") and name.split(".")[2].isdecimal()


@torch.no_grad()
def adopt_rows(network: torch.nn.Module, last: LastLayer, rows: Mapping[int, int]) -> bool:
    """Let the head of a network begin with rows of a model, as described above.

    :param network: with a :class:`.ClassScaleHead`, for F features at its finest scale.
    :param rows: as :func:`same_classes` returns them.
    :returns: whether it was possible: not with a Primus whose basis has other channels.
    """
    head: ClassScaleHead = decoder_of(network).seg_layers
    weight, bias = last.weight.double(), last.bias.double()
    finest: Any = head[-1]
    if last.basis is not None:
        if any(
            mine.shape != theirs.shape for mine, theirs in zip((finest.weight, finest.bias), last.basis, strict=True)
        ):
            return False
        finest.weight.copy_(last.basis[0])
        finest.bias.copy_(last.basis[1])
        projection = weight
    else:
        # The directions that the rows use most, and after them the remaining ones, which a new class may need.
        rank = head.projection.shape[1]
        directions = torch.linalg.svd(weight, full_matrices=True)[2][:rank]
        directions *= _scale((weight @ directions.T).square().mean().item() * rank)
        finest.weight.copy_(directions.view_as(finest.weight))
        finest.bias.zero_()
        projection = weight @ torch.linalg.pinv(directions)
        for parameter in head.bases[:-1].parameters():
            parameter.zero_()
    chosen = [rows.get(row) for row in range(len(head.bias))]
    for mine, theirs in ((head.projection, projection), (head.bias, bias)):
        mean = theirs.mean(0)
        mine.copy_(torch.stack([mean if row is None else theirs[row] for row in chosen]))
    return True


def _scale(variance: float) -> float:
    """Return the length of the rows of the basis layer, for rows of the model of which the logits have a variance.

    Initial weights give them 2: the basis has this variance, and the projection keeps it. Training enlarges both. If
    the projection got all of it, the basis would be small beside it, and a new class would learn slowly.

    >>> _scale(2.0).__round__(3)
    1.414
    """
    return (2 * variance) ** 0.25


def told(there: Rows, here: Rows, rows: Mapping[int, int]) -> str:
    """Return a sentence on the classes that begin with known weights, and on the new ones.

    >>> there, here = (Rows.of_dataset({"labels": {"background": 0, name: 1}}) for name in ("liver", "spleen"))
    >>> told(there, here, {0: 0})
    'The network begins with the weights of 0 of its 1 classes. These are new: spleen.'
    """
    names = {row: here.table[value].name for row, value in enumerate(here.values) if value}
    new = [name for row, name in names.items() if row not in rows]
    sentence = f"The network begins with the weights of {len(names) - len(new)} of its {len(names)} classes."
    if new:
        more = f", and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
        sentence += f" These are new: {', '.join(new[:_SHOWN])}{more}."
    return sentence
