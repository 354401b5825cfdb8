"""Read bundles, the model files of ClassScaleSeg: a zip without pickles, made by :mod:`.packing`.

| member | content |
|---|---|
| ``manifest.json`` | ``format``, ``version``, facts about the model, size and SHA-256 of every other member |
| ``plans.json``, ``dataset.json`` | as nnU-Net wrote them; if the trainer built another network, plans name that one |
| ``labels.csv`` | the label table, a colour table of 3D Slicer with terminology codes |
| ``fold_K.safetensors`` | tensors that inference uses, by nnU-Net's names: float32, float16, or :mod:`.eight_bits` |
| ``README.md`` | the model card |

The bytes depend on the content alone (stored uncompressed, in a fixed order, without dates), so packing twice gives the
same SHA-256. Members that are not in the manifest are never read.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from typing import TYPE_CHECKING, Any

from ..errors import LabelTableError, ModelError, named
from ..labels.csv import parse_labels
from ..labels.table import LabelTable
from .eight_bits import SCALE, in_full
from .files import MAX_JSON, Files, parse_json, read_json
from .json_checks import is_sha256, is_text
from .preprocessing import is_orientation

if TYPE_CHECKING:
    import torch

    Weights = tuple[tuple[str, dict[str, torch.Tensor]], ...]

FORMAT, VERSION = "classscaleseg-bundle", 2  # a bundle has the lowest version that reads it: 2 with weights in 8 bits
TEXTS = ("plans.json", "dataset.json", "labels.csv", "README.md")
FOLD = r"fold_(\d{1,4}|all)\.safetensors"
STATISTICS = ("running_mean", "running_var")  # of batch normalization: stored with the weights, but not parameters
MAX_HEADER = 4 << 20  # bytes of a safetensors file that name its tensors; a network has some hundreds
DESCRIPTION = ("orientation", "modality", "licence", "notice")


def is_bundle(files: Files) -> bool:
    """Tell whether the files of a model are a bundle, zipped or not."""
    return "manifest.json" in files


def choose_folds(files: Files, manifest: dict, folds: tuple[int | str, ...] | None) -> tuple[str, ...]:
    """Return the names of the requested folds, or of all.

    :raises ModelError: if the bundle does not have them.
    """
    found = manifest["folds"]
    chosen = tuple(found if folds is None else dict.fromkeys(map(str, folds)))
    if not chosen or not set(chosen) <= set(found):
        raise ModelError(
            f"{files.where()} has the folds {', '.join(found)}; {', '.join(chosen) or 'no fold'} was requested."
        )
    return chosen


def read_manifest(files: Files) -> dict:
    """Read and check the manifest, without comparing it with the other members.

    :raises ModelError: if it is damaged, of another format, or of a newer version.
    """
    manifest = read_json(files, "manifest.json")
    with named(files.where("manifest.json")):
        check_manifest(manifest)
    return manifest


def check_manifest(manifest: dict) -> None:
    """Check format, version, and types and forms of all entries of a manifest.

    :raises ModelError: if an entry is missing or not valid; the message names the first one.
    """

    def member(name: str, declared: Any) -> bool:
        described = isinstance(declared, dict) and type(declared.get("size")) is int
        known = name in TEXTS or re.fullmatch(FOLD, name) is not None
        return known and described and is_sha256(declared.get("sha256"))

    if manifest.get("format") != FORMAT:
        raise ModelError(f"It does not belong to a ClassScaleSeg bundle (its 'format' is not {FORMAT}).")
    version = manifest.get("version")
    if type(version) is not int or version < 1:
        raise ModelError("It has no version: the bundle is damaged; get it again.")
    if version > VERSION:
        raise ModelError(
            f"It was made by a newer ClassScaleSeg (bundle version {version}, this one reads {VERSION}): update "
            "ClassScaleSeg."
        )
    members = manifest["members"] if isinstance(manifest.get("members"), dict) else {}
    folds = manifest["folds"] if isinstance(manifest.get("folds"), list) else []
    fine = {
        "members": bool(members) and all(member(*item) for item in members.items()),
        "folds": bool(folds) and all(isinstance(fold, str) and f"fold_{fold}.safetensors" in members for fold in folds),
        "mirror_axes": isinstance(manifest.get("mirror_axes"), list),
        "swap_sides": isinstance(manifest.get("swap_sides", False), bool),
        "orientation": manifest.get("orientation") is None or is_orientation(manifest["orientation"]),
        **{key: is_text(manifest.get(key)) for key in ("name", "configuration")},
        **{key: manifest.get(key) is None or is_text(manifest[key]) for key in ("modality", "licence", "notice")},
    }
    for key, value in fine.items():
        if not value:
            raise ModelError(f"the entry {key!r} is missing or not valid.")
    for name in TEXTS:
        if name not in members:
            raise ModelError(f"It does not list {name}: the bundle is incomplete; get it again.")


def read_member(files: Files, name: str, declared: dict) -> bytes:
    """Read a member and compare it with what the checked manifest declares, ``size`` in bytes and ``sha256``.

    :raises ModelError: if it is missing or differs; the message names the member.
    """
    check_size(files, name, declared)
    with files.open(name) as stream:
        content = stream.read()
    if hashlib.sha256(content).hexdigest() != declared["sha256"]:
        raise ModelError(
            f"{files.where(name)} is damaged: its SHA-256 differs from the manifest. Get the bundle again."
        )
    return content


def check_size(files: Files, name: str, declared: dict) -> None:
    """Compare the size of a member with the declared one, without reading the member.

    :raises ModelError: if it is missing, has another size, or is a text of more than ``MAX_JSON`` bytes.
    """
    if name not in files:
        raise ModelError(f"{files.where(name)} is missing.")
    size = files.size(name)
    if size != declared["size"]:
        raise ModelError(f"{files.where(name)} has {size} bytes, but the manifest declares {declared['size']}.")
    if name in TEXTS and size > MAX_JSON:
        raise ModelError(f"{files.where(name)} has {size} bytes; at most {MAX_JSON} are read.")


def read_weights(files: Files, manifest: dict, folds: tuple[str, ...]) -> Weights:
    """Read the weights of a bundle, and compare those of every fold with the manifest.

    :returns: for each of the given folds the file, for messages, and its tensors by nnU-Net's names.
    :raises ModelError: if a file is missing, damaged, or not a safetensors file.
    """
    tensors = {}
    for name, declared in manifest["members"].items():
        fold = re.fullmatch(FOLD, name)
        if fold is not None:
            content = read_member(files, name, declared)
            if fold[1] in folds:
                with named(files.where(name)):
                    tensors[fold[1]] = (files.where(name), read_tensors(content))
    return tuple(tensors[fold] for fold in folds)


def stored_parameters(files: Files, fold: str) -> int:
    """Count the parameters of a fold from the header of its weights, without the statistics of batch normalization.

    :raises ModelError: if they are not in a safetensors file.
    """
    described = _stored_tensors(files, fold)
    return sum(math.prod(shape) for name, (_, shape) in described.items() if not name.endswith((*STATISTICS, SCALE)))


def stored_bits(files: Files, fold: str) -> int:
    """Return the bits of a stored weight, 32, 16 or 8, from the header of the weights of a fold.

    :raises ModelError: if they are not in a safetensors file.
    """
    kinds = {kind for kind, shape in _stored_tensors(files, fold).values() if len(shape) > 1}
    return 8 if "I8" in kinds else 16 if kinds == {"F16"} else 32


def _stored_tensors(files: Files, fold: str) -> dict[str, tuple[str, list[int]]]:
    """Return type and shape of each tensor of a fold."""
    name = f"fold_{fold}.safetensors"
    with named(files.where(name)):
        length = files.start(name, 8)
        size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        if not 0 < size <= MAX_JSON:
            raise ModelError(f"It is not a safetensors file (its header would have {size} bytes).")
        header = parse_json(files.start(name, 8 + size)[8:])
        described = {}
        for tensor, entry in header.items():
            if tensor == "__metadata__":
                continue
            shape = entry.get("shape") if isinstance(entry, dict) else None
            if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
                raise ModelError(f"It is not a safetensors file ({tensor[:80]!r} has no shape).")
            described[tensor] = (str(entry.get("dtype")), shape)
        return described


def read_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors in the bytes of a safetensors file, by name, those in 8 bits as float32.

    :raises ModelError: if the bytes are not a safetensors file, or the factors of a tensor in 8 bits are missing.
    """
    if int.from_bytes(content[:8], "little") > MAX_HEADER:
        raise ModelError(f"It is not a safetensors file of a network: its header has more than {MAX_HEADER} bytes.")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        stored = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"It is not a safetensors file ({error}).") from error
    return in_full(stored)


def read_table(content: bytes, values: tuple[int, ...]) -> LabelTable:
    """Return the label table in the bytes of ``labels.csv``, as `complete_table` does.

    :raises ModelError: if the bytes are not a label table, or its values are not those of the model.
    """
    try:
        table = LabelTable(parse_labels(content, "labels.csv"))
    except LabelTableError as error:
        raise ModelError(f"It is not a label table ({error}).") from error
    try:
        return complete_table(table, values)
    except LabelTableError as error:
        raise ModelError(str(error)) from error


def complete_table(table: LabelTable, values: tuple[int, ...]) -> LabelTable:
    """Check that a table has exactly the values that a model gives; return it with a background.

    :raises LabelTableError: if the values differ; the message names the first such value.
    """
    given, wanted = {label.value for label in table.foreground}, set(values) - {0}
    if given != wanted:
        value = min(given ^ wanted)
        fault = f"no label {value}" if value in wanted else f"label {value}, which the model does not give"
        raise LabelTableError(f"It has {fault}; the model's labels are {min(wanted)} to {max(wanted)}.")
    return table if 0 in table else LabelTable((*LabelTable.from_names({0: "background"}), *table))
