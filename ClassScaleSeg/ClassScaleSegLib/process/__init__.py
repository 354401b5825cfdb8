"""Run a segmentation, a training or a transfer in a child process, follow its progress, and cancel it."""

from .archive import Access, ArchiveProcess
from .job import Event, Job
from .segmentation import SegmentationProcess
from .training import ModelComparisonProcess, TrainingProcess

__all__ = [
    "Access",
    "ArchiveProcess",
    "Event",
    "Job",
    "ModelComparisonProcess",
    "SegmentationProcess",
    "TrainingProcess",
]
