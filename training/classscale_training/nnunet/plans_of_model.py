"""Plan a dataset as a model was planned, so that a training can begin with the weights of the model.

The network, the voxel size, the patch and the normalisation are the model's; labels, files and folds are those of the
dataset. nnU-Net does this with ``nnUNetv2_move_plans_between_datasets``, from one folder of preprocessed data to
another; here the model is enough.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ClassScaleSegLib.catalog.catalog import resolve_model
from ClassScaleSegLib.errors import ModelError, named
from ClassScaleSegLib.models.networks import PACKAGE, RANK_ENTRY, find_network
from ClassScaleSegLib.models.plans import check_plans
from ClassScaleSegLib.models.summary import ModelSummary, summarize

from ..network.low_rank_head import check_rank

# How nnU-Net's reader turns images. There is none for other orientations.
_READERS = {"RAS": "SimpleITKIOWithReorient"}
_PLANNED = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")  # configurations of nnU-Net's planners
_INTENSITIES = "foreground_intensity_properties_per_channel"  # nnU-Net's name for them, which was another one


@dataclass(frozen=True)
class ModelPlans:
    """What a model says on how its images were prepared, and on its network.

    :ivar summary: of the model.
    :ivar plans: the entries that hold for all configurations.
    :ivar configuration: the entries of its configuration as nnU-Net writes them now, those that it inherits included.
    """

    summary: ModelSummary
    plans: dict[str, Any]
    configuration: dict[str, Any]

    @classmethod
    def read(cls, source: str) -> ModelPlans:
        """Read the plans of a model, but not its weights.

        :param source: a model folder, an exported zip, a bundle, or a model of the catalogue by id or name.
        :raises ModelError: if it cannot be used, consists of several networks, or was not planned by nnU-Net.
        :raises CatalogError: if there is no such model, or it is not on this computer.
        """
        summary = summarize(one_network(source))
        with named(summary.path):
            if summary.preprocessing is not None:
                raise ModelError(
                    "It was not planned by nnU-Net, which prepares images in another way. Plan without --like."
                )
            manager, chosen = check_plans(summary)
            entries = copy.deepcopy(chosen.configuration)
            name, network = find_network(entries["architecture"])
            if network.package != PACKAGE:
                raise ModelError(
                    f"It has a {name} of {network.package}, which cannot be trained here. Plan without --like."
                )
        plans = {key: manager.plans[key] for key in ("transpose_forward", "transpose_backward")}
        plans[_INTENSITIES] = manager.foreground_intensity_properties_per_channel
        return cls(summary, plans, entries)

    def applied_to(self, plans: dict[str, Any], rank: int | None) -> dict[str, Any]:
        """Return the plans of a dataset with the network and the preparation of this model.

        Configurations that the user has derived from that of the model are kept (:meth:`kept_of`).

        :param plans: of the dataset, as a planner of nnU-Net has written them.
        :param rank: channels of the basis; None for the model's, or else the default.
        :raises ModelError: if the rank does not fit the network.
        """
        name, made = self.summary.configuration_name, copy.deepcopy(plans)
        entries = {"batch_dice": False, **copy.deepcopy(self.configuration)}
        entries["data_identifier"] = f"{made['plans_name']}_{name}"
        if rank is not None:
            check_rank(rank, self.summary.features)
            entries[RANK_ENTRY] = rank
        own = {key: made["configurations"][key] for key in self.kept_of(plans)}
        made["configurations"] = {name: entries, **own}
        made |= copy.deepcopy(self.plans)
        made["image_reader_writer"] = _READERS.get(str(self.summary.orientation), made["image_reader_writer"])
        return made

    def kept_of(self, plans: dict[str, Any]) -> list[str]:
        """Return the configurations that the user has derived from that of the model, also by way of others."""
        configurations, kept = plans["configurations"], [self.summary.configuration_name]
        own = [key for key in configurations if key not in (*_PLANNED, *kept)]
        while more := [k for k in own if k not in kept and configurations[k].get("inherits_from") in kept]:
            kept += more
        return [key for key in own if key in kept]

    def dropped_of(self, plans: dict[str, Any]) -> list[str]:
        """Return the configurations of the user that the plans of this model cannot have: they need others."""
        kept = (*_PLANNED, self.summary.configuration_name, *self.kept_of(plans))
        return [key for key in plans["configurations"] if key not in kept]

    def warnings(self, channels: Sequence[str], orientations: Sequence[str | None]) -> list[str]:
        """Return a sentence on each thing in which a dataset may not suit the model.

        :param channels: names of the channels of the dataset.
        :param orientations: anatomical orientation of each case, None if its format has none.
        :raises ModelError: if the number of channels is not that of the model.
        """
        theirs, found = self.summary.channel_names, []
        if len(channels) != len(theirs):
            raise ModelError(
                f"{self.summary.path} was trained on {len(theirs)} channels ({', '.join(theirs)}), but the dataset has "
                f"{len(channels)} ({', '.join(channels)}). Plan without --like, or choose another model."
            )
        if [name.casefold() for name in channels] != [name.casefold() for name in theirs]:
            found.append(
                f"the model was trained on {', '.join(theirs)}, the dataset has {', '.join(channels)}: images are "
                "normalised as the model's were"
            )
        wanted = self.summary.orientation
        others = Counter(each for each in orientations if each not in (None, wanted))
        if wanted is not None and wanted not in _READERS and others:
            listed = ", ".join(f"{count} in {each}" for each, count in others.most_common())
            found.append(
                f"the model was trained on images in {wanted}, but of the dataset are {listed}: turn them, "
                "or the network has to learn these orientations"
            )
        return found


def one_network(source: str) -> Path:
    """Return the path of a model that is a single network.

    :param source: a path, or a model of the catalogue by id or name.
    :raises ModelError: if it consists of several networks.
    :raises CatalogError: if there is no such model, or it is not on this computer.
    """
    path, *more = resolve_model(source)
    if more:
        names = ", ".join(map(str, (path, *more)))
        raise ModelError(f"{source} consists of {len(more) + 1} networks. Name one of them: {names}.")
    return path
