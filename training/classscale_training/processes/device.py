"""Whether a device can be used, said in a sentence."""

from __future__ import annotations

import torch
from ClassScaleSegLib.errors import ClassScaleError, reason


def usable_device(name: str, option: str = "--device") -> torch.device:
    """Return the device with a name, once something has been stored there.

    :param name: "cpu", "cuda", "cuda:1" or "mps"; "auto" for a GPU of CUDA if there is one, else the CPU.
    :param option: by which the user chooses it.
    :raises ClassScaleError: if there is no such device, or PyTorch cannot use it.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ClassScaleError(
            f"The device {name} cannot be used ({reason(error)}). Use {option} cpu, or install a PyTorch for this "
            "device."
        ) from error
    return device
