"""Bar 2, exactness: compare our label maps with those of exact arithmetic, in differing voxels per million.

    python Testing/Benchmarks/exactness.py [--root .benchmarks/exactness] [--quick]

The reference shares no code with the engine. It takes nnU-Net's preprocessed image, runs the networks in float64 over
nnU-Net's windows with nnU-Net's Gaussian and mirroring, resamples the full logits in float64 with nnU-Net's own
function and takes the largest. nnU-Net itself, with its fp16 accumulators, is compared with the same reference.

A network with random weights gives noise, and noise has many ties that no trained network has. So the head is fitted
(linear discriminants): the image consists of as many cells as there are classes, and the head finds these cells again.
Voxels that remain ties, closer than float32 can resolve, are also counted separately. If they differ, they count as
differing voxels too.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measure import Bar, parse, report
from random_model import CONFIGURATION, RandomModel

IMAGE_CHANNELS = 8
LIMIT = 2e-6
_LARGEST_LOGIT = 30.0  # as trained networks give


@dataclass(frozen=True)
class Case:
    """One network and image.

    :ivar size: voxels of the image along each axis; the model grid has 0.55 times as many.
    :ivar patch: voxels of the patch along each axis.
    """

    classes: int
    architecture: str = "PlainConvUNet"
    separate_z: bool = False
    mirroring: bool = False
    folds: int = 1
    regions: bool = False
    size: int = 104
    patch: int = 32

    def model(self) -> RandomModel:
        return RandomModel(
            classes=self.classes,
            patch=(self.patch,) * 3,
            spacing=(4.0, 1.0, 1.0) if self.separate_z else (1.0, 1.0, 1.0),
            features=(32, 32, 48),
            convolutions=1,
            architecture=self.architecture,
            channels=IMAGE_CHANNELS,
            normalization="ZScoreNormalization",
            regions=self.regions,
            mirror_axes=(0, 2) if self.mirroring else (),
        )

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing of the image in mm, (z, y, x)."""
        return tuple(0.55 * s for s in self.model().spacing)


def cells(classes: int, size: int, seed: int = 0) -> np.ndarray:
    """Return labels ``(size,)*3``: convex cells that fill an ellipsoid, surrounded by background 0."""
    from scipy.spatial import cKDTree

    generator = np.random.default_rng(seed)
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    points += 0.05 * np.sin(7 * np.roll(points, 1, -1) + 1)  # curved borders
    radius = np.linalg.norm(points / [0.95, 0.85, 0.9], axis=-1)
    candidates = generator.uniform(-1, 1, (classes * 8 + 64, 3))
    centres = candidates[np.linalg.norm(candidates / [0.95, 0.85, 0.9], axis=-1) < 1][: classes - 1]
    return np.where(radius < 1, 1 + cKDTree(centres).query(points)[1], 0)


def image_of(labels: np.ndarray, seed: int = 1) -> np.ndarray:
    """Return an image ``(channels, z, y, x)`` float32: cells of different grey values, borders a voxel wide, noise."""
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(seed)
    codes = generator.standard_normal((int(labels.max()) + 1, IMAGE_CHANNELS))
    image = np.moveaxis(codes[labels], -1, 0)
    image = np.stack([gaussian_filter(channel, 0.7) for channel in image])
    return (image + 0.02 * generator.standard_normal(image.shape)).astype(np.float32)


def preprocessed(image: np.ndarray, case: Case):
    """Return the image after nnU-Net's preprocessing, ``(channels, X, Y, Z)`` float32, with properties and plans."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    model = case.model()
    manager = PlansManager(model.plans())
    configuration = manager.get_configuration(CONFIGURATION)
    preprocessor = configuration.preprocessor_class(verbose=False)
    properties = {"spacing": list(case.spacing)}
    array, _, properties = preprocessor.run_case_npy(
        image, None, properties, manager, configuration, model.dataset_json()
    )
    return array, properties, manager, configuration


def mean_over_windows(network, image: np.ndarray, patch: tuple, mirror_axes: tuple, dtype):
    """Return nnU-Net's sliding-window mean of the outputs, ``(K, X, Y, Z)``, with accumulators of ``dtype``."""
    import torch
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    data, inside = pad_nd_image(torch.from_numpy(image).to(dtype), patch, "constant", {"value": 0}, True)
    gaussian = compute_gaussian(patch, 1 / 8, 10, dtype=dtype, device=torch.device("cpu"))
    flips = [f for n in range(len(mirror_axes) + 1) for f in itertools.combinations([a + 2 for a in mirror_axes], n)]
    network, total, weight = network.to(dtype), None, torch.zeros(data.shape[1:], dtype=dtype)
    with torch.inference_mode():
        for start in itertools.product(*compute_steps_for_sliding_window(data.shape[1:], patch, 0.5)):
            box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
            part = data[(slice(None), *box)][None]
            output = sum(network(part.flip(flip)).flip(flip) for flip in flips)[0] / len(flips)
            total = output.new_zeros((len(output), *data.shape[1:])) if total is None else total
            total[(slice(None), *box)] += output.mul_(gaussian)
            weight[box] += gaussian
        return total.div_(weight)[(slice(None), *inside[1:])].numpy()


