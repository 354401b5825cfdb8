"""Describe a model without torch and nnunetv2: for lists and choosers before these are installed, and for opening it.

Only the JSON files, the label table and, in a bundle, the header of the weights are read. Weights and pickles are not
read, so a model with a summary may still fail to open: only :func:`~ClassScaleSegLib.models.model.open_model` checks
the whole model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError, named
from ..labels.label import one_line
from ..labels.table import LabelTable
from .architecture import basis_channels, check_architecture, planned_architecture
from .bundle import (
    DESCRIPTION,
    TEXTS,
    check_size,
    choose_folds,
    is_bundle,
    read_manifest,
    read_member,
    read_table,
    stored_parameters,
)
from .configuration import configuration_entries, whole_plans
from .dataset_json import channel_names, label_rows, modality
from .families import foreign_reader
from .files import Files, open_source, parse_json
from .folder import fold_names, read_plans
from .foreign import CONFIGURATION, FOLD, Foreign
from .networks import RANK_ENTRY, find_network, trained_architecture
from .parameter_count import count_parameters, peak_channels
from .pickle_outline import read_outline
from .preprocessing import Preprocessing, read_preprocessing

NNUNET_STEP = 0.5
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
NIBABEL_READERS = ("NibabelIO", "NibabelIOWithReorient")

# TotalSegmentator reads every image with nibabel and turns it to the closest canonical (RAS+) orientation before
# nnU-Net sees it (totalsegmentator/nnunet.py, nnUNet_predict_image: as_closest_canonical), so its networks need this.
TOTALSEGMENTATOR = r"(Dataset\d+_)?TotalSeg(mentator|MRI)_?.*"
TOTALSEGMENTATOR_NOTICE = "TotalSegmentator is not a medical device and not intended for clinical use."


@dataclass(frozen=True)
class ModelFacts:
    """What users need to know about a model, opened or not.

    :ivar name: name shown to users: that of the dataset, or else of the folder, if the model has no other.
    :ivar configuration_name: name of the configuration, such as ``3d_fullres``.
    :ivar dataset: content of ``dataset.json``.
    :ivar table: name, colour and codes of every label value, including the background.
    :ivar classes: number of rows of the last layer: classes including the background, or regions.
    :ivar channels: number of input channels.
    :ivar features: channels of one fold's basis; in a U-Net, also those of its first stage.
    :ivar residual: the encoder has residual blocks, which hold a second feature map.
    :ivar peak_channels: of a Primus, numbers for each voxel of the patch where its memory peaks; 0 for the others,
        which are run slab by slab.
    :ivar projects: its last layer is a projection, so that memory does not grow with the number of classes.
    :ivar folds: names of the folds, such as ``("0", "1")`` or ``("all",)``.
    :ivar orientation: anatomical orientation, such as ``RAS``, to which images are turned before the network sees them;
        ``None`` for images as stored.
    :ivar reads_with_nibabel: the images of its training were read with nibabel, which understands some headers
        otherwise than ITK.
    :ivar swap_sides: it may also be run on the mirror image of a patient, whose left and right classes are exchanged.
    :ivar preprocessing: how the image is prepared; ``None``: as nnU-Net does it by the plans.
    :ivar packages: requirements that the network has beyond those of nnU-Net's U-Nets, such as ``("monai",)``.
    :ivar modality: ``CT`` or ``MR``; ``None`` if unknown.
    :ivar licence: licence of the weights; ``None`` if unknown.
    :ivar notice: text that users must see; ``None`` if there is none.
    """

    name: str
    configuration_name: str
    dataset: dict
    table: LabelTable
    classes: int
    channels: int
    features: int
    residual: bool
    peak_channels: int
    projects: bool
    folds: tuple[str, ...]
    orientation: str | None
    reads_with_nibabel: bool
    swap_sides: bool
    preprocessing: Preprocessing | None
    packages: tuple[str, ...]
    modality: str | None
    licence: str | None
    notice: str | None

    @property
    def usual_step(self) -> float:
        """Distance between windows, as a fraction of the patch, if the user does not choose one."""
        return NNUNET_STEP if self.preprocessing is None else self.preprocessing.step

    @property
    def even_windows(self) -> bool:
        """Whether windows are placed as nnU-Net does, instead of as MONAI does."""
        return self.preprocessing is None


@dataclass(frozen=True)
class ModelSummary(ModelFacts):
    """A model, as described without its network; further fields as in `ModelFacts`.

    :ivar path: the model folder, zip or bundle.
    :ivar plans: content of ``plans.json``.
    :ivar values: label value of each row of the last layer.
    :ivar regions: the rows are overlapping sigmoid regions.
    :ivar channel_names: such as ``("CT",)``.
    :ivar spacing: mm along z, y, x (y, x for a 2D network).
    :ivar patch: voxels, in the same order.
    :ivar parameters: parameters of one fold's network with its last layer: those stored in a bundle, and otherwise
        counted from the architecture in the plans.
    :ivar card: the model card, Markdown; ``None`` if there is none.
    """

    path: Path
    plans: dict
    values: tuple[int, ...]
    regions: bool
    channel_names: tuple[str, ...]
    spacing: tuple[float, ...]
    patch: tuple[int, ...]
    parameters: int
    card: str | None = None


def summarize(path: str | Path, configuration: str | None = None) -> ModelSummary:
    """Summarize a model folder, an exported zip or a bundle.

    :param path: the model, as :func:`~ClassScaleSegLib.models.model.open_model` accepts it.
    :param configuration: selects one of several models in ``path``: its configuration or its path.
    :raises ModelError: if the model cannot be used; the message names the file and the fault.

    >>> from ClassScaleSegLib.resources import resource
    >>> summary = summarize(resource("Models", "toy-120.zip"))
    >>> summary.name, summary.classes, summary.spacing
    ('Toy atlas, 120 classes', 121, (2.0, 2.0, 2.0))
    """
    with open_source(path, configuration) as files:
        if is_bundle(files):
            described = describe_bundle(files, read_manifest(files), configuration)
            return replace(described, parameters=stored_parameters(files, described.folds[0]))
        if (reader := foreign_reader(files)) is not None:
            return describe_foreign(files, reader.describe(files), configuration)
        plans, dataset = read_plans(files)
        present = {name for names in files.folds().values() for name in names}
        checkpoint = next((name for name in CHECKPOINTS if name in present), CHECKPOINTS[0])
        folds = fold_names(files, None, checkpoint)
        trained, trainer = None, None
        planned = plans.get("configurations")
        if isinstance(planned, dict) and len(planned) > 1 and files.name.rpartition("__")[2] not in planned:
            trained, trainer = _trained(files, f"fold_{folds[0]}/{checkpoint}")
        return describe_folder(files, plans, dataset, folds, configuration, trained, trainer)


def is_trainable(path: str | Path, configuration: str | None = None) -> bool:
    """Return whether a model can be trained further as it is: a U-Net that nnU-Net has planned. No weights are read.

    A Primus needs a trainer of its own.

    :param path: the model, and ``configuration``: as of :func:`summarize`.
    :raises ModelError: if the model cannot be used.
    """
    found = summarize(path, configuration)
    entries = configuration_entries(found.plans, found.configuration_name)
    _name, network = find_network(planned_architecture(entries))
    return found.preprocessing is None and network.unet


def _trained(files: Files, checkpoint: str) -> tuple[str | None, str | None]:
    """Return configuration and trainer that a checkpoint names; ``None`` if it does not, or names them elsewhere."""
    with files.open(checkpoint) as stream:
        try:
            content = read_outline(stream)
        except ModelError:  # of another form: what is wrong with it is said when it is opened
            return None, None
    arguments = content.get("init_args") if isinstance(content, dict) else None
    found = (
        arguments.get("configuration") if isinstance(arguments, dict) else None,
        content.get("trainer_name") if isinstance(content, dict) else None,
    )
    configuration, trainer = (text if isinstance(text, str) and text else None for text in found)
    return configuration, trainer


def describe_bundle(
    files: Files, manifest: dict, configuration: str | None = None, folds: tuple[int | str, ...] | None = None
) -> ModelSummary:
    """Describe a bundle: as its plans and its dataset do, unless its manifest, which is checked, says otherwise.

    :param configuration: the configuration that the caller expects.
    :param folds: the folds to use; all if not given.
    :raises ModelError: if a member is missing or damaged, or the model cannot be used.
    """
    chosen, members = choose_folds(files, manifest, folds), manifest["members"]
    _check_configuration(files, manifest["configuration"], configuration)
    for name, declared in members.items():
        check_size(files, name, declared)
    texts = {name: read_member(files, name, members[name]) for name in TEXTS}
    with named(files.where("plans.json")):
        plans = parse_json(texts["plans.json"])
    with named(files.where("dataset.json")):
        dataset = parse_json(texts["dataset.json"])
    described = _describe(files, plans, dataset, manifest["configuration"], chosen, texts["labels.csv"])
    stated: dict[str, Any] = {key: manifest.get(key) for key in DESCRIPTION}
    stated["swap_sides"] = manifest.get("swap_sides", False)
    return replace(described, name=manifest["name"], card=texts["README.md"].decode(errors="replace"), **stated)


def describe_folder(
    files: Files,
    plans: dict,
    dataset: dict,
    folds: tuple[str, ...],
    configuration: str | None = None,
    trained: str | None = None,
    trainer: str | None = None,
) -> ModelSummary:
    """Describe a model folder of nnU-Net by the content of its ``plans.json`` and ``dataset.json``.

    :param configuration: the configuration that the caller expects.
    :param trained: the configuration in the checkpoints. If not given, the one in the folder's name
        ``Trainer__Plans__configuration``, or else the expected one, or the only one in the plans.
    :param trainer: the trainer in the checkpoints, which decides on the network. If not given, the one in that name.
    :raises ModelError: if the model cannot be used.
    """
    found, planned = trained or files.name.rpartition("__")[2], plans.get("configurations")
    if trained is None and isinstance(planned, dict) and found not in planned:
        if configuration is not None and configuration in planned:
            found = configuration
        elif len(planned) == 1:
            found = next(iter(planned))
    _check_configuration(files, found, configuration)
    return _describe(files, plans, dataset, found, folds, trainer=trainer or files.name.partition("__")[0])


def describe_foreign(files: Files, foreign: Foreign, configuration: str | None = None) -> ModelSummary:
    """Describe a model of another program than nnU-Net.

    :param configuration: the configuration that the caller expects.
    :raises ModelError: if the model cannot be used.
    """
    _check_configuration(files, CONFIGURATION, configuration)
    where = files.where(foreign.file)
    described = _describe(files, foreign.plans, foreign.dataset, CONFIGURATION, (FOLD,), where=where)
    with named(where):
        return replace(described, table=foreign.table)


def _check_configuration(files: Files, found: str, wanted: str | None) -> None:
    """Refuse another configuration than the wanted one, which may also be the name or path of the model's folder."""
    if wanted not in (None, found, files.name, files.root):
        raise ModelError(f"{files.where()} has the configuration {found}, not {wanted}.")


