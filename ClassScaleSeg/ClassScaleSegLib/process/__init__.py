"""A segmentation in a child process."""

from .process import Event, Job, SegmentationProcess

__all__ = ["Event", "Job", "SegmentationProcess"]
