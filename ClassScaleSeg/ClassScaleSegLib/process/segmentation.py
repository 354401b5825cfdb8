"""Run a segmentation in a child process: ``classscaleseg segment --job FILE``."""

from __future__ import annotations

from ..errors import ClassScaleError
from .child import ChildProcess
from .job import Job


class SegmentationProcess(ChildProcess):
    """One job in a child process.

    :ivar job: can be set until :meth:`start`, so that its files can be in ``work_folder``.
    :ivar result: ``output``, ``structures`` (their number) and ``seconds``, once the job is finished.
    :param job: may be given later.
    :param python: path of an interpreter; by default that of :func:`.child.default_python`.
    :param environment: variables to add to those of this process.
    :raises OutputError: if the work folder cannot be made.
    :raises ClassScaleError: if psutil is not installed.

    Write the image into the work folder, start the child, and read the result before the folder is removed:

    >>> import SimpleITK as sitk
    >>> from ClassScaleSegLib import Options
    >>> with SegmentationProcess() as process:
    ...     image, output = process.work_folder / "ct.nrrd", process.work_folder / "ct.seg.nrrd"
    ...     sitk.WriteImage(sitk.GaussianSource(size=[20, 20, 20]), image)
    ...     process.job = Job(images=(image,), model="toy-120", output=output, options=Options(device="cpu"))
    ...     process.start()
    ...     state = process.wait()  # or process.poll() from a timer
    ...     labels = sitk.ReadImage(output)
    >>> state, labels.GetSize(), process.work_folder.exists()
    ('finished', (20, 20, 20), False)
    """

    memory = "Close other programs, crop the image, or set a memory limit."

    def __init__(self, job: Job | None = None, python: str | None = None, environment: dict[str, str] | None = None):
        super().__init__(python, environment)
        self.job = job

    def __str__(self) -> str:
        return str(self.job)

    def start(self) -> None:
        """Start the child. If that fails, the state is "failed" and :meth:`poll` reports the error.

        :raises ClassScaleError: if there is no job, or it was started already.
        """
        if self.job is None:
            raise ClassScaleError("A segmentation process needs a job.")
        super().start()

    def _command(self) -> list[str]:
        assert self.job is not None
        file = self.work_folder / "job.json"
        self.job.write(file)
        return ["-m", "ClassScaleSegLib", "segment", "--job", str(file), "--json-progress"]
