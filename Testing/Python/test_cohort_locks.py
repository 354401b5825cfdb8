"""The lock and the ledger of a cohort, under the hands of several processes and of file systems with faults."""

import errno
import os
import platform
import sys
import threading

import pytest
from ClassScaleSegLib import OutputError, locking
from ClassScaleSegLib.cohort.ledger import LOCK, NAME, open_ledger, read_ledger
from ClassScaleSegLib.cohort.records import FOLDER


def test_a_look_at_a_cohort_does_not_keep_a_run_from_beginning(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.add("begin", cases=1)
    over = threading.Event()

    def look():
        while not over.is_set():
            read_ledger(tmp_path)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(20):
            with open_ledger(tmp_path):
                pass
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()


def test_a_look_writes_nothing(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.add("begin", cases=1)
        assert read_ledger(tmp_path).running
        assert (tmp_path / FOLDER / LOCK).read_text() == f"{os.getpid()} on {platform.node()}"
    (tmp_path / FOLDER / LOCK).unlink()
    assert not read_ledger(tmp_path).running and not (tmp_path / FOLDER / LOCK).exists()


def test_a_file_system_without_locks_is_a_sentence(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(locking, "_lock", fail)
    with (
        pytest.raises(OutputError, match="lock cannot be locked .*file system may have no locks"),
        open_ledger(tmp_path),
    ):
        pass
    (tmp_path / FOLDER / NAME).write_text("")
    assert not read_ledger(tmp_path).running


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_a_full_disk_is_a_sentence(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / NAME).symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left"), open_ledger(tmp_path) as ledger:
        ledger.add("begin", cases=1)
