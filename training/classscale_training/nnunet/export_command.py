"""The command ``export`` of ``classscaleseg-train``, with the folders of ``nnUNetv2_export_model_to_zip``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError

from .environment import PLANS, TRAINER, dataset_folder, require_folders

_OF_BUNDLES = ("labels", "card", "name", "licence")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`run`."""
    add = parser.add_argument
    add("-d", metavar="DATASET", help="name or ID of the dataset; or give -m")
    add("-m", type=Path, metavar="FOLDER", help="folder of the training, Trainer__Plans__configuration; or give -d")
    add("-o", type=Path, required=True, metavar="PATH", help="bundle to write (.zip), or with --stock the folder")
    add("-c", default="3d_fullres", metavar="CONFIGURATION", help="configuration, with -d (default: 3d_fullres)")
    add("-tr", default=TRAINER, metavar="TRAINER", help=f"trainer, with -d (default: {TRAINER})")
    add("-p", default=PLANS, metavar="PLANS", help=f"plans, with -d (default: {PLANS})")
    add("-f", nargs="+", metavar="FOLD", help="folds (default: all that have the checkpoint)")
    add("-chk", choices=("final", "best"), default="final", help="checkpoint (default: final)")
    add("--stock", action="store_true", help="write a model folder for nnUNetv2_predict_from_modelfolder")
    add("--labels", type=Path, metavar="FILE", help="colour-table CSV with names, colours and codes (bundle only)")
    add("--card", type=Path, metavar="FILE", help="Markdown file that describes the model (bundle only)")
    add("--name", help="name of the model (bundle only)")
    add("--licence", help="licence of the weights (bundle only)")
    add("--overwrite", action="store_true", help="replace an existing bundle or folder")


def run(options: argparse.Namespace) -> int:
    """Write a finished training as a bundle, or with ``--stock`` as a model folder, and print its path.

    :param options: parsed from the arguments of :func:`add_arguments`.
    :returns: 0.
    :raises ClassScaleError: if the training is named neither or both ways, or is not found.
    :raises ModelError: if a file of the training is missing or not from ClassScaleTrainer.
    :raises OutputError: if the output cannot be written or exists already.
    """
    from .export import export_bundle, export_stock

    if (options.m is None) == (options.d is None):
        raise ClassScaleError(
            "Name the training either by its dataset (-d, with -c, -tr and -p) or by its folder (-m)."
        )
    folder = options.m
    if folder is None:
        require_folders("nnUNet_results")
        folder = dataset_folder("nnUNet_results", options.d) / f"{options.tr}__{options.p}__{options.c}"
    given = [name for name in _OF_BUNDLES if getattr(options, name) is not None]
    if options.stock and given:
        raise ClassScaleError(
            f"--{given[0]} is for bundles: a model folder of nnU-Net has no place for it. Leave it out."
        )
    if options.stock:
        written = export_stock(folder, options.o, options.f, options.chk, options.overwrite)
    else:
        more = {name: getattr(options, name) for name in (*_OF_BUNDLES, "overwrite")}
        written = export_bundle(folder, options.o, options.f, options.chk, **more)
    print(written)
    return 0
