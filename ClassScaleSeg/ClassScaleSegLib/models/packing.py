"""Make a bundle, the model file of ClassScaleSeg (:mod:`.bundle`), from an nnU-Net v2 model."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OutputError, named, reason
from ..files import refuse_existing, refuse_replacing, replacing
from ..labels.table import LabelTable
from .bundle import DESCRIPTION, FORMAT, VERSION, check_manifest, complete_table, is_bundle, stored_bits
from .eight_bits import in_eight_bits
from .files import open_source
from .model import ModelParts, read_parts

if TYPE_CHECKING:
    import torch

BITS = (32, 16, 8)  # bits of a stored weight


def pack(
    source: str | Path,
    output: str | Path,
    *,
    folds: tuple[int | str, ...] | None = None,
    checkpoint: str = "final",
    configuration: str | None = None,
    labels: LabelTable | str | Path | None = None,
    card: str | Path | None = None,
    name: str | None = None,
    licence: str | None = None,
    modality: str | None = None,
    orientation: str | None = None,
    notice: str | None = None,
    bits: int | None = None,
    swap_sides: bool = False,
    overwrite: bool = False,
) -> Path:
    """Make a bundle from an nnU-Net v2 model folder or exported zip, or another bundle from a bundle.

    :param source: the model folder, or a folder or zip that contains it; or a bundle, of which everything is kept that
        the other parameters do not change.
    :param output: the bundle, ``.zip``.
    :param folds: such as ``(0, 1)`` or ``("all",)``. If not given, all numbered folds, or else ``fold_all``.
    :param checkpoint: ``final`` or ``best``.
    :param configuration: selects one of several models in ``source``: its configuration or its path.
    :param labels: a label table with names, colours and codes of every class, or its file; made from
        ``dataset.json`` if not given.
    :param card: a Markdown file that describes the model; generated if not given.
    :param name: name shown to users; the name of the dataset if not given.
    :param licence: licence of the weights, shown to users.
    :param modality: ``CT`` or ``MR``, as in DICOM; found from the names of the channels if not given.
    :param orientation: anatomical orientation to which images are turned first, such as ``RAS``; found from the name of
        the dataset and the image reader of the plans if not given.
    :param notice: text that users must see.
    :param bits: 32 stores the weights as float32. 16 stores them as float16, for half the size: weights above 6e-5 keep
        three digits, and smaller ones have an error below 3e-8. 8 stores them in 8 bits, for a quarter of the size
        (:mod:`.eight_bits`); measure what that costs. The network computes as with float32 in every case. If not given,
        32, or the bits of the bundle.
    :param swap_sides: if mirroring is on, also run the network on the mirror image of the patient, with left and right
        classes exchanged. This takes twice as long, and may help where left and right look alike, as in the brain. The
        names or codes of the label table say which classes are left and right.
    :param overwrite: replace an existing file.
    :returns: ``output``.
    :raises ModelError: if the model cannot be used, its weights do not fit float16, or its sides cannot be exchanged.
    :raises ValueError: if ``bits`` is none of these.
    :raises LabelTableError: if ``labels`` cannot be used.
    :raises OutputExistsError: if ``output`` exists and ``overwrite`` is false.
    :raises OutputError: if ``output`` cannot be written.

    Make a model folder of nnU-Net from an embedded model, then a bundle with another licence:

    >>> import tempfile
    >>> import torch
    >>> from safetensors.torch import load
    >>> from ClassScaleSegLib.models.model import open_model
    >>> from ClassScaleSegLib.resources import resource
    >>> with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(resource("Models", "toy-120.zip")) as toy:
    ...     model = Path(folder, "nnUNetTrainer__nnUNetPlans__3d_fullres")
    ...     files = [toy.extract(file, model) for file in ("plans.json", "dataset.json")]
    ...     (model / "fold_0").mkdir()
    ...     weights = load(toy.read("fold_0.safetensors"))
    ...     torch.save({"network_weights": weights}, model / "fold_0" / "checkpoint_final.pth")
    ...     bundle = pack(model, Path(folder, "toy.zip"), licence="CC0-1.0")
    ...     open_model(bundle).licence
    'CC0-1.0'
    """
    if bits not in (None, *BITS):
        raise ValueError(f"bits is one of {BITS}, not {bits!r}")
    output = Path(output)
    if output.suffix.lower() != ".zip":
        raise OutputError(f"{output} must end in .zip: a bundle is a zip.")
    refuse_existing(output, overwrite)
    refuse_replacing(output, [Path(source)])
    with open_source(source, configuration) as files:
        parts = read_parts(files, folds, checkpoint, configuration)
        if bits is None:
            bits = stored_bits(files, parts.summary.folds[0]) if is_bundle(files) else 32
    summary = parts.summary
    if labels is not None:
        table = labels if isinstance(labels, LabelTable) else LabelTable.from_file(labels)
        with named("The label table" if isinstance(labels, LabelTable) else str(labels)):
            summary = replace(summary, table=complete_table(table, summary.values))
    given = dict(name=name, licence=licence, modality=modality, orientation=orientation, notice=notice)
    stated: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    summary = replace(summary, swap_sides=swap_sides or summary.swap_sides, **stated)
    parts = replace(parts, summary=summary)
    if summary.swap_sides:
        with named(str(source)):
            parts.side_swap()
    text = (summary.card or model_card(parts)) if card is None else _read_card(Path(card))
    members = _members(parts, text, bits)
    with replacing(output, overwrite) as temporary:
        write_members(temporary, members)
    return output


def model_card(parts: ModelParts) -> str:
    """Return a model card in Markdown with the facts in the model's files."""
    configuration, summary = parts.configuration, parts.summary
    labels = [label.name for label in summary.table.foreground]
    facts = {
        "Classes": str(len(labels)),
        "Input": ", ".join(summary.channel_names),
        "Modality": summary.modality,
        "Orientation": summary.orientation or "as stored",
        "Spacing": " x ".join(f"{size:g}" for size in configuration.spacing) + " mm (first axis first)",
        "Patch": " x ".join(map(str, configuration.patch_size)) + " voxels",
        "Network": configuration.network_arch_class_name.rpartition(".")[2],
        "Configuration": f"{summary.configuration_name}, folds {', '.join(summary.folds)}",
        "Licence": summary.licence or "not stated",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items() if value)
    notice = f"{summary.notice}\n\n" if summary.notice else ""
    return f"# {summary.name}\n\n{notice}| | |\n|---|---|\n{rows}\n\nClasses: {', '.join(labels)}.\n"


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read as the model card ({reason(error)}): give a UTF-8 text file."
        ) from error


