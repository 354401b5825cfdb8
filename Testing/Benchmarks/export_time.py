"""Bar 4, first half: time from the network's output on the model grid to the label map on the image grid, one thread.

    python Testing/Benchmarks/export_time.py [--root .benchmarks/export_time] [--quick]

Ours: decoding the basis by rows into the label array. Stock: nnU-Net's
``convert_predicted_logits_to_segmentation_with_correct_shape`` on the full logits in half precision, as its predictor
passes them; computing the logits is not timed. Both get the same anatomy-like field (``anatomy_field.py``).

Ours is the median of five repetitions; stock is run once. ``boundary`` is the share of output voxels between model
voxels of different classes; these are the voxels that cost our decoder time.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from anatomy_field import ATLAS, anatomy_field
from measure import Bar, free_bytes, in_own_process, parse, report
from random_model import CONFIGURATION, RandomModel

REPETITIONS = 5
# classes, size of the model grid, size of the image grid, required speed as a multiple of stock's
CASES = ((118, 80, 152, 20), (1000, 80, 152, 60), (118, 80, 240, None))
QUICK = ((118, 40, 76, None), (300, 40, 76, None))


def run(classes: int, size: int, new_size: int, stock: bool) -> dict:
    """Time one case in this process, on one thread; return a row of the table."""
    import numpy as np
    import torch
    from ClassScaleSegLib.inference.decode import RowDecoder
    from ClassScaleSegLib.inference.interpolation import AxisSampling
    from ClassScaleSegLib.models.projection import Projection

    torch.set_num_threads(1)
    basis, weight, bias = anatomy_field(classes, size)
    axes = (AxisSampling.linear(size, new_size),) * 3
    rows, seconds = basis.unbind(1), []
    for _ in range(REPETITIONS):
        with torch.inference_mode():
            begin = time.perf_counter()
            labels = np.zeros((new_size,) * 3, np.uint16)
            decoder = RowDecoder(Projection(weight, bias), axes)
            for basis_row in rows:
                decoder.push(basis_row)
                while row := decoder.pop():
                    labels[row.index] = row.labels.numpy()
            seconds.append(time.perf_counter() - begin)
    result = {
        "classes": classes,
        "from": size,
        "to": new_size,
        "boundary": _boundary_share(basis, weight, bias, axes[0]),
    }
    result |= {"ours_s": statistics.median(seconds), "fastest_s": min(seconds), "slowest_s": max(seconds)}
    if not stock:
        return result
    logits = torch.empty((classes, *basis.shape[1:]), dtype=torch.half)
    for x in range(size):
        logits[:, x] = torch.einsum("cr,ryz->cyz", weight, rows[x]) + bias[:, None, None]
    theirs, stock_seconds = _stock(logits, new_size)
    return result | {
        "stock_s": stock_seconds,
        "times_faster": stock_seconds / result["ours_s"],
        "agreement": float((theirs == labels).mean()),
    }


def _stock(logits, new_size: int):
    """Run nnU-Net's export on half-precision logits ``(C, X, Y, Z)``; return the label map and the seconds."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    model = RandomModel(len(logits), (32, 32, 32), spacing=(new_size / logits.shape[1],) * 3)
    manager = PlansManager(model.plans())
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_before_cropping": (new_size,) * 3,
        "shape_after_cropping_and_before_resampling": (new_size,) * 3,
        "bbox_used_for_cropping": [[0, new_size]] * 3,
    }
    begin = time.perf_counter()
    labels = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        manager,
        manager.get_configuration(CONFIGURATION),
        manager.get_label_manager(model.dataset_json()),
        properties,
        num_threads_torch=1,
    )
    return labels, time.perf_counter() - begin


def _boundary_share(basis, weight, bias, axis) -> float:
    import numpy as np
    import torch

    winner = torch.stack(
        [(torch.einsum("cr,ryz->cyz", weight, r) + bias[:, None, None]).argmax(0) for r in basis.unbind(1)]
    ).numpy()
    first = winner[np.ix_(axis.lower, axis.lower, axis.lower)]
    same = np.ones(first.shape, bool)
    for x in (axis.lower, axis.upper):
        for y in (axis.lower, axis.upper):
            for z in (axis.lower, axis.upper):
                same &= winner[np.ix_(x, y, z)] == first
    return float(1 - same.mean())


def main() -> int:
    options = parse(__doc__, "export_time")
    if options.task:
        print(json.dumps(run(**options.task)))
        return 0
    if not ATLAS.exists():
        raise SystemExit(f"{ATLAS} is missing: the benchmark needs the labels of this atlas.")
    rows, bars = [], []
    for classes, size, new_size, at_least in QUICK if options.quick else CASES:
        # half and float64 logits on the model grid, half-precision logits on the image grid
        need = classes * (10 * size**3 + 2 * new_size**3) + (2 << 30)
        fits = need < 0.95 * free_bytes()
        row = in_own_process(__file__, classes=classes, size=size, new_size=new_size, stock=fits)
        if not fits:
            row["skipped"] = f"stock was not run: it needs {need / 2**30:.0f} GiB, more than is free"
        elif at_least is not None:
            name = f"times faster than stock, {classes} classes, {size}^3 to {new_size}^3"
            bars.append(Bar(name, row["times_faster"], at_least, at_least=True))
        rows.append(row)
    return report(options, "export_time", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
