"""DICOM archives (PACS): series are found there and fetched, and files sent, by DICOMweb."""
