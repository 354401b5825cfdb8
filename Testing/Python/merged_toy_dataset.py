"""A merged dataset for tests, of nine classes and two datasets."""

from classscale_training.data.merged_labels import Merged, SourceDataset

# The first dataset has the classes 1 to 4; the second has 5 to 7, and 1 and 2 as one label, but no class 8.
MERGED = Merged(
    ("background", *(f"cell {number}" for number in range(1, 9))),
    ("left",),
    10,
    (
        SourceDataset("Dataset001_A", "d001_", 1.0, {0: (0, 5, 6, 7, 8), 1: (1,), 2: (2,), 3: (3,), 4: (4,)}),
        SourceDataset("Dataset002_B", "d002_", 3.0, {0: (0, 3, 4), 5: (5,), 6: (6,), 7: (7,), 9: (1, 2)}),
    ),
)
