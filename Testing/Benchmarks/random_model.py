"""Write nnU-Net v2 model folders of any size with random weights; time and memory do not depend on the weights.

Plans, ``dataset.json`` and checkpoint have the form of nnU-Net 2.8, so both engines read the same folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from classscale_training.loop.model_folder import CONFIGURATION, checkpoint_content, plans
from classscale_training.network.plain_unet import architecture

if TYPE_CHECKING:
    import torch

_PACKAGE = "dynamic_network_architectures.architectures.unet"


@dataclass(frozen=True)
class RandomModel:
    """A model folder to write.

    :ivar classes: number of outputs: the classes, including the background, or the regions.
    :ivar patch: voxels, (z, y, x).
    :ivar spacing: of the model grid, (z, y, x) in mm.
    :ivar features: channels of each stage; the first number is the rank R.
    :ivar convolutions: number in each stage.
    :ivar architecture: name of nnU-Net's network class.
    :ivar channels: number of input channels.
    :ivar normalization: name of nnU-Net's normalisation.
    :ivar regions: whether the outputs are regions.
    :ivar mirror_axes: axes that the training mirrored.
    :ivar dataset: name of the dataset. With TotalSegmentator's names the engine first turns images to RAS.
    """

    classes: int
    patch: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    features: tuple[int, ...] = (32, 64, 128)
    convolutions: int = 2
    architecture: str = "PlainConvUNet"
    channels: int = 1
    normalization: str = "CTNormalization"
    regions: bool = False
    mirror_axes: tuple[int, ...] = ()
    dataset: str = "Dataset900_Random"

    def plans(self) -> dict:
        """Return the content of ``plans.json``."""
        intensities = {"mean": 50.0, "std": 250.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
        content = plans(self.dataset, self.patch, self.spacing, self._arch_kwargs())
        content["experiment_planner_used"] = "ExperimentPlanner"
        content["foreground_intensity_properties_per_channel"] = {str(c): intensities for c in range(self.channels)}
        configuration = content["configurations"][CONFIGURATION]
        configuration["batch_dice"] = False
        configuration["normalization_schemes"] = [self.normalization] * self.channels
        configuration["use_mask_for_norm"] = [False] * self.channels
        configuration["architecture"]["network_class_name"] = f"{_PACKAGE}.{self.architecture}"
        return content

    def _arch_kwargs(self) -> dict:
        stages = len(self.features)
        values = architecture(self.features, [self.convolutions] * stages, [self.convolutions] * (stages - 1))
        if self.architecture == "ResidualEncoderUNet":
            values["n_blocks_per_stage"] = values.pop("n_conv_per_stage")
        return values

    def dataset_json(self) -> dict:
        """Return the content of ``dataset.json``. The first region is the whole, each other region one structure."""
        values = range(1, self.classes + 1) if self.regions else range(1, self.classes)
        labels: dict = {"background": 0, **{f"structure {value}": value for value in values}}
        content: dict = {"channel_names": {str(c): "CT" for c in range(self.channels)}, "labels": labels}
        if self.regions:
            labels["structure 1"] = list(values)
            content["regions_class_order"] = list(values)
        return {**content, "numTraining": 1, "file_ending": ".nii.gz"}

    def network(self, seed: int = 0) -> torch.nn.Module:
        """Return the network that nnU-Net builds from the plans, in evaluation mode."""
        import torch
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        architecture = self.plans()["configurations"][CONFIGURATION]["architecture"]
        torch.manual_seed(seed)
        return get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            self.channels,
            self.classes,
            deep_supervision=False,
        ).eval()

    def write(self, root: Path, networks: Sequence[torch.nn.Module] = ()) -> Path:
        """Write a model folder under ``root`` and replace the previous one.

        :param networks: one network per fold; if there are none, a single random network is written.
        :returns: the model folder.
        """
        import torch

        folder = root / self.dataset / f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
        shutil.rmtree(folder, ignore_errors=True)
        for fold, network in enumerate(networks or [self.network()]):
            file = folder / f"fold_{fold}" / "checkpoint_final.pth"
            file.parent.mkdir(parents=True, exist_ok=True)
            more = {"inference_allowed_mirroring_axes": self.mirror_axes or None}
            more["init_args"] = {"configuration": CONFIGURATION, "fold": fold}
            torch.save(checkpoint_content(network.state_dict(), **more), file)
        (folder / "plans.json").write_text(json.dumps(self.plans(), indent=2))
        (folder / "dataset.json").write_text(json.dumps(self.dataset_json(), indent=2))
        return folder


def stock_predictor(folder: Path, mirroring: bool = False):
    """Return nnU-Net's own predictor on a CPU, with a model folder loaded."""
    import torch
    from stock import declare_torchvision_operators

    declare_torchvision_operators()
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), None)
    return predictor
