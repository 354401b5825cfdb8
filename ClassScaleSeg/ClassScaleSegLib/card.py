"""A model card in Markdown for a bundle that comes without one: what the files of the model say, and no more."""

from __future__ import annotations

from .dataset_json import channel_names
from .model_folder import ModelParts


def model_card(parts: ModelParts) -> str:
    """A model card from what the files say."""
    configuration, labels = parts.plans.configuration, [label.name for label in parts.table.foreground]
    facts = {
        "Classes": str(len(labels)),
        "Input": ", ".join(channel_names(parts.plans.dataset, parts.where)),
        "Modality": parts.modality,
        "Orientation": parts.orientation or "as stored",
        "Spacing": " x ".join(f"{size:g}" for size in configuration.spacing) + " mm (first axis first)",
        "Patch": " x ".join(map(str, configuration.patch_size)) + " voxels",
        "Network": configuration.network_arch_class_name.rpartition(".")[2],
        "Configuration": f"{parts.plans.configuration_name}, folds {', '.join(parts.folds)}",
        "Licence": parts.licence or "not stated",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items() if value)
    notice = f"{parts.notice}\n\n" if parts.notice else ""
    return f"# {parts.name}\n\n{notice}| | |\n|---|---|\n{rows}\n\nClasses: {', '.join(labels)}.\n"
