"""The suffixes of files: which of them are read from folders, and the format that each of them stands for."""

from __future__ import annotations

from .tables import TABLE_SUFFIXES

READ_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".hdr")  # of cases in a folder
DETACHED_HEADERS = (".mhd", ".nhdr", ".hdr", ".hdr.gz")  # the voxels are in a second file
UPLOAD_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")  # that servers take: the whole image is in one file
DICOM_SUFFIX = ".seg.dcm"
RTSTRUCT_SUFFIX = ".rtstruct.dcm"
REPORT_SUFFIX = ".sr.dcm"
# What is written. Longer suffixes come first: a .seg.nrrd is not a plain .nrrd.
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
SEGMENTATION_SUFFIXES = (".seg.nrrd", *IMAGE_SUFFIXES, DICOM_SUFFIX, RTSTRUCT_SUFFIX)
STATISTICS_SUFFIXES = (*TABLE_SUFFIXES, REPORT_SUFFIX)
ALL_SUFFIXES = (*SEGMENTATION_SUFFIXES, *STATISTICS_SUFFIXES)
VOXEL_SUFFIXES = tuple(dict.fromkeys((*SEGMENTATION_SUFFIXES, *READ_SUFFIXES)))  # of all images and segmentations
