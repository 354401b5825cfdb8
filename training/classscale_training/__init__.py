"""Training with hundreds to a thousand classes in the memory of a low-rank basis.

Importable with torch and numpy alone.
"""

from .statistics import ClassStatistics, class_statistics

__all__ = ["ClassStatistics", "class_statistics"]
