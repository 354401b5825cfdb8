"""Measure one row of :mod:`gpu_engine` in a separate process, which gets its task as a line of JSON on standard input.

The facts of the row so far are in a file, which the parent reads however this process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parents[1] / "training"), str(HERE.parents[1] / "ClassScaleSeg")]
from classscale_training.files import write_json  # noqa: E402
from measure import mebibytes, peak_bytes, reset_peak, resident_bytes  # noqa: E402
from stock import declare_torchvision_operators  # noqa: E402


class Row:
    """The facts of the row so far, in a file that the parent reads however the process ends."""

    def __init__(self, file: Path):
        self.file, self.content = file, {}

    def add(self, **facts: object) -> None:
        self.content |= facts
        write_json(self.file, self.content)


def serve() -> None:
    """Import everything, wait for one task on standard input, and do it."""
    declare_torchvision_operators()
    import ClassScaleSegLib.inference.segmenter  # noqa: F401
    import nnunetv2.inference.predict_from_raw_data  # noqa: F401
    import nnunetv2.preprocessing.preprocessors.default_preprocessor  # noqa: F401
    import scipy.ndimage  # noqa: F401
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    recursive_find_trainer_class_by_name("nnUNetTrainer")  # imports every trainer
    line = sys.stdin.readline()
    if not line:
        return
    task = json.loads(line)
    row = Row(Path(task.pop("answer")))
    try:
        {"bundle": bundle, "ours": ours, "stock": stock, "limited": limited, "child": child}[task.pop("do")](
            row, **task
        )
    except Exception as fault:  # the other rows still run
        traceback.print_exc(file=sys.stdout)
        row.add(fault=f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:300]}")


def bundle(row: Row, name: str, sample: str, device: str) -> None:
    """Segment the sample of an embedded model on the CPU, then on the device."""
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.commands.demo import mean_dice
    from ClassScaleSegLib.images.segmentation import Segmentation
    from ClassScaleSegLib.resources import resource

    image, labels = resource("SampleData", f"{sample}.nrrd"), {}
    model = open_model(resource("Models", f"{name}.zip"))
    for place, where in (("cpu", "cpu"), ("device", device)):
        first = segment(image, model, device=where).labels
        start(device)
        begin = time.perf_counter()
        labels[place] = segment(image, model, device=where).labels
        row.add(**{f"{place}_s": seconds_since(begin), f"{place}_same_twice": bool((labels[place] == first).all())})
    row.add(voxels=first.size, differ=int((labels["cpu"] != labels["device"]).sum()), **peaks(device))
    with single_precision():
        labels["float32"] = segment(image, model, device=device).labels
    row.add(float32_differ=int((labels["cpu"] != labels["float32"]).sum()))
    with contextlib.suppress(FileNotFoundError):  # the labels of the head sample are not shipped
        truth = Segmentation.from_image(resource("SampleData", f"{sample}-labels.nrrd")).labels
        row.add(**{f"{place}_dice": mean_dice(found, truth) for place, found in labels.items()})


@contextlib.contextmanager
def single_precision():
    """Use neither half precision nor TF32 in the network, so that only the order of additions differs from the CPU."""
    import torch

    with (
        patch("torch.autocast", lambda *_, **__: contextlib.nullcontext()),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        yield


def ours(row: Row, model: str, image: str, device: str, labels: str) -> None:
    begin = time.perf_counter()
    opened = opened_and_warm(model, device)
    row.add(load_and_warm_s=seconds_since(begin))
    save(labels, timed_segment(row, opened, image, device))


def limited(row: Row, model: str, image: str, device: str, gib: float, how: str, labels: str, reference: str) -> None:
    """Segment with a small GPU, and compare the labels with those of a large one."""
    import numpy as np
    import torch
    from ClassScaleSegLib import segment

    opened = opened_and_warm(model, device)
    if not Path(reference).exists():
        save(reference, segment(image, opened, device=device, mirroring=False).labels)
    options = {"memory_limit_gib": gib} if how == "memory_limit" else {}
    if how == "torch" and device != "cpu":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total, torch.cuda.current_device())
    found = timed_segment(row, opened, image, device, **options)
    row.add(differ_from_unlimited=int((found != np.load(reference)).sum()))


def child(row: Row, model: str, image: str, device: str) -> None:
    """Segment in the child process of the panel; ``seconds`` is from its start to its end."""
    from ClassScaleSegLib.options import Options
    from ClassScaleSegLib.process import SegmentationProcess
    from ClassScaleSegLib.process.job import Job

    with SegmentationProcess() as process:
        output = process.work_folder / "result.seg.nrrd"
        process.job = Job((image,), model, output, options=Options(device=device, mirroring=False))
        begin = time.perf_counter()
        process.start()
        state = process.wait()
        row.add(state=state, seconds=seconds_since(begin), structures=process.result.get("structures"))
        if state != "finished":
            row.add(fault=process.error or state)


def stock(row: Row, model: str, image: str, device: str, labels: str) -> None:
    """Run nnU-Net's predictor and time its own methods."""
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    begin = time.perf_counter()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, None)
    predictor.predict_single_npy_array(*warm_up_image(predictor.configuration_manager.patch_size))
    row.add(load_and_warm_s=seconds_since(begin))

    network, windows = predictor.predict_logits_from_preprocessed_data, predictor.predict_sliding_window_return_logits
    inner = predictor._internal_predict_sliding_window_return_logits

    def clocked_network(data):
        row.add(preprocess_s=seconds_since(begin), grid=list(data.shape[1:]))
        logits = network(data)
        row.add(network_s=round(seconds_since(begin) - row.content["preprocess_s"], 2), **peaks(device))
        return logits

    def noticed_windows(data):
        logits = windows(data)
        row.add(logits_on=str(logits.device))
        return logits

    def noticed_inner(data, slicers, do_on_device=True):
        try:
            return inner(data, slicers, do_on_device)
        except Exception as fault:  # stock continues with its results in main memory
            row.add(gave_up_on_device=f"{type(fault).__name__}: {str(fault).splitlines()[0][:200]}", **peaks(device))
            raise

    predictor.predict_logits_from_preprocessed_data = clocked_network
    predictor.predict_sliding_window_return_logits = noticed_windows
    predictor._internal_predict_sliding_window_return_logits = noticed_inner
    row.add(host_before_MiB=start(device))
    begin = time.perf_counter()
    found = predictor.predict_single_npy_array(*SimpleITKIO().read_images([image]))
    total = seconds_since(begin)
    export = round(total - row.content["preprocess_s"] - row.content["network_s"], 2)
    row.add(seconds=total, export_s=export, **peaks(device))
    save(labels, found)


