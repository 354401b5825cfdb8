"""Small models of Auto3DSeg with random weights, and MONAI's own pipeline to compare with.

`monai_labels` prepares an image, runs the network and brings the labels back with MONAI's transforms and its
sliding-window inferer, in the order and with the constants of SlicerMONAIAuto3DSeg's inference script.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

TERMS = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
COLUMNS = [
    "LabelValue",
    "Name",
    *(f"SegmentedPropertyCategoryCodeSequence.{term}" for term in TERMS),
    *(f"SegmentedPropertyTypeCodeSequence.{term}" for term in TERMS),
    *(f"SegmentedPropertyTypeModifierCodeSequence.{term}" for term in TERMS),
    *(f"AnatomicRegionSequence.{term}" for term in TERMS),
    *(f"AnatomicRegionModifierSequence.{term}" for term in TERMS),
]


def configuration(classes=12, channels=1, **changes):
    """Return a configuration as Auto3DSeg stores it with the weights."""
    network = {
        "_target_": "SegResNetDS",
        "init_filters": 8,
        "in_channels": channels,
        "out_channels": classes,
        "blocks_down": [1, 2, 2],
        "norm": "INSTANCE",
        "act": ["relu", {"inplace": False}],
        "dsdepth": 2,
        **changes.pop("network", {}),
    }
    usual = {
        "network": network,
        "normalize_mode": "ct",
        "intensity_bounds": [-250, 250],
        "roi_size": [24, 32, 20],
        "resample_resolution": [1.5, 1.5, 1.5],
        "crop_foreground": True,
        "orientation_ras": True,
        "sigmoid": False,
        "modality": "ct",
        "class_names": [f"class {value}" for value in range(classes)],
        "loss": {"_target_": "DeepSupervisionLoss", "loss": {"_target_": "DiceCELoss"}},
    }
    return {**usual, **changes}


def network_of(config, seed=0):
    """Build the network of a configuration with random weights, whose logits differ enough for clear labels."""
    from monai.networks.nets import SegResNetDS

    torch.manual_seed(seed)
    arguments = {key: value for key, value in copy.deepcopy(config["network"]).items() if key != "_target_"}
    network = SegResNetDS(**arguments)
    with torch.no_grad():
        network.up_layers[-1]["head"].weight.mul_(5)
    return network.eval()


def write_package(folder, config, network, values=None, **more):
    """Write ``model.pt`` and ``labels.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"config": config, "state_dict": network.state_dict(), "epoch": 3, **more}, folder / "model.pt")
    values = range(1, config["network"]["out_channels"]) if values is None else values
    liver = "SCT,123037004,Anatomical Structure,SCT,10200004,Liver"
    lines = [",".join(COLUMNS), *(f"{value},organ {value},{liver}" for value in values)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def monai_labels(config, network, files, interpolation="nearest"):
    """Return the labels ``(x, y, z)`` of images as stored, found by MONAI alone.

    :param files: one for each channel.
    :param interpolation: ``nearest``, as the script; ``linear``: the logits are brought back and compared there.
    """
    from monai import transforms as t
    from monai.data import MetaTensor
    from monai.inferers import SlidingWindowInferer

    regions = config["sigmoid"]
    images = [t.LoadImage(ensure_channel_first=True, image_only=True, dtype=np.float32)(str(file)) for file in files]
    modes = [config["normalize_mode"], *dict(config.get("extra_modalities") or {}).values()]
    modes = modes if len(modes) == len(images) else modes * len(images)
    raw = torch.cat(images)
    if not regions:
        images = [_normalized(image, mode, config) for image, mode in zip(images, modes, strict=True)]
    image = MetaTensor(torch.cat([part.as_tensor() for part in images]), affine=images[0].affine)
    source = MetaTensor(raw.as_tensor() if regions or len(files) == 1 else image[:1].as_tensor(), affine=image.affine)
    steps = []
    if config["orientation_ras"]:
        turn = t.Orientation(axcodes="RAS")
        image, source = turn(image), turn(source)
        steps.append(turn)
    if config["crop_foreground"]:
        start, end = t.utils.generate_spatial_bounding_box(source, margin=10, allow_smaller=True)
        crop = t.SpatialCrop(roi_start=start, roi_end=end)
        image = crop(image)
        steps.append(crop)
    wanted = np.array(config["resample_resolution"])
    resample = t.Spacing(pixdim=wanted, mode="bilinear", min_pixdim=0.75 * wanted, max_pixdim=1.25 * wanted)
    image = resample(image)
    steps.append(resample)
    data = image.as_tensor()
    if regions:
        parts = zip(data, modes, strict=True)
        data = torch.cat([_normalized(MetaTensor(part[None]), mode, config).as_tensor() for part, mode in parts])
    inferer = SlidingWindowInferer(config["roi_size"], sw_batch_size=1, overlap=0.625, mode="gaussian")
    with torch.no_grad():
        logits = inferer(data[None], network)[0]
    found = logits if interpolation == "linear" else _decided(logits, regions)
    result = MetaTensor(found.float(), meta=image.meta, applied_operations=copy.deepcopy(image.applied_operations))
    if interpolation == "nearest":
        result.applied_operations = [_with_nearest(operation) for operation in result.applied_operations]
    elif config["crop_foreground"]:  # outside of the box there are no logits
        inside = MetaTensor(torch.ones(1, *found.shape[1:]), meta=image.meta)
        inside.applied_operations = [_with_nearest(o) for o in copy.deepcopy(image.applied_operations)]
    for step in reversed(steps):
        result = step.inverse(result)
    if interpolation == "nearest":
        return result[0].numpy().astype(np.uint16)
    labels = _decided(result.as_tensor(), regions)[0].numpy().astype(np.uint16)
    if config["crop_foreground"]:
        for step in reversed(steps):
            inside = step.inverse(inside)
        labels[inside[0].numpy() == 0] = 0
    return labels


def _with_nearest(operation):
    operation = copy.deepcopy(operation)
    if "mode" in operation.get("extra_info", {}):
        operation["extra_info"]["mode"] = "nearest"
    return operation


def _normalized(image, mode, config):
    from monai import transforms as t

    if mode in ("range", "ct"):
        low, high = config["intensity_bounds"]
        scaled = t.ScaleIntensityRange(a_min=low, a_max=high, b_min=-1, b_max=1, clip=False)(image)
        return torch.sigmoid(scaled)
    if mode == "pet":
        return torch.sigmoid((image - image.min()) / image.std())
    if mode == "none":
        return image
    normal = t.NormalizeIntensity(nonzero=True, channel_wise=True)(image)
    return 3 * torch.tanh(normal / 3) if mode == "meanstdtanh" else normal


def _decided(logits, regions):
    """Return the labels ``(1, ...)`` of logits ``(C, ...)``."""
    if not regions:
        return logits.argmax(0, keepdim=True)
    labels = torch.zeros_like(logits[:1], dtype=torch.int64)
    values = (2, 1, 3) if len(logits) == 3 else range(1, len(logits) + 1)
    for row, value in zip(logits, values, strict=True):
        labels[0][row.sigmoid() >= 0.5] = value
    return labels
