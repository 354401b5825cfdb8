"""An nnU-Net v2 model folder -> backbone (R channels) and projection (C x R), without looking up the trainer class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ModelError(Exception):
    """A model that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Model:
    """What inference needs. ``backbones`` holds one network per fold, ``projection`` their shared, averaged head."""

    backbones: tuple[Any, ...]
    projection: Any
    plans_manager: Any
    configuration: Any
    dataset: dict
    mirror_axes: tuple[int, ...]
    names: dict[int, str]

    @property
    def patch(self) -> tuple[int, ...]:
        return tuple(self.configuration.patch_size)

    @property
    def channels(self) -> int:
        return len(channel_names(self.dataset))


def channel_names(dataset: dict) -> dict[str, str]:
    """``channel_names`` of a ``dataset.json``; older files call it ``modality``."""
    return dataset.get("channel_names") or dataset["modality"]


def open_model(folder: str | Path, folds: tuple[int | str, ...] | None = None, checkpoint: str = "final") -> Model:
    """Open an nnU-Net v2 model folder (``plans.json``, ``dataset.json``, ``fold_*``).

    A fold is ``fold_K/checkpoint_{final,best}.pth`` (read with ``weights_only=True``) or ``fold_K.safetensors``.

    :raises ModelError: one sentence naming the file and the fault.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from .projection import Projection

    folder = Path(folder)
    plans, dataset = _json(folder / "plans.json"), _json(folder / "dataset.json")
    files = _fold_files(folder, folds, checkpoint)
    contents = [_read(file) for file in files]
    manager = PlansManager(plans)
    configuration_name = contents[0].get("configuration") or next(iter(plans["configurations"]))
    configuration = manager.get_configuration(configuration_name)
    if configuration.previous_stage_name is not None:
        raise ModelError(
            f"{folder}: configuration {configuration_name} is a cascade: it needs the segmentation of "
            f"{configuration.previous_stage_name} as input, which is not supported. Use a single-stage configuration."
        )
    architecture = configuration.network_arch_class_name.rsplit(".", 1)[-1]
    if architecture not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise ModelError(f"{folder / 'plans.json'}: architecture {architecture} is not supported, U-Nets are.")
    labels = manager.get_label_manager(dataset)
    classes = labels.num_segmentation_heads
    backbones, weights, biases = [], [], []
    for file, content in zip(files, contents, strict=True):
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            len(channel_names(dataset)),
            classes,
            allow_init=False,
            deep_supervision=False,
        )
        state = {k.removeprefix("_orig_mod.").removeprefix("module."): v for k, v in content["weights"].items()}
        last = network.decoder.seg_layers[-1]
        # heads of deep supervision are not used; the last one is
        unused = tuple(f"decoder.seg_layers.{i}." for i in range(len(network.decoder.seg_layers) - 1))
        try:
            missing, unexpected = network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ModelError(
                f"{file}: the weights do not fit {classes} classes and the architecture in plans.json "
                f"({str(error).splitlines()[-1].strip()})."
            ) from error
        # the decoder registers the encoder again, and blocks register their layers twice: absent aliases are no fault
        missing = [k for k in missing if not k.startswith(("decoder.encoder.", *unused)) and ".all_modules." not in k]
        if missing or unexpected:
            fault = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is not part of the network"
            raise ModelError(f"{file}: the weights do not belong to plans.json: {fault}.")
        network.decoder.seg_layers[-1] = torch.nn.Identity()
        backbones.append(network.eval())
        weights.append(last.weight.detach().flatten(1))
        biases.append(last.bias.detach() if last.bias is not None else last.weight.new_zeros(classes))
    # the mean of the folds' logits is linear in their concatenated bases
    n = len(backbones)
    order = dataset["regions_class_order"] if labels.has_regions else [0, *labels.foreground_labels]
    values = tuple(int(v) for v in order)
    names = _names(dataset, labels, values)
    projection = Projection(
        torch.cat(weights, 1) / n, torch.stack(biases).mean(0), values=values, regions=labels.has_regions
    )
    return Model(tuple(backbones), projection, manager, configuration, dataset, contents[0]["mirror"], names)


def _names(dataset: dict, labels: Any, values: tuple[int, ...]) -> dict[int, str]:
    if labels.has_regions:
        regions = [k for k, v in dataset["labels"].items() if k not in ("ignore", "background") and v not in (0, [0])]
        return {0: "background", **dict(zip(values, regions, strict=True))}
    return {int(v): k for k, v in dataset["labels"].items() if int(v) in values}


def _json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: this is not an nnU-Net v2 model folder.") from None
    except ValueError as error:
        raise ModelError(f"{file} is not valid JSON ({error}).") from error


def _fold_files(folder: Path, folds: tuple[int | str, ...] | None, checkpoint: str) -> list[Path]:
    def candidates(fold: str) -> list[Path]:
        return [folder / f"{fold}.safetensors", folder / fold / f"checkpoint_{checkpoint}.pth"]

    if folds is None:
        found = sorted({p.name.removesuffix(".safetensors") for p in folder.glob("fold_*")})
    else:
        found = [f"fold_{fold}" for fold in folds]
    files = []
    for fold in found:
        present = [p for p in candidates(fold) if p.is_file()]
        if present:
            files.append(present[0])
        elif folds is not None:
            raise ModelError(f"{candidates(fold)[1]} is missing.")
    if not files:
        raise ModelError(f"{folder}: no fold with a checkpoint_{checkpoint}.pth was found.")
    return files


def _read(file: Path) -> dict:
    import torch

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return {"weights": load_file(file), "configuration": None, "mirror": ()}
        import numpy as np

        numpy_scalars = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
        scalar = (np.core if int(np.__version__.split(".")[0]) < 2 else np._core).multiarray.scalar
        with torch.serialization.safe_globals([scalar, (scalar, "numpy.core.multiarray.scalar"), *numpy_scalars]):
            content = torch.load(file, map_location="cpu", weights_only=True)
        mirror = content.get("inference_allowed_mirroring_axes") or ()
        return {
            "weights": content["network_weights"],
            "configuration": content["init_args"]["configuration"],
            "mirror": tuple(mirror),
        }
    except Exception as error:
        raise ModelError(f"{file} cannot be read as a checkpoint ({str(error).splitlines()[0]}).") from error
