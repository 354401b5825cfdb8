"""What is segmented: the volumes of the scene and of the DICOM database, and which of them is which channel."""
