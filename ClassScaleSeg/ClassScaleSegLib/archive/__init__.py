"""DICOM archives (PACS): files are sent to them by DICOMweb."""
