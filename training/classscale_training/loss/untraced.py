"""The sums where ``torch.compile`` cannot trace them: it would unroll the walk over tiles, so it stops before them.

This is a file of its own because saying so loads the compiler, which takes longer than loading the rest of torch. Only
code that is being compiled imports it.
"""

import torch

from . import class_statistics, region_statistics

sums_of_classes = torch.compiler.disable(class_statistics.sums_of)
sums_of_regions = torch.compiler.disable(region_statistics.sums_of)
