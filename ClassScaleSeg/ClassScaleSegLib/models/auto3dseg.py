"""Read the models of MONAI's Auto3DSeg, as SlicerMONAIAuto3DSeg distributes them: ``model.pt`` and ``labels.csv``.

``model.pt`` has the network's weights, and the configuration of the training: which network, and how an image is
prepared for it. That configuration is read as data. MONAI would build objects from the class names in it; here, names
are compared with a list, and become plans like nnU-Net's with an entry for the preprocessing.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from ..errors import LabelTableError, ModelError, named
from ..labels.csv import CODE_COLUMNS, parse_labels
from ..labels.label import unique_names
from ..labels.table import LabelTable
from .files import MAX_JSON, Files
from .foreign import CONFIGURATION, Foreign
from .json_checks import numbers, short
from .networks import MONAI, NETWORKS
from .pickle_outline import Outline, read_outline
from .plain_data import NumpyArray
from .preprocessing import ENTRY

if TYPE_CHECKING:
    import torch

MODEL, LABELS = "model.pt", "labels.csv"
MAX_CLASSES, MAX_CONFIG = 65536, 1 << 20
_ENTRIES = (
    *("network", "sigmoid", "normalize_mode", "intensity_bounds", "extra_modalities", "modality"),
    *("orientation_ras", "crop_foreground", "roi_size", "resample_resolution"),
)
_NETWORK = "SegResNetDS"
_KINDS = {  # the words of the configuration, and ours
    **{"none": "none", "range": "range", "ct": "range", "meanstd": "meanstd", "mri": "meanstd"},
    **{"meanstdtanh": "meanstdtanh", "pet": "pet"},
}
_CODES = {  # the attributes of DICOM that head the columns of ``labels.csv``
    "category": "SegmentedPropertyCategoryCodeSequence",
    "type": "SegmentedPropertyTypeCodeSequence",
    "type_modifier": "SegmentedPropertyTypeModifierCodeSequence",
    "region": "AnatomicRegionSequence",
    "region_modifier": "AnatomicRegionModifierSequence",
}
_BRATS = (2, 1, 3)  # label values of the regions whole tumour, tumour core, enhancing tumour


def members(files: Files) -> list[str]:
    """Return the names of the files of a model; see :class:`.foreign.Reader`."""
    return [MODEL, LABELS]


def describe(files: Files) -> Foreign:
    """Describe a model; see :class:`.foreign.Reader`."""
    if LABELS not in files:
        raise ModelError(
            f"{files.where(LABELS)} is missing: a model of Auto3DSeg needs the names of its classes beside {MODEL}."
        )
    with files.open(MODEL) as stream, named(files.where(MODEL)):
        config = _config(read_outline(stream))
        network, channels, rows = _network(config)
        values, regions = _values(config, rows)
        preprocessing = _preprocessing(config, channels)
        patch, spacing = _list(config, "roi_size", 3), _list(config, "resample_resolution", 3)
    with files.open(LABELS) as stream, named(files.where(LABELS)):
        if files.size(LABELS) > MAX_JSON:
            raise ModelError(f"It has {files.size(LABELS)} bytes; at most {MAX_JSON} are read.")
        table = _table(stream.read(), values)
    names = unique_names(table.foreground)
    plans = {
        "dataset_name": files.name,
        "plans_name": "Auto3DSeg",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [2, 1, 0],  # MONAI's arrays begin with x
        "transpose_backward": [2, 1, 0],
        "configurations": {
            CONFIGURATION: {"patch_size": patch, "spacing": spacing, "architecture": network, ENTRY: preprocessing}
        },
    }
    channel_names = {str(index): name for index, name in enumerate(_channels(config, channels))}
    labels: dict[str, Any] = {"background": 0}
    if regions:  # two entries, even if equal, say that the rows are regions
        labels.update({names[value]: [value, value] for value in values})
        dataset = {"channel_names": channel_names, "labels": labels, "regions_class_order": list(values)}
    else:
        labels.update({names[value]: value for value in values if value})
        dataset = {"channel_names": channel_names, "labels": labels}
    return Foreign(plans, dataset, table, MODEL)


def read_weights(files: Files) -> tuple[str, dict[str, torch.Tensor]]:
    """Read the weights; see :class:`.foreign.Reader`."""
    from .checkpoint import read_content, tensors

    where = files.where(MODEL)
    with files.open(MODEL) as stream, named(where):
        return where, tensors(read_content(stream, ("config", "state_dict")), "state_dict", "Auto3DSeg")


def _config(content: Any) -> dict:
    """Return the configuration in a checkpoint, of plain values alone."""
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not isinstance(content.get("state_dict"), dict):
        raise ModelError("It has no 'config' and 'state_dict': it is not a model of Auto3DSeg.")
    room = [MAX_CONFIG]
    return {key: _plain(config[key], room) for key in _ENTRIES if key in config}


def _plain(value: Any, room: list[int], depth: int = 8) -> Any:
    """Return a value with lists for tuples and arrays; ``None`` for what is no plain value, or nested too deep.

    :param room: how much the values may still have, of entries and letters; values may share others many times.
    """
    room[0] -= len(value) if isinstance(value, str | bytes | list | tuple | dict) else 1
    if room[0] < 0:
        raise ModelError(f"Its 'config' has more than {MAX_CONFIG} entries and letters: it is damaged.")
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if depth and isinstance(value, NumpyArray):
        return value.values()
    if depth and isinstance(value, list | tuple) and not isinstance(value, Outline):
        return [_plain(entry, room, depth - 1) for entry in value]
    if depth and isinstance(value, dict):
        return {key: _plain(entry, room, depth - 1) for key, entry in value.items()}
    return None


def _network(config: dict) -> tuple[dict, int, int]:
    """Return the architecture, the number of input channels, and the number of rows of the last layer."""
    given = config.get("network")
    if not isinstance(given, dict):
        raise ModelError(f"Its 'network' is {short(given)}; an object that describes a network was expected.")
    path = given.get("_target_")
    if path not in (_NETWORK, f"{MONAI}.networks.nets.{_NETWORK}", f"{MONAI}.{NETWORKS[_NETWORK].module}.{_NETWORK}"):
        raise ModelError(
            f"Its network is {short(path)}; of MONAI's networks only {_NETWORK} is supported. No other name was looked "
            "up."
        )
    counts = []
    for key, most in (("in_channels", 1024), ("out_channels", MAX_CLASSES)):
        count = given.get(key)
        if type(count) is not int or not 1 <= count <= most:
            raise ModelError(f"{key} of its network is {short(count)}; a whole number from 1 to {most} was expected.")
        counts.append(count)
    arguments = {key: value for key, value in given.items() if key not in ("_target_", "in_channels", "out_channels")}
    if unknown := [key for key in arguments if key.startswith("_")]:
        raise ModelError(f"Its network may not be given {short(unknown[0])}.")
    architecture = {
        "network_class_name": f"{MONAI}.{NETWORKS[_NETWORK].module}.{_NETWORK}",
        "arch_kwargs": arguments,
        "_kw_requires_import": [],
    }
    return architecture, counts[0], counts[1]


def _values(config: dict, rows: int) -> tuple[tuple[int, ...], bool]:
    """Return the label value of each row, and whether the rows are overlapping regions."""
    if not config.get("sigmoid", False):
        if rows < 2:
            raise ModelError("Its network has one output and no sigmoid, so it gives the background alone.")
        return tuple(range(rows)), False
    return (_BRATS if rows == len(_BRATS) else tuple(range(1, rows + 1))), True


def _preprocessing(config: dict, channels: int) -> dict:
    """Return the entry of the plans that says how an image is prepared."""
    regions = bool(config.get("sigmoid", False))
    extra = config.get("extra_modalities")
    schemes: list[Any] = [config.get("normalize_mode")]
    if channels > 1:
        more = list(extra.values()) if isinstance(extra, dict) and not regions else schemes * (channels - 1)
        schemes = [*schemes, *more]
    if len(schemes) != channels:
        raise ModelError(f"Its network takes {channels} channels, but it says how to normalise {len(schemes)}.")
    unknown = next((scheme for scheme in schemes if not isinstance(scheme, str) or scheme not in _KINDS), None)
    if unknown is not None or None in schemes:
        raise ModelError(f"normalize_mode {short(unknown)} is not one of {', '.join(_KINDS)}.")
    bounds = config.get("intensity_bounds")
    return {
        "kind": "auto3dseg",
        "orientation": "RAS" if config.get("orientation_ras", False) else None,
        "normalization": [_KINDS[scheme] for scheme in schemes],
        "bounds": bounds if bounds is not None or "range" in [_KINDS[s] for s in schemes] else [0.0, 1.0],
        "crop_foreground": bool(config.get("crop_foreground", True)),
        "normalize_last": regions,
    }


def _channels(config: dict, channels: int) -> list[str]:
    """Return a name for each channel: the modality of the first one, and what the configuration calls the others."""
    known = {"ct": "CT", "mri": "MR", "mr": "MR"}
    modality = config.get("modality")
    first = known.get(modality.lower(), modality) if isinstance(modality, str) and modality else "image"
    extra = config.get("extra_modalities")
    more = list(extra) if isinstance(extra, dict) and len(extra) == channels - 1 else []
    if channels > 1 and not more:
        return [f"{first} {index}" for index in range(1, channels + 1)]
    return [first, *more]


def _list(config: dict, key: str, count: int) -> list:
    value = config.get(key)
    if not numbers(value, count):
        raise ModelError(f"{key} is {short(value)}; {count} numbers were expected.")
    return value


def _table(content: bytes, values: tuple[int, ...]) -> LabelTable:
    """Return the label table in ``labels.csv`` with a label for each value of the network.

    :raises ModelError: if it is not one, or has a value that the network does not give.
    """
    try:
        table = LabelTable(parse_labels(_renamed(content).encode(), LABELS))
    except LabelTableError as error:
        raise ModelError(f"It is not a label table ({str(error).rstrip('.')}).") from error
    foreign = {label.value for label in table.foreground} - set(values)
    if foreign:
        given = f"{min(values)} to {max(values)}"
        raise ModelError(f"It has the label {min(foreign)}, which the network does not give; it gives {given}.")
    nameless = LabelTable.from_names({0: "background", **{value: "" for value in values if value}})
    known = {label.value: label for label in table}
    return LabelTable(tuple(known.get(label.value, label) for label in nameless))


def _renamed(content: bytes) -> str:
    """Return the table as a colour table of 3D Slicer; lines may end before their last columns."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"It is not a CSV file in UTF-8 ({error}).") from error
    header = [column.strip() for column in rows[0]] if rows else []
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["LabelValue", "Name", *(column for three in CODE_COLUMNS.values() for column in three)])
    if "LabelValue" not in header or "Name" not in header:
        raise ModelError("Its first line has no columns LabelValue and Name.")
    for row in rows[1:]:
        cells = dict(zip(header, row, strict=False))
        if not any(cell.strip() for cell in row):
            continue
        line = [cells.get("LabelValue", ""), cells.get("Name", "")]
        for field in CODE_COLUMNS:
            parts = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
            code = [cells.get(f"{_CODES[field]}.{part}", "").strip() for part in parts]
            line += code if code[0] and code[1] else ["", "", ""]
        writer.writerow(line)
    return text.getvalue()