def _members(parts: ModelParts, card: str, bits: int) -> dict[str, bytes]:
    """Return the content of every member, the manifest first. Only the weights that the network needs are included."""
    from safetensors.torch import save

    from .network import fit_weights

    summary = parts.summary
    members = {
        "README.md": card.encode(),
        "dataset.json": _json(summary.dataset),
        "labels.csv": summary.table.to_csv().encode(),
        "plans.json": _json(summary.plans),
    }
    for fold, (where, weights) in zip(summary.folds, parts.weights, strict=True):
        with named(where):
            tensors = fit_weights(parts.network, weights)
            if bits == 8:
                tensors = in_eight_bits(tensors)
            elif bits == 16:
                tensors = {name: _half(tensor, name) for name, tensor in tensors.items()}
        members[f"fold_{fold}.safetensors"] = save(tensors)
    manifest = {
        "format": FORMAT,
        "version": VERSION if bits == 8 else 1,
        "name": summary.name,
        "configuration": summary.configuration_name,
        "folds": list(summary.folds),
        "mirror_axes": list(parts.mirror_axes),
        **({"swap_sides": True} if summary.swap_sides else {}),
        **{key: getattr(summary, key) for key in DESCRIPTION},
        "members": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members.items()
        },
    }
    with named("the manifest of this bundle"):
        check_manifest(manifest)
    return {"manifest.json": _json(manifest), **members}


def _half(tensor: torch.Tensor, name: str) -> torch.Tensor:
    half = tensor.half()
    if not half.isfinite().all():
        raise ModelError(f"{name} has values beyond the largest float16 number, 65504: use --bits 32.")
    return half


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_members(path: Path, members: dict[str, bytes]) -> None:
    """Write the members of a bundle into a new zip, in their order; the same content gives the same bytes."""
    with zipfile.ZipFile(path, "x") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16  # a regular file; the same bytes on every system
            archive.writestr(info, content)
