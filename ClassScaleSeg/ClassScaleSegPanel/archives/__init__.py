"""DICOM archives (PACS): which ones the user knows, series fetched from them, and results sent to them."""
