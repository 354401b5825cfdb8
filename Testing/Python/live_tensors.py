"""How many bytes of tensors exist at once while a network runs."""

from __future__ import annotations

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return, as long as they live, but not those of a network."""

    def __init__(self, network):
        super().__init__()
        tensors = [*network.parameters(), *network.buffers()]
        self.known = {StorageWeakRef(tensor.untyped_storage()) for tensor in tensors}
        self.storages, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if (reference := StorageWeakRef(storage)) not in self.known:
                    self.storages[reference] = storage.nbytes()
        self.storages = {reference: size for reference, size in self.storages.items() if not reference.expired()}
        self.peak = max(self.peak, sum(self.storages.values()))
        return out
