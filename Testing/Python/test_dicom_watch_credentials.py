"""Watching a DICOM archive: which of two archives gets which token or password, and what follows a wrong one."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import argparse

import pytest
from archive_fixtures import no_credentials, series, server, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.commands import dicom_watch, watch_loop
from ClassScaleSegLib.commands.archive_options import archive_of
from ClassScaleSegLib.commands.main import ExitCode
from ClassScaleSegLib.errors import ArchiveError
from fetching_fixtures import given, uid  # noqa: F401  (fixtures)

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

from dicom_phantom import planes, write_series  # noqa: E402
from watch_fixtures import Child, child, dated, looks, no_waiting, nothing, record, watch  # noqa: E402, F401  (fixtures)


def test_each_archive_gets_its_own_credentials_and_never_those_of_the_other(
    shelf, server, given, child, tmp_path, capsys, monkeypatch
):
    def told() -> tuple[set, set]:
        asked, sent = [headers for _, _, headers in shelf.requests], list(server.headers)
        shelf.requests.clear(), server.headers.clear()
        return tuple({headers.get("Authorization") for headers in side} for side in (asked, sent))

    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "of-the-first")
    assert watch(shelf, server, tmp_path / "1", "--once") == ExitCode.OK
    assert told() == ({"Bearer of-the-first"}, {None})
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TO_TOKEN", "of-the-second")
    assert watch(shelf, server, tmp_path / "2", "--once") == ExitCode.OK
    assert told() == ({"Bearer of-the-first"}, {"Bearer of-the-second"})
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TO_PASSWORD", "b")
    assert watch(shelf, server, tmp_path / "3", "--once", "--to-user", "a") == ExitCode.OK
    assert told() == ({"Bearer of-the-first"}, {"Basic YTpi"})
    monkeypatch.delenv("CLASSSCALESEG_DICOM_TO_PASSWORD")
    assert watch(shelf, server, tmp_path / "4", "--once", "--to-user", "a") == ExitCode.USAGE
    assert "CLASSSCALESEG_DICOM_TO_PASSWORD" in capsys.readouterr().err and not shelf.requests
    server.answer = lambda instances: (401, {"Content-Type": "text/plain"}, b"")
    assert watch(shelf, server, tmp_path / "5", "--once") == ExitCode.SOME_FAILED
    assert "Give --to-user and the password, or a token" in (said := capsys.readouterr().out)
    assert "CLASSSCALESEG_DICOM_TO_TOKEN" in said and "of-the" not in said


def test_the_archive_that_is_watched_keeps_its_credentials_if_it_is_named_twice(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "abc")
    options = argparse.Namespace(archive=shelf.address, user=None, insecure=False, no_send=False)
    archive = archive_of(options)
    for to in (None, shelf.address, f"{shelf.address}/"):
        options.to, options.to_user = to, None
        assert dicom_watch._target(options, archive) is archive
    options.to = shelf.address + "/of-others"
    assert dicom_watch._target(options, archive).token is None
    options.to, options.to_user = None, "me"
    with pytest.raises(ArchiveError, match="Give --to"):
        dicom_watch._target(options, archive)


def test_a_wrong_password_is_tried_less_and_less_often(shelf, given, looks, tmp_path, capsys):
    shelf.answer = lambda *_: (401, {}, b"")
    looks += [nothing] * 7 + [lambda: setattr(shelf, "answer", None), nothing]
    assert watch(shelf, None, tmp_path, "--no-send", "--least-images", "99") == ExitCode.CANCELLED
    said = [line.rpartition(" The next look is ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said[:-2] == [f"in {seconds} s." for seconds in (120, 240, 480, 960, 1920, 3600, 3600, 3600)]
    assert said[-2].endswith("It goes on.")


@pytest.mark.parametrize(("every", "rest"), [(5.0, 3600), (60.0, 3600), (86400.0, 86400)])
def test_a_password_may_be_wrong_for_months(every, rest):
    loop = watch_loop.Watch(argparse.Namespace(every=every), None, None, None, None)
    assert loop._rest_after(0) == every and loop._rest_after(5000) == rest


def test_a_password_that_is_not_valid_any_more_is_not_tried_for_each_series(
    shelf, server, given, child, looks, tmp_path
):
    for number in range(3):
        shelf.add(write_series(tmp_path / f"{number}", planes(4), f"1.2.{number}", SeriesNumber=number + 5))
    asked = []
    shelf.answer = lambda path, *_: asked.append(path) or (401, {}, b"") if path.endswith("/instances") else None
    looks += [nothing]
    assert watch(shelf, server, tmp_path / "out") == ExitCode.CANCELLED
    assert len(asked) == 1 and not list((tmp_path / "out").glob("records/*"))


def test_a_wrong_password_for_results_is_tried_once_and_not_for_each_result(
    shelf, server, given, child, looks, tmp_path
):
    for number in range(3):
        shelf.add(write_series(tmp_path / f"{number}", planes(4), f"1.2.{number}", SeriesNumber=number + 5))
    server.answer = lambda instances: (401, {"Content-Type": "text/plain"}, b"")
    tries = []
    looks += [lambda: tries.append(len(server.instances)) for _ in range(8)]
    looks += [lambda: setattr(server, "answer", None)] + [nothing] * 16
    assert watch(shelf, server, tmp_path / "out") == ExitCode.CANCELLED
    assert tries == [0, 1, 1, 2, 2, 2, 2, 3] and len(child) == 4
    states = [record(tmp_path / "out", file.stem)["state"] for file in (tmp_path / "out" / "records").iterdir()]
    assert states == ["done"] * 4
