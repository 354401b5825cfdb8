"""What a user should know before a run that will work, and may disappoint: another modality, too coarse voxels."""

from __future__ import annotations

from .summary import ModelSummary

_COARSE = 3.0  # times the model's spacing; structures a few of its voxels thick are then lost between two of the image
_MODALITIES = {"MR": "MR", "MRI": "MR", "CT": "CT", "PT": "PET", "PET": "PET", "US": "US", "NM": "NM"}


def advise(summary: ModelSummary, spacing: tuple[float, float, float], modality: str | None) -> list[str]:
    """Sentences, none if all is well.

    :param spacing: of the volume, mm, along z, y, x.
    :param modality: of the volume as DICOM has it, if it is known.
    """
    sentences = []
    wanted = summary.modality or (summary.channel_names[0] if len(summary.channel_names) == 1 else None)
    made_for, given = (_MODALITIES.get((text or "").upper()) for text in (wanted, modality))
    if made_for and given and made_for != given:
        sentences.append(f"The model was made for {made_for}, and this volume is {given}: expect a wrong result.")
    coarsest = max(a / b for a, b in zip(spacing[-len(summary.spacing) :], summary.spacing, strict=True))
    if coarsest > _COARSE:
        sentences.append(
            f"The voxels are {coarsest:.1f} times longer than the model's ({max(spacing):.1f} mm): "
            "small structures may be missed."
        )
    return sentences
