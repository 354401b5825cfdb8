"""Which GPUs CUDA offers to a process, in which order, and what they are called: from what NVIDIA's driver lists.

The driver's ``nvidia-smi`` lists all GPUs by their place on the bus. CUDA leaves out and reorders by the environment
variables ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER`` (CUDA Programming Guide, "CUDA Environment Variables"), and
of GPUs that are divided (MIG) it offers a single instance, and then no other GPU (MIG User Guide, "CUDA Device
Enumeration").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_GPU = re.compile(r"GPU \d+: (.+?) \(UUID: (.*?)\)")
_INSTANCE = re.compile(r"\s+(MIG \S+)\s+Device\s+\d+: \(UUID: (.*?)\)")


class Gpu(NamedTuple):
    """A GPU that the driver lists.

    :ivar uuid: such as ``GPU-8932f937-d72c-4106-c12f-20bd9faed9f6``.
    :ivar instances: name and UUID of each MIG instance, if it is divided.
    """

    name: str
    uuid: str
    instances: tuple[tuple[str, str], ...] = ()


def listed_gpus(text: str) -> list[Gpu]:
    """Return the GPUs that ``nvidia-smi -L`` lists; other lines are ignored.

    >>> listed_gpus("GPU 0: NVIDIA A30 (UUID: GPU-2b)\\n  MIG 1g.6gb Device 0: (UUID: MIG-3)")
    [Gpu(name='NVIDIA A30', uuid='GPU-2b', instances=(('MIG 1g.6gb', 'MIG-3'),))]
    """
    found: list[Gpu] = []
    for line in text.splitlines():
        if gpu := _GPU.match(line):
            found.append(Gpu(gpu[1], gpu[2]))
        elif found and (instance := _INSTANCE.match(line)):
            found[-1] = found[-1]._replace(instances=(*found[-1].instances, (instance[1], instance[2])))
    return found


def offered_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[str]:
    """Return what CUDA's devices 0, 1, 2, ... are called.

    CUDA numbers GPUs of several kinds from fast to slow, unless ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID``, and the driver
    does not tell how. Then a device that is not chosen by its UUID has the names of all kinds.

    :param gpus: all GPUs, as the driver lists them.
    :param environment: of the process that uses CUDA.

    >>> gpus = [Gpu("NVIDIA A40", "GPU-1a"), Gpu("NVIDIA H100", "GPU-2b")]
    >>> offered_gpus(gpus, {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    ['NVIDIA H100', 'NVIDIA A40']
    >>> offered_gpus(gpus, {"CUDA_VISIBLE_DEVICES": "GPU-2"}), offered_gpus(gpus, {"CUDA_VISIBLE_DEVICES": "1"})
    (['NVIDIA H100'], ['NVIDIA A40 or NVIDIA H100'])
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    words = [str(index) for index in range(len(gpus))] if chosen is None else chosen.split(",")
    on_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    kinds = list(dict.fromkeys(gpu.name for gpu in gpus))
    names: list[str] = []
    instances: list[str] = []
    seen: set[tuple[int, str]] = set()
    for word in map(str.strip, words):
        found = _meant(word, gpus)
        if found is None:  # what follows is not offered either
            break
        if found in seen:
            return []
        seen.add(found)
        index, instance = found
        gpu = gpus[index]
        instance = instance or (gpu.instances[0][0] if gpu.instances else "")
        certain = on_bus or not word[:1].isdigit()
        names.append(gpu.name if certain else " or ".join(kinds))
        instances += [f"{gpu.name} {instance}"] if instance else []
    return instances[:1] or names


def _meant(word: str, gpus: Sequence[Gpu]) -> tuple[int, str] | None:
    """Return the index of the GPU that a word of ``CUDA_VISIBLE_DEVICES`` means, and the name of its MIG instance.

    :returns: ``None`` if there is none such; the instance is "" if the word means the whole GPU.
    """
    if number := re.match(r"\+?(\d+)", word):  # as the C function strtoul reads it
        index = int(number[1])
        return (index, "") if index < len(gpus) else None
    if old := re.fullmatch(r"MIG-(GPU-[^/]+)/\d+/\d+", word):
        index = next((n for n, gpu in enumerate(gpus) if gpu.uuid == old[1]), -1)
        return (index, "MIG") if index >= 0 else None
    if not word.startswith(("GPU-", "MIG-")):
        return None
    known = [(n, "", gpu.uuid) for n, gpu in enumerate(gpus)]
    known += [(n, *instance) for n, gpu in enumerate(gpus) for instance in gpu.instances]
    found = [(n, name) for n, name, uuid in known if uuid.startswith(word)]
    return found[0] if len(found) == 1 else None
