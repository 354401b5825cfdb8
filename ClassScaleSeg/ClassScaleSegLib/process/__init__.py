"""Run a segmentation or a training in a child process, follow its progress, and cancel it."""

from .job import Event, Job
from .segmentation import SegmentationProcess
from .training import TrainingProcess

__all__ = ["Event", "Job", "SegmentationProcess", "TrainingProcess"]
