"""Keep ``torch.compile`` out of a function whose walk over tiles it would unroll: it stops before, and goes on behind.

This is a file of its own because saying so loads the compiler, which takes as long as the rest of torch. Only code that
is being compiled imports it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

_T = TypeVar("_T")


@torch.compiler.disable
def untraced(function: Callable[..., _T], *arguments: Any) -> _T:
    """Return ``function(*arguments)``."""
    return function(*arguments)
