"""What two processes do that end while gloo frees a tensor. They import this file, and not nnU-Net, for seconds."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import torch
from classscale_training.processes.group import Rank


def free_a_tensor_while_the_process_ends(rank: Rank) -> None:
    """End while one of gloo's threads frees a tensor, and Python code runs there.

    :raises AssertionError: if gloo's threads free none.
    """
    network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(10, 10))
    network.itself = [network]  # a cycle, such as trainers have
    gc.disable()
    main, late = threading.get_ident(), []

    def free() -> None:
        if threading.get_ident() != main:
            late.append(rank)
            time.sleep(0.3)  # the interpreter ends meanwhile

    for _ in range(5000):  # about every fifth tensor is freed by one of gloo's threads
        tensor = torch.zeros(10)
        weakref.finalize(tensor, free).atexit = False
        work = torch.distributed.all_reduce(tensor, async_op=True)
        del tensor
        work.wait()
        del work
        found = torch.tensor([len(late)])
        torch.distributed.all_reduce(found)
        if found.item():
            return
    raise AssertionError("gloo's threads have freed no tensor.")