def fit_head(network, image: np.ndarray, labels: np.ndarray, case: Case) -> None:
    """Set the last layer so that the classes are the cells.

    The discriminants are ``mean^T S^-1 f - mean^T S^-1 mean / 2``.
    """
    import torch

    head = network.decoder.seg_layers[-1]
    network.decoder.seg_layers[-1] = torch.nn.Identity()
    basis = mean_over_windows(network, image, case.model().patch, (), torch.float32)
    network.decoder.seg_layers[-1] = head
    features = basis.reshape(len(basis), -1).astype(np.float64).T
    index = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(image.shape[1:], labels.shape, strict=True)]
    truth = labels[np.ix_(*index)].ravel()
    count = np.maximum(np.bincount(truth, minlength=case.classes), 1)
    means = np.stack([np.bincount(truth, f, minlength=case.classes) / count for f in features.T], 1)
    within = np.cov((features - means[truth]).T)
    weight = means @ np.linalg.inv(within + 0.1 * np.trace(within) / len(basis) * np.eye(len(basis)))
    bias = -0.5 * (weight * means).sum(1)
    if case.regions:  # a discriminant against everything else, with its border moved so that the region is small
        bias = np.array([-np.quantile(features @ row, 0.97) for row in weight])
    logits = features[::17] @ weight.T + bias
    scale = _LARGEST_LOGIT / np.quantile(np.abs(logits).max(1), 0.99)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight * scale).view_as(head.weight))
        head.bias.copy_(torch.from_numpy(bias * scale))


def decide(logits: np.ndarray, shape: tuple, spacing: tuple, new_spacing: tuple, regions: bool):
    """Resample float64 logits class by class with nnU-Net's function, and decide.

    :returns: the labels, and the distance in logits to the nearest other decision; both of ``shape``.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    labels, gap = np.zeros(shape, np.int64), np.full(shape, np.inf)
    best = np.full(shape, -np.inf)
    for row, channel in enumerate(logits):
        here = resample_data_or_seg_to_shape(
            channel[None], shape, spacing, new_spacing, order=1, order_z=0, force_separate_z=None
        )[0]
        if regions:  # the last one above zero wins
            labels[here > 0] = row + 1
            gap = np.where(here > 0, here, np.minimum(gap, -here))
        else:
            gap = np.where(here > best, here - best, np.minimum(gap, best - here))
            labels[here > best] = row
            best = np.maximum(best, here)
    return labels, gap


def stock_labels(networks: list, image: np.ndarray, case: Case) -> np.ndarray:
    """Return nnU-Net's own prediction with these networks, which uses fp16 accumulators."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    model, axes = case.model(), case.model().mirror_axes or None
    manager = PlansManager(model.plans())
    predictor = nnUNetPredictor(use_mirroring=case.mirroring, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        networks[0].float(),
        manager,
        manager.get_configuration(CONFIGURATION),
        [{k: v.float().clone() for k, v in network.state_dict().items()} for network in networks],
        model.dataset_json(),
        "nnUNetTrainer",
        axes,
    )
    return predictor.predict_single_npy_array(image, {"spacing": list(case.spacing)})


def measure(case: Case, root: Path, stock: bool = True) -> dict:
    """Segment one case with the engine, in float64 and with nnU-Net; return a row of the table."""
    import SimpleITK as sitk
    import torch
    from ClassScaleSegLib import open_model, segment

    truth = cells(case.classes, case.size)
    image = image_of(truth)
    array, properties, manager, configuration = preprocessed(image, case)
    networks = [case.model().network(seed) for seed in range(case.folds)]
    for network in networks:
        fit_head(network, array, truth, case)
    folder = case.model().write(root, networks)

    file = sitk.GetImageFromArray(np.moveaxis(image, 0, -1), isVector=True)
    file.SetSpacing(case.spacing[::-1])
    ours = segment(file, open_model(folder), device="cpu", mirroring=case.mirroring, threads=torch.get_num_threads())

    logits = 0.0
    for network in networks:
        logits = logits + mean_over_windows(
            network, array, tuple(configuration.patch_size), case.model().mirror_axes, torch.float64
        )
    logits /= len(networks)
    exact, gap = decide(logits, truth.shape, configuration.spacing, properties["spacing"], case.regions)
    rounding = np.finfo(np.float32).eps * np.abs(logits).max()
    del logits
    row = {
        "classes": case.classes,
        "network": case.architecture,
        "separate_z": case.separate_z,
        "mirroring": case.mirroring,
        "folds": case.folds,
        "regions": case.regions,
        "voxels": exact.size,
        "labels_used": len(np.unique(exact)),
        "like_the_cells": None if case.regions else float((exact == truth).mean()),
        "ties": int((gap < rounding).sum()),
        "differ": int((ours.labels != exact).sum()),
    }
    if stock:
        row["stock_differ"] = int((stock_labels(networks, image, case) != exact).sum())
    return row


def all_cases(quick: bool) -> list[Case]:
    cases = []
    for classes in (10, 118) if quick else (10, 118, 1000):
        cases += [
            Case(classes, architecture, separate)
            for architecture in ("PlainConvUNet", "ResidualEncoderUNet")
            for separate in (False, True)
        ]
        cases += [Case(classes, mirroring=True), Case(classes, folds=2), Case(classes, regions=True)]
    cases.append(Case(118, "ResidualEncoderUNet", True, mirroring=True, folds=2, regions=True))
    return [replace(case, size=56, patch=16) for case in cases] if quick else cases


def main() -> int:
    options = parse(__doc__, "exactness")
    rows = []
    for case in all_cases(options.quick):
        rows.append(measure(case, options.root))
        print(rows[-1], flush=True)
    total = sum(row["differ"] for row in rows) / sum(row["voxels"] for row in rows)
    worst = max(row["differ"] / row["voxels"] for row in rows)
    bars = [Bar("differing voxels in a million, all cases", total * 1e6, LIMIT * 1e6)]
    if not options.quick:  # in a small volume one voxel is more than two in a million
        bars.append(Bar("differing voxels in a million, worst case", worst * 1e6, LIMIT * 1e6))
    return report(options, "exactness", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