def _describe(
    files: Files,
    plans: dict,
    dataset: dict,
    configuration: str,
    folds: tuple[str, ...],
    labels: bytes | None = None,
    trainer: str | None = None,
    where: str | None = None,
) -> ModelSummary:
    """Return what both JSON files say of a configuration; the names of ``dataset.json`` if there is no label table.

    If the trainer built another network than the plans say, the returned plans say what it built.

    :param where: what describes the model, for messages, if it is not these two files.
    """
    with named(where or files.where("dataset.json")):
        channels = channel_names(dataset)
        values, names, regions = label_rows(dataset)
    with named(where or files.where("plans.json")):
        plans = whole_plans(plans)
        entries = configuration_entries(plans, configuration)
        planned = planned_architecture(entries)
        entries["architecture"] = trained_architecture(trainer, planned, len(entries["patch_size"]))
        if entries["architecture"] is not planned:
            own = {**plans["configurations"][configuration], "architecture": entries["architecture"]}
            if RANK_ENTRY in entries:  # of plans for ClassScaleTrainer; trainers of nnU-Net make no basis
                own[RANK_ENTRY] = entries[RANK_ENTRY] = None
            plans = {**plans, "configurations": {**plans["configurations"], configuration: own}}
        check_architecture(entries)
        architecture, network = find_network(entries["architecture"])
        features = basis_channels(entries, len(values))
        arguments = entries["architecture"]["arch_kwargs"]
        parameters = count_parameters(entries, len(channels), len(values))
        preprocessing = read_preprocessing(entries, len(channels))
    with named(where or files.where("dataset.json" if labels is None else "labels.csv")):
        table = LabelTable.from_names(names) if labels is None else read_table(labels, values)
    backward = plans["transpose_backward"] if len(entries["patch_size"]) == 3 else (0, 1)
    name = one_line(str(plans.get("dataset_name") or files.name))[:200]
    canonical = preprocessing is None and re.fullmatch(TOTALSEGMENTATOR, name) is not None
    reader = str(plans.get("image_reader_writer"))
    orientation = "RAS" if canonical or reader.endswith("WithReorient") else None
    return ModelSummary(
        path=files.path,
        name=name,
        configuration_name=configuration,
        plans=plans,
        dataset=dataset,
        table=table,
        classes=len(values),
        values=values,
        regions=regions,
        channels=len(channels),
        channel_names=channels,
        modality=modality(channels),
        orientation=orientation if preprocessing is None else preprocessing.orientation,
        preprocessing=preprocessing,
        packages=network.packages,
        reads_with_nibabel=canonical or reader in NIBABEL_READERS,
        swap_sides=False,
        licence=None,
        notice=TOTALSEGMENTATOR_NOTICE if canonical else None,
        spacing=tuple(float(entries["spacing"][axis]) for axis in backward),
        patch=tuple(int(entries["patch_size"][axis]) for axis in backward),
        features=features,
        residual=network.residual,
        peak_channels=peak_channels(architecture, arguments, features),
        projects=network.projects or entries.get(RANK_ENTRY) is not None,
        folds=folds,
        parameters=parameters,
    )
