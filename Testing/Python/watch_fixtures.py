"""Watching a DICOM archive in tests: the command, a clock, and a stand-in for its child process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ClassScaleSegLib.commands import watch_loop, watch_work
from ClassScaleSegLib.commands.main import main
from reading_server import Shelf

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_phantom import planes  # noqa: E402
from dicom_results import written  # noqa: E402


class Child:
    """Stands in for the child process: its result is a small segmentation of the series."""

    made: list[Path] = []
    error, kind = "", ""
    seen = staticmethod(lambda: None)

    def __init__(self):
        self.job, self.result, self.error, self.kind = None, {"structures": 2}, Child.error, Child.kind

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def work_folder(self) -> Path:
        return Child.folder

    def start(self):
        Child.made.append(Path(self.job.images[0]))
        Child.seen()
        assert all(file.suffix == ".dcm" for file in Child.made[-1].iterdir())

    def wait(self, patience):
        if self.error:
            return "failed"
        self.job.output.write_bytes(Child.content)
        return "finished"


@pytest.fixture
def child(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("child")
    _, path, _ = written(folder, volume=planes())
    Child.folder, Child.content, Child.made, Child.error, Child.kind = folder, path.read_bytes(), [], "", ""
    monkeypatch.setattr(Child, "seen", staticmethod(lambda: None))
    monkeypatch.setattr(watch_work, "SegmentationProcess", Child)
    return Child.made


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(watch_loop.time, "sleep", lambda seconds: None)


@pytest.fixture
def looks(monkeypatch):
    """Lets time pass at once, and ends the command by Ctrl-C when nothing is to happen any more."""
    then = []

    def sleep(seconds):
        clock[0] += seconds
        if not then:
            raise KeyboardInterrupt
        then.pop(0)()

    clock = [0.0]
    monkeypatch.setattr(watch_loop.time, "sleep", sleep)
    monkeypatch.setattr(watch_loop.time, "monotonic", lambda: clock[0])
    return then


def watch(shelf, server, folder, *words) -> int:
    to = [] if server is None else ["--to", server.address]
    common = ["--from", shelf.address, *to, "--modality", "CT", "--date", "19000101-", "--least-images", "2"]
    return main(["dicom", "watch", *map(str, [*common, "-m", "toy-120", "-o", folder, *words])])


@pytest.fixture(autouse=True)
def dated(monkeypatch):
    """The archive tells a date of every study."""
    add = Shelf.add

    def dated(self, folder):
        add(self, folder)
        for _, data in self.files:
            data.StudyDate = "20261130"
        return folder

    monkeypatch.setattr(Shelf, "add", dated)


def record(folder, uid) -> dict:
    return json.loads((folder / "records" / f"{uid}.json").read_text())


def nothing() -> None:
    pass