def timed_segment(row: Row, model, image: str, device: str, **options):
    """Return the labels; add seconds, memory and the messages of the engine to ``row``."""
    from ClassScaleSegLib import segment

    said: list[str] = []

    def progress(report) -> None:
        if report.message:
            said.append(report.message)
            row.add(said=said)
        if report.stage == "segment" and "preprocess_s" not in row.content:
            row.add(preprocess_s=seconds_since(begin))

    row.add(host_before_MiB=start(device))
    begin = time.perf_counter()
    found = segment(image, model, device=device, mirroring=False, progress=progress, **options).labels
    total = seconds_since(begin)
    row.add(seconds=total, network_and_decode_s=round(total - row.content["preprocess_s"], 2), **peaks(device))
    return found


def opened_and_warm(model: str, device: str):
    """Open a model folder and segment one window, so that libraries and kernels are loaded."""
    import SimpleITK as sitk
    from ClassScaleSegLib import open_model, segment
    from ClassScaleSegLib.process.allocator import return_memory_at_once

    return_memory_at_once()  # as the command does
    opened = open_model(model)
    image, properties = warm_up_image(opened.patch)
    volume = sitk.GetImageFromArray(image[0])
    volume.SetSpacing(properties["spacing"])
    segment(volume, opened, device=device, mirroring=False)
    return opened


def warm_up_image(shape) -> tuple:
    """Return noise of one patch in nnU-Net's form: array and properties."""
    import numpy as np

    noise = np.random.default_rng(1).normal(0, 300, (1, *shape)).astype(np.float32)
    return noise, {"spacing": [1.0, 1.0, 1.0]}


def save(file: str, labels) -> None:
    import numpy as np

    with open(file + ".part", "wb") as stream:
        np.save(stream, labels)
    os.replace(file + ".part", file)


def start(device: str) -> float:
    """Reset all peaks and return the resident memory in MiB."""
    import torch

    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # some kernels do not allow it; then the peak is that of the whole process
        reset_peak()
    return mebibytes(resident_bytes())


def peaks(device: str) -> dict[str, float]:
    import torch

    found = {"host_peak_MiB": mebibytes(peak_bytes())}
    if device != "cpu":
        found["gpu_allocated_MiB"] = mebibytes(torch.cuda.max_memory_allocated())
        found["gpu_reserved_MiB"] = mebibytes(torch.cuda.max_memory_reserved())
    return found


def seconds_since(begin: float) -> float:
    return round(time.perf_counter() - begin, 2)


if __name__ == "__main__":
    serve()
