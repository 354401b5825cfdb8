"""Work with MRML nodes: volumes, segmentations, runs, surfaces. The only folder of the library that imports Slicer."""
