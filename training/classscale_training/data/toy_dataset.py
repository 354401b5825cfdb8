"""A toy dataset on disk, in nnU-Net's raw layout, so that nnU-Net's own commands run on it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ClassScaleSegLib.errors import OutputExistsError

from ..files import write_json
from .raw_dataset import dataset_folder, write_dataset_json
from .toy import MODES, ToyOptions, toy_case
from .volumes import write_volume

_GREY = 1000  # grey 1.0 in the files, which hold int16: a third of the size of float32, and noise hides the rounding


def write_toy_dataset(
    options: ToyOptions,
    dataset_id: int,
    cases: int,
    nnunet_raw: Path | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write cases 1 to ``cases`` as ``Toy_0001`` ...; those there are kept, so that a call can be repeated.

    Images are int16 (1000 times the toy grey), label maps uint16; the axes of the arrays are (z, y, x) in the files.

    :param nnunet_raw: the environment variable ``nnUNet_raw`` if not given.
    :returns: the folder ``DatasetXXX_Toy...``.
    :raises OutputExistsError: if the folder holds a toy dataset with other options, or that number is taken.
    """
    import SimpleITK

    folder = dataset_folder(dataset_id, f"Toy{options.mode.capitalize()}{options.classes}", nnunet_raw)
    _claim(folder / "toy.json", options)
    for index in range(1, cases + 1):
        image_file = folder / "imagesTr" / f"Toy_{index:04d}_0000.nii.gz"
        label_file = folder / "labelsTr" / f"Toy_{index:04d}.nii.gz"
        if image_file.exists() and label_file.exists():
            continue
        image, labels = toy_case(index, options, device)
        arrays = {
            image_file: (image * _GREY).round().clamp(0, 32767).cpu().numpy().astype("int16"),
            label_file: labels.cpu().numpy().astype("uint16"),
        }
        for file, array in arrays.items():
            volume = SimpleITK.GetImageFromArray(array)
            volume.SetSpacing([options.spacing] * 3)
            write_volume(volume, file)
        report(f"{label_file.name} ({index} of {cases})")
    written = len(list((folder / "labelsTr").glob("Toy_*.nii.gz")))  # an earlier call may have asked for more
    write_dataset_json(folder, "toy", options.names, written, "SimpleITKIO")
    return folder


def _claim(file: Path, options: ToyOptions) -> None:
    """Note the options a folder was made with;
    :raises OutputExistsError: if they were others."""
    if not file.exists():
        write_json(file, asdict(options))
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    for name, value in asdict(options).items():
        if found.get(name) != value:
            raise OutputExistsError(
                f"{file.parent} was made with {name} {found.get(name)}, not {value}: delete it, or choose another "
                "number."
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", type=int, required=True, metavar="N", help="foreground classes, 1 to 4000")
    parser.add_argument("--dataset-id", type=int, required=True, metavar="D", help="number of the nnU-Net dataset")
    parser.add_argument("--mode", choices=MODES, default="atlas")
    parser.add_argument("--size", type=int, default=128, help="voxels along each side (default: 128)")
    parser.add_argument("--cases", type=int, default=50, metavar="K", help="number of volumes (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other volumes of the same classes")
    parser.add_argument("--device", default="cpu", help="where the volumes are computed (default: cpu)")


def run(arguments: argparse.Namespace) -> int:
    options = ToyOptions(arguments.classes, arguments.mode, arguments.size, arguments.seed)
    folder = write_toy_dataset(options, arguments.dataset_id, arguments.cases, device=arguments.device, report=print)
    print(f"{folder}: {arguments.cases} cases with {arguments.classes} classes.")
    return 0
