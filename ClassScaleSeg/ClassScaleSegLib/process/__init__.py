"""Run a segmentation, a training or a transfer in a child process, follow its progress, and cancel it."""

from .archive import Access, ArchiveProcess, WatchProcess
from .comparison import Agreement, FolderComparison
from .job import Event, Job
from .segmentation import SegmentationProcess
from .training import ModelComparisonProcess, TrainingProcess

__all__ = [
    "Access",
    "Agreement",
    "ArchiveProcess",
    "Event",
    "FolderComparison",
    "Job",
    "ModelComparisonProcess",
    "SegmentationProcess",
    "TrainingProcess",
    "WatchProcess",
]
