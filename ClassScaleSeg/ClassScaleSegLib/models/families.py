"""Which program a model is from: nnU-Net and our own bundles, or another one with a reader of its own."""

from __future__ import annotations

from . import auto3dseg, brainchop
from .architecture import planned_architecture
from .bundle import is_bundle, read_manifest
from .configuration import configuration_entries, whole_plans
from .files import Files, read_json
from .foreign import Reader
from .networks import PACKAGE, find_network, is_primus
from .preprocessing import ENTRY

_READERS: dict[str, Reader] = {auto3dseg.MODEL: auto3dseg, brainchop.MODEL: brainchop}  # by the file that tells


def foreign_reader(files: Files) -> Reader | None:
    """Return the reader of a model, or ``None`` if it is one of nnU-Net or a bundle."""
    if "manifest.json" in files or "plans.json" in files:
        return None
    return next((reader for marker, reader in _READERS.items() if marker in files), None)


def is_trainable(files: Files) -> bool:
    """Return whether a model can be trained further as it is: a U-Net that nnU-Net has planned. No weights are read.

    A Primus needs a trainer of its own. Of a model folder, only the program is known.

    :raises ModelError: if it is a damaged bundle.
    """
    if not is_bundle(files):
        return foreign_reader(files) is None
    configuration = read_manifest(files)["configuration"]
    entries = configuration_entries(whole_plans(read_json(files, "plans.json")), configuration)
    architecture = planned_architecture(entries)
    _name, network = find_network(architecture)
    return ENTRY not in entries and network.package == PACKAGE and not is_primus(architecture)
