"""Run a segmentation in a child process, follow its progress, and cancel it."""

from .child import Event, Job, SegmentationProcess

__all__ = ["Event", "Job", "SegmentationProcess"]
