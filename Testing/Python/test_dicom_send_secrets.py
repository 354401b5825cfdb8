"""Sending to a DICOM archive: passwords and tokens reach it alone, and neither a proxy nor a sentence gets them."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import os
import sys

import pytest
from archive_fixtures import no_credentials, series, server  # noqa: F401  (fixtures)
from archive_server import archive_server, make_certificate, run
from ClassScaleSegLib.archive.connection import Archive
from ClassScaleSegLib.errors import ArchiveError

pytest.importorskip("pydicom")
pytest.importorskip("dicomweb_client", reason="needs dicomweb-client, as the extra [dicom] installs it")


def test_user_and_password_or_a_token_come_from_the_environment(server, series, monkeypatch, capsys):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_PASSWORD", "sécret:1")
    assert run(series, "--to", server.address, "--user", "me") == 0
    assert server.headers[-1]["Authorization"] == "Basic bWU6c8OpY3JldDox"
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "a.b.c")
    assert run(series, "--to", server.address) == 0
    assert server.headers[-1]["Authorization"] == "Bearer a.b.c"
    server.answer = lambda _: (401, {}, b"")
    assert run(series, "--to", server.address) == 5
    said = capsys.readouterr()
    assert "does not accept this user or token (status 401)" in said.err
    assert "a.b.c" not in said.out + said.err and "a.b.c" not in repr(Archive(server.address, token="a.b.c"))


def test_a_password_is_asked_for_on_a_terminal_only(server, series, monkeypatch, capsys):
    monkeypatch.setattr("getpass.getpass", lambda prompt: "typed" if "me" in prompt else "")
    monkeypatch.setattr(sys, "stdin", open(os.devnull))
    assert run(series, "--to", server.address, "--user", "me") == 2
    assert "The password of me is missing" in capsys.readouterr().err and not server.headers
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    assert run(series, "--to", server.address, "--user", "me") == 0
    assert server.headers[-1]["Authorization"] == "Basic bWU6dHlwZWQ="


def test_netrc_is_not_asked(server, series, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert run(series, "--to", server.address) == 0
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "mine")
    assert run(series, "--to", server.address) == 0
    assert [headers.get("Authorization") for headers in server.headers] == [None, "Bearer mine"]


def test_nothing_is_sent_in_the_clear_to_another_machine(series, monkeypatch, capsys):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "secret")
    assert run(series, "--to", "http://pacs.invalid/dicom-web") == 2
    assert "not encrypted, so others in the network could read the images and the token." in capsys.readouterr().err
    assert run(series, "--to", "http://pacs.invalid/dicom-web", "--insecure") == 5
    assert "cannot be reached" in capsys.readouterr().err
    monkeypatch.setenv("CLASSSCALESEG_DICOM_PASSWORD", "secret")
    assert run(series, "--to", "http://127.example.org/dicom-web", "--user", "me") == 2
    assert "could read the images and the password. Nothing was sent." in capsys.readouterr().err
    monkeypatch.delenv("CLASSSCALESEG_DICOM_TOKEN")
    assert run(series, "--to", "http://pacs.invalid/dicom-web") == 2
    assert "could read the images. Nothing was sent. Use an address of https" in capsys.readouterr().err
    for address in ("http://localhost:1/a", "http://127.0.0.2:1/a", "http://[::1]:1/a", "https://pacs.invalid/a"):
        assert Archive(address, "me", "secret").address == address
    with pytest.raises(ArchiveError, match="both given"):
        Archive("https://pacs.invalid/a", "me", "secret", "token")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ftp://pacs/dicom-web", "is not an address"),
        ("pacs.example.org:8042", "is not an address"),
        ("http://", "is not an address"),
        ("http://host:99999999/", "is not an address"),
        ("http://ho st/", "is not an address"),
        ("http://pacs..example.org/", "is not an address"),
        (f"http://{'a' * 64}/", "is not an address"),
        ("https://me:secret@pacs.example.org/", "has a user or password in it"),
        ("https://pacs.example.org/?a=b", r"has a part after \? or #"),
    ],
)
def test_addresses_that_are_none_are_refused(series, address, sentence, capsys):
    with pytest.raises(ArchiveError, match=sentence):
        Archive(address)
    assert run(series, "--to", address) == 2
    assert "secret" not in capsys.readouterr().err


def test_this_machine_is_asked_without_a_proxy(server, series, monkeypatch, capsys):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLASSSCALESEG_DICOM_PASSWORD", "secret")
    with archive_server() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.address.removesuffix("/dicom-web"))
        for host in ("127.0.0.1", "localhost"):
            assert run(series, "--to", server.address.replace("127.0.0.1", host), "--user", "me") == 0
        assert not proxy.headers and len(server.headers) == 2
        # another machine is asked through the proxy, and there is something to be seen without encryption
        assert run(series, "--to", "http://pacs.invalid/dicom-web", "--user", "me") == 2 and not proxy.headers
        run(series, "--to", "http://pacs.invalid/dicom-web", "--user", "me", "--insecure")
        assert len(proxy.headers) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_another_archive_to_which_one_leads_gets_nothing(server, series, monkeypatch, capsys, status):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "secret")
    with archive_server() as other:
        server.answer = lambda _: (status, {"Location": f"{other.address}/studies"}, b"")
        assert run(series, "--to", server.address) == 5
        assert f"leads to {other.address}/studies, where nothing was sent" in capsys.readouterr().err
        assert not other.headers and len(server.headers) == 1


def test_the_certificate_of_an_archive_on_this_machine_can_be_named(series, tmp_path, monkeypatch, capsys):
    certificate, key = make_certificate(tmp_path)
    with archive_server(certificate, key) as server:
        assert run(series, "--to", server.address) == 5
        assert "no trusted encrypted connection" in (said := capsys.readouterr()).err
        assert "REQUESTS_CA_BUNDLE" in said.err and said.out.endswith(": 4 not sent\n")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert run(series, "--to", server.address) == 0 and len(server.instances) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_the_white_space_around_a_token_is_dropped(server, series, monkeypatch, end):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", f"a.b.c{end}")
    assert run(series, "--to", server.address) == 0
    assert server.headers[-1]["Authorization"] == "Bearer a.b.c"


@pytest.mark.parametrize("token", ["sup€rsecret", "super\nsecret", "super\x7fsecret", "Bearer supersecret", "\n"])
def test_a_token_that_is_none_is_refused_and_not_shown(server, series, monkeypatch, capsys, token):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", token)
    assert run(series, "--to", server.address) == 2
    said = capsys.readouterr()
    assert "CLASSSCALESEG_DICOM_TOKEN" in said.err and "secret" not in said.out + said.err and not server.headers


def test_the_case_of_an_address_does_not_matter(series, monkeypatch, capsys):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "secret")
    assert run(series, "--to", "HTTP://pacs.invalid/dicom-web") == 2
    assert "is not encrypted" in capsys.readouterr().err
    assert Archive("HTTPS://pacs.invalid/A/", token="secret").address == "https://pacs.invalid/A"
    assert Archive("Http://LOCALHOST:1/a", token="secret").address == "http://LOCALHOST:1/a"


@pytest.mark.parametrize(
    "address",
    [
        "htps://me:secret@host/x",
        "https://me:sec ret@host/x",
        "https://me:sec#ret@host/x",
        "https://me:1?ret@host/x",
        "https://me:sec/ret@host/x",
        "https://me:1/ret@host/x",
        "https://me:secret@host:99999/x",
        "me:secret@host",
    ],
)
def test_a_password_in_an_address_is_not_shown(series, capsys, address):
    assert run(series, "--to", address) == 2
    said = capsys.readouterr()
    assert "a user or password in it" in said.err and "ret" not in said.err + said.out
