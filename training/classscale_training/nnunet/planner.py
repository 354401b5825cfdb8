"""nnU-Net's planners, which here count the R channels of the basis instead of C classes.

nnU-Net estimates memory from the feature maps of the network, which include the logits of all classes. At C = 1001 this
shrinks the patch from 128^3 to 80x64x80, although a network with :class:`.ClassScaleHead` has no such feature map. The
plans still describe nnU-Net's own networks, so that every tool of nnU-Net can read them. The trainer adds the head.
"""

from __future__ import annotations

from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models.networks import DEFAULT_RANK, RANK_ENTRY
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from ..network.low_rank_head import check_rank

_Untyped: Any = object  # nnU-Net's planners have no types, so neither does what the class below inherits


class _CountsRank(_Untyped):
    """Base of the planners below. Set ``rank`` before ``plan_experiment`` is called, if it is not to be the default.

    The planners write plans under their own names, so that they do not overwrite the plans of nnU-Net's planners.
    """

    default_plans_name: str
    rank: int | None = None

    def __init__(self, dataset_name_or_id: str | int, *arguments: Any, **options: Any) -> None:
        super().__init__(dataset_name_or_id, *arguments, **{"plans_name": self.default_plans_name, **options})

    def static_estimate_VRAM_usage(
        self,
        patch_size: tuple[int, ...],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict,
        arch_kwargs_req_import: tuple[str, ...],
    ) -> int:
        """Return the number of elements of all feature maps, counted as nnU-Net does, but with the basis as output.

        The network is built on the meta device: unlike nnU-Net's estimate, this one needs no memory for weights, and it
        does not depend on the number of worker processes. Of nnU-Net's parameters, ``output_channels`` is not used.
        """
        with torch.device("meta"):
            network = get_network_from_plans(
                arch_class_name,
                arch_kwargs,
                arch_kwargs_req_import,
                input_channels,
                self.rank or DEFAULT_RANK,
                allow_init=False,
            )
        return network.compute_conv_feature_map_size(patch_size)

    def get_plans_for_configuration(self, *arguments: Any, **options: Any) -> dict:
        """Plan one configuration as nnU-Net does, and store the rank in it if one was chosen.

        :raises ModelError: if the rank exceeds the channels of the finest scale.
        """
        plan = super().get_plans_for_configuration(*arguments, **options)
        if self.rank is not None:
            check_rank(self.rank, plan["architecture"]["arch_kwargs"]["features_per_stage"][0])
            plan[RANK_ENTRY] = self.rank
        return plan

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Name the folder of the preprocessed data after these plans.

        It must not be the folder of nnU-Net's plans, because our preprocessing keeps fewer ``class_locations``.
        """
        return f"{self.plans_identifier}_{configuration_name}"


class ClassScalePlanner(_CountsRank, ExperimentPlanner):
    """Plans a PlainConvUNet, as nnU-Net's default planner."""

    default_plans_name = "ClassScalePlans"


class ClassScalePlannerResEncM(_CountsRank, nnUNetPlannerResEncM):
    """Plans a ResidualEncoderUNet of nnU-Net's size M."""

    default_plans_name = "ClassScaleResEncMPlans"


class ClassScalePlannerResEncL(_CountsRank, nnUNetPlannerResEncL):
    """Plans a ResidualEncoderUNet of nnU-Net's size L."""

    default_plans_name = "ClassScaleResEncLPlans"


class ClassScalePlannerResEncXL(_CountsRank, nnUNetPlannerResEncXL):
    """Plans a ResidualEncoderUNet of nnU-Net's size XL."""

    default_plans_name = "ClassScaleResEncXLPlans"


# The keys are the names of nnU-Net's planners that these replace.
PLANNERS: dict[str, type[_CountsRank]] = {
    "ExperimentPlanner": ClassScalePlanner,
    "nnUNetPlannerResEncM": ClassScalePlannerResEncM,
    "nnUNetPlannerResEncL": ClassScalePlannerResEncL,
    "nnUNetPlannerResEncXL": ClassScalePlannerResEncXL,
}


def find_planner(name: str) -> type[_CountsRank]:
    """Return the planner that replaces the planner of nnU-Net with this name.

    :raises ModelError: if none of the planners here replaces it.

    >>> find_planner("nnUNetPlannerResEncL").__name__
    'ClassScalePlannerResEncL'
    """
    if name not in PLANNERS:
        raise ModelError(
            f"There is no planner {name} that plans with the channels of the basis: choose {', '.join(PLANNERS)}."
        )
    return PLANNERS[name]
