"""Warn before a run whose result is likely to be poor: another modality than the model's, or too coarse voxels."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import ModelSummary

_COARSE = 3.0  # times the model's spacing; structures a few model voxels thick then fall between two image voxels
_MODALITIES = {"MR": "MR", "MRI": "MR", "CT": "CT", "PT": "PET", "PET": "PET", "US": "US", "NM": "NM"}


def advise_on_run(
    models: Sequence[tuple[str, ModelSummary]],
    locating: Sequence[ModelSummary],
    spacing: tuple[float, float, float],
    modality: str | None,
) -> tuple[str, ...]:
    """Return warnings about the use of all models of a run, each once. If they are several, each begins with its model.

    :param models: the models that segment, by the names that users see; one with parts is there once for each.
    :param locating: the coarse models that find where their classes are; they see coarser voxels on purpose.
    :param spacing: of the volume, mm, along z, y, x.
    :param modality: of the volume as in DICOM; ``None`` if unknown.
    """
    found = [(name, advise(summary, spacing, modality)) for name, summary in models]
    found += [(summary.name, advise_on_modality(summary, modality)) for summary in locating]
    several = len({name for name, _advice in found}) > 1
    sentences = [f"{name}: {each}" if several else each for name, advice in found for each in advice]
    return tuple(dict.fromkeys(sentences))


def advise(summary: ModelSummary, spacing: tuple[float, float, float], modality: str | None) -> list[str]:
    """Return warnings about the use of a model for a volume, one sentence each.

    :param spacing: of the volume, mm, along z, y, x.
    :param modality: of the volume as in DICOM; ``None`` if unknown.
    """
    sentences = [*advise_on_network(summary), *advise_on_modality(summary, modality)]
    coarsest = max(a / b for a, b in zip(spacing[-len(summary.spacing) :], summary.spacing, strict=True))
    if coarsest > _COARSE:
        sentences.append(
            f"The voxels are up to {max(spacing):.1f} mm long, {coarsest:.1f} times as long as the model's: "
            "small structures may be missed."
        )
    return sentences


def advise_on_network(summary: ModelSummary) -> list[str]:
    """Return a warning if the memory of a run grows with the number of classes, because there is no projection."""
    if summary.projects:
        return []
    return [
        f"The network of this model ends in a transposed convolution, so its {summary.classes} classes are kept for "
        "each voxel: memory and time grow with the number of classes."
    ]


def advise_on_modality(summary: ModelSummary, modality: str | None) -> list[str]:
    """Return a warning if a volume is of another modality than a model's; the parameters are those of `advise`."""
    wanted = summary.modality or (summary.channel_names[0] if len(summary.channel_names) == 1 else None)
    made_for, given = (_MODALITIES.get((text or "").upper()) for text in (wanted, modality))
    if made_for and given and made_for != given:
        return [f"The model was made for {made_for}, but this volume is {given}: expect a wrong result."]
    return []
