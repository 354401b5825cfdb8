"""nnU-Net's planners, counting the R channels of the basis where they count C classes.

Stock estimates memory from the feature maps of the network, C logits among them: at C = 1001 its patch shrinks from
128^3 to 80x64x80, although with :class:`.ClassScaleHead` no such feature map exists. The plans
stay those of stock networks, so every tool of nnU-Net reads them; the trainer adds the head.
"""

from __future__ import annotations

from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from ..network.low_rank_head import DEFAULT_RANK, check_rank

RANK_ENTRY = "classscale_rank"  # of a configuration in plans.json; absent: the default. nnU-Net ignores it


class _CountsRank:
    """What the planners below share; ``rank`` may be set before ``plan_experiment`` is called.

    Their plans have names of their own, so that stock's are not overwritten.
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
        """Voxels of all feature maps, as stock counts them, but with the basis as output whatever ``output_channels``.

        Built without memory, so that planning does not depend on the number of worker processes as stock's does.
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
        """:raises ModelError: if a rank was chosen that exceeds the channels of the finest scale."""
        plan = super().get_plans_for_configuration(*arguments, **options)
        if self.rank is not None:
            check_rank(self.rank, plan["architecture"]["arch_kwargs"]["features_per_stage"][0])
            plan[RANK_ENTRY] = self.rank
        return plan

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Folder of the preprocessed data: our own, because our preprocessing keeps fewer ``class_locations``."""
        return f"{self.plans_identifier}_{configuration_name}"


class ClassScalePlanner(_CountsRank, ExperimentPlanner):
    default_plans_name = "ClassScalePlans"


class ClassScalePlannerResEncM(_CountsRank, nnUNetPlannerResEncM):
    default_plans_name = "ClassScaleResEncMPlans"


class ClassScalePlannerResEncL(_CountsRank, nnUNetPlannerResEncL):
    default_plans_name = "ClassScaleResEncLPlans"


class ClassScalePlannerResEncXL(_CountsRank, nnUNetPlannerResEncXL):
    default_plans_name = "ClassScaleResEncXLPlans"


# by the names that nnU-Net's commands know
PLANNERS: dict[str, type] = {
    "ExperimentPlanner": ClassScalePlanner,
    "nnUNetPlannerResEncM": ClassScalePlannerResEncM,
    "nnUNetPlannerResEncL": ClassScalePlannerResEncL,
    "nnUNetPlannerResEncXL": ClassScalePlannerResEncXL,
}


def find_planner(name: str) -> type:
    """:raises ModelError: if there is no such planner."""
    if name not in PLANNERS:
        raise ModelError(f"There is no planner {name} that counts the basis; there are {', '.join(PLANNERS)}.")
    return PLANNERS[name]
