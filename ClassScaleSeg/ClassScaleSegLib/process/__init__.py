"""Run a segmentation in a child process, follow its progress, and cancel it."""

from .child import SegmentationProcess
from .job import Event, Job

__all__ = ["Event", "Job", "SegmentationProcess"]
