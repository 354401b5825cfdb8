"""Write a toy dataset to disk in nnU-Net's raw layout, so that nnU-Net's own commands can use it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError, OutputExistsError

from ..files import read_json, write_json
from .raw_dataset import being_written, dataset_folder, write_dataset_json
from .toy.options import MODES, ToyOptions
from .volumes import write_volume

_MARK = "toy.json"  # with the options
_GREY = 1000  # int16 value of grey 1.0: int16 files have a third of the size of float32, and noise hides the rounding


def write_toy_dataset(
    options: ToyOptions,
    dataset_id: int,
    cases: int,
    nnunet_raw: Path | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the cases 1 to ``cases`` as ``Toy_0001``, ``Toy_0002`` and so on.

    Cases that exist are kept, so an interrupted call can be repeated. Images are int16 (1000 times the toy grey), label
    maps uint16. The axes of the arrays are (z, y, x) in the files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as raw:
    ...     folder = write_toy_dataset(ToyOptions(classes=5, size=8), dataset_id=7, cases=2, nnunet_raw=Path(raw))
    ...     folder.name, sorted(file.name for file in (folder / "labelsTr").iterdir())
    ('Dataset007_ToyAtlas5', ['Toy_0001.nii.gz', 'Toy_0002.nii.gz'])

    :param dataset_id: number of the nnU-Net dataset, 1..999.
    :param nnunet_raw: folder of all raw datasets; if ``None``, the environment variable ``nnUNet_raw`` names it.
    :param device: where the volumes are computed, as :func:`.usable_device` takes it.
    :param report: called with a line after each case.
    :returns: the folder ``DatasetXXX_Toy...``.
    :raises OutputExistsError: if the folder holds a toy dataset with other options, or another dataset has the number.
    :raises OutputError: if a file cannot be written.
    :raises ClassScaleError: if there is no such device, or ``cases`` is below 1.
    """
    import SimpleITK

    from ..processes.device import usable_device  # imports torch
    from .toy.cases import toy_case

    if cases < 1:
        raise ClassScaleError(f"--cases {cases} must be 1 or more.")
    device = str(usable_device(device))
    folder = dataset_folder(dataset_id, options.dataset_name, nnunet_raw)
    with being_written(folder, _MARK):
        _claim(folder / _MARK, options)
        for index in range(1, cases + 1):
            image_file = folder / "imagesTr" / f"Toy_{index:04d}_0000.nii.gz"
            label_file = folder / "labelsTr" / f"Toy_{index:04d}.nii.gz"
            if image_file.exists() and label_file.exists():
                continue
            image, labels = toy_case(index, options, device)
            grey = (image * _GREY).round().clamp(0, 32767)
            for file, array, kind in ((image_file, grey, "int16"), (label_file, labels, "uint16")):
                volume = SimpleITK.GetImageFromArray(array.cpu().numpy().astype(kind))
                volume.SetSpacing([options.spacing] * 3)
                write_volume(volume, file)
            report(f"{label_file.name} ({index} of {cases})")
        written = len(list((folder / "labelsTr").glob("Toy_*.nii.gz")))  # an earlier call may have written more cases
        write_dataset_json(folder, "toy", options.names, written, "SimpleITKIO")
    return folder


def _claim(file: Path, options: ToyOptions) -> None:
    """Write the options of a new folder to ``file``; raise an error if the folder was made with other options."""
    if not file.exists():
        write_json(file, asdict(options))
        return
    found = read_json(file, {}, f"Delete {file.parent}, or choose another number.", OutputExistsError)
    for name, value in asdict(options).items():
        if found.get(name) != value:
            raise OutputExistsError(
                f"{file.parent} was made with {name} {found.get(name)}, not {value}: delete it, or choose another "
                "dataset number."
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``classscaleseg-train toy``."""
    parser.add_argument(
        "--classes", type=int, required=True, metavar="N", help="number of foreground classes, 1 to 4000"
    )
    parser.add_argument("--dataset-id", type=int, required=True, metavar="D", help="number of the nnU-Net dataset")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=ToyOptions.mode,
        help="atlas (the cells of one anatomy) or objects (scattered objects) (default: %(default)s)",
    )
    size = "voxels along each side (default: %(default)s)"
    parser.add_argument("--size", type=int, default=ToyOptions.size, help=size)
    parser.add_argument("--cases", type=int, default=50, metavar="K", help="number of volumes (default: 50)")
    seed = "another seed gives other volumes of the same classes (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=ToyOptions.seed, help=seed)
    parser.add_argument("--device", default="cpu", help="where the volumes are computed: cpu (default), cuda, auto")


def run(arguments: argparse.Namespace) -> int:
    """Run ``classscaleseg-train toy`` and return its exit code.

    :raises ClassScaleError: as :class:`ToyOptions` and :func:`write_toy_dataset`.
    """
    options = ToyOptions(arguments.classes, arguments.mode, arguments.size, arguments.seed)
    folder = write_toy_dataset(options, arguments.dataset_id, arguments.cases, device=arguments.device, report=print)
    print(f"{folder}: {arguments.cases} cases with {arguments.classes} classes.")
    return 0
