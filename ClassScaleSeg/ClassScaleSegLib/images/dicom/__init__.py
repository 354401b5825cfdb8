"""DICOM: series of images are read; segmentations, structure sets and reports of measures are written and read."""
