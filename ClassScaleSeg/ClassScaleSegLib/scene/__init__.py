"""MRML: volumes, segmentation nodes, runs, surfaces. The one room that imports ``slicer`` and ``vtk``."""
