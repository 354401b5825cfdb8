"""A server starts, says where it is and ends: what it needs for that, tokens and certificates."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
from ClassScaleSegLib import errors
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.server.serving import Settings, prepared
from ClassScaleSegLib.server.tokens import Tokens
from ClassScaleSegLib.server.workers import Slot
from live_server import live_server
from server_api import FAST, SAMPLE, api, files, image, offers, self_signed, server, start  # noqa: F401  (fixtures)


def test_a_server_for_others_needs_a_token_first(tmp_path, offers):
    with pytest.raises(errors.ClassScaleError, match="classscaleseg serve token NAME"):
        with prepared(Settings(tmp_path, ("toy-120",), host="0.0.0.0", port=0), offers):
            pass


def test_one_folder_is_for_one_server(api, offers):
    with pytest.raises(errors.Busy, match=rf"server \(id {os.getpid()} on .*--folder"):
        with prepared(Settings(api.folder, ("toy-120",), port=0), offers):
            pass


@pytest.mark.parametrize("port", [-1, 65536, 80000])
def test_a_number_that_is_no_port_is_refused(tmp_path, offers, port):
    with pytest.raises(errors.ClassScaleError, match=f"{port} cannot be a port"):
        with prepared(Settings(tmp_path, ("toy-120",), port=port), offers):
            pass


def test_a_device_that_is_not_there_is_refused_at_the_start(tmp_path, offers):
    slots = (Slot("cpu", "cpu"), Slot("cuda:77", "cuda:77"))
    with pytest.raises(errors.ClassScaleError, match="There is no device cuda:77 here. This torch"):
        with prepared(Settings(tmp_path, ("toy-120",), port=0, slots=slots), offers):
            pass


def test_a_server_says_where_others_reach_it_and_ends_without_a_fault(tmp_path):
    Tokens(tmp_path).make("anna")
    process, api = start(tmp_path, "--host", "0.0.0.0")
    port = api.address.rpartition(":")[2]
    said = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said += process.stdout.read()
    process.wait(60)
    process.stdout.close()
    assert f"Other machines reach it at http://{socket.gethostname()}:{port}, " in said
    assert "The server stops." in said and process.returncode == 0


def test_jobs_run_on_a_cluster(tmp_path, image):
    process, api = start(tmp_path, "--cluster", "local:1")
    try:
        assert api("get", "health").json()["devices"][0]["name"] == "cluster"
        done = api.job([api.upload(image)], **FAST).json()["id"]
        assert api.wait(done)["result"]["structures"] > 5
        slow = api.job([api.upload(SAMPLE.read_bytes())], options={"step": 0.2}).json()["id"]
        while api.wait(slow, "running")["stage"] == "start":
            time.sleep(0.1)
        for job in (done, slow):
            assert api("delete", f"jobs/{job}").status_code == 204
        until = time.monotonic() + 60
        while api.files() and time.monotonic() < until:
            time.sleep(0.1)
        assert api.files() == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    assert process.returncode == 0


def test_tokens_of_the_command(tmp_path, capsys):
    folder = ["--folder", str(tmp_path)]
    assert main(["serve", "token", "anna", *folder]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("css_") and Tokens(tmp_path).owner(secret) == "anna"
    file = tmp_path / "tokens.json"
    assert secret not in file.read_text() and (os.name == "nt" or file.stat().st_mode & 0o077 == 0)
    assert main(["serve", "token", "anna", *folder]) == 8 and "Revoke it first" in capsys.readouterr().err
    assert main(["serve", "token", "--list", *folder]) == 0 and "anna" in capsys.readouterr().out
    assert main(["serve", "token", "--revoke", "anna", *folder]) == 0
    assert Tokens(tmp_path).owner(secret) is None
    assert main(["serve", "token", "--revoke", "anna", *folder]) == 8
    assert main(["serve", "token", "a b", *folder]) == 8
    assert main(["serve", "token", *folder]) == 2


def test_tls(tmp_path, offers):
    key, certificate = self_signed(tmp_path)
    with live_server(tmp_path / "server", offers, certificate=certificate, certificate_key=key) as api:
        assert api.address.startswith("https://127.0.0.1:")
        api.session.verify = str(certificate)
        assert api("get", "health").json()["service"] == "ClassScaleSeg"
    missing = Settings(tmp_path, (), port=0, certificate=certificate, certificate_key=tmp_path / "lost.pem")
    with pytest.raises(errors.ClassScaleError, match="lost.pem does not exist"), prepared(missing, offers):
        pass
    with pytest.raises(errors.ClassScaleError, match="PEM that belong together"):
        with prepared(Settings(tmp_path, (), port=0, certificate=SAMPLE, certificate_key=SAMPLE), offers):
            pass
