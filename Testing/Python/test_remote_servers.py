"""The servers that a user knows: the list, the tokens, and the commands."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from archive_server import make_certificate
from ClassScaleSegLib import addresses
from ClassScaleSegLib.catalog.catalog import data_folder
from ClassScaleSegLib.commands import servers as commands
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.commands.server_options import read_token
from ClassScaleSegLib.errors import OutputError, ServerError
from ClassScaleSegLib.remote.credentials import check_token
from ClassScaleSegLib.remote.faults import Unencrypted
from ClassScaleSegLib.remote.servers import LIST, TOKENS, KnownServer, Servers
from ClassScaleSegLib.server.offers import Offers
from ClassScaleSegLib.server.tokens import Tokens
from odd_json import WEIRD
from remote_fixtures import Quick, free_port, lying_server, quick_server
from user_data import data_environment


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Of the list of this user."""
    for name, value in data_environment(tmp_path / "user").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CLASSSCALESEG_TOKEN", raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)  # importing it fails
    return data_folder()


class Keyring(SimpleNamespace):
    """A keyring that is there."""

    def __init__(self) -> None:
        super().__init__(kept={})

    def set_password(self, service, name, secret):
        self.kept[service, name] = secret

    def get_password(self, service, name):
        return self.kept.get((service, name))

    def delete_password(self, service, name):
        del self.kept[service, name]


class Locked(Keyring):
    """A keyring whose owner is not there."""

    def set_password(self, *_):
        raise RuntimeError("locked")

    get_password = delete_password = set_password


class Forgetful(Keyring):
    """A keyring that keeps nothing, without saying so."""

    def set_password(self, *_):
        pass

    def delete_password(self, *_):
        raise RuntimeError("there is none")


def test_servers_are_added_changed_and_removed(folder, tmp_path):
    servers = Servers()
    make_certificate(tmp_path)[0].rename(tmp_path / "ca.pem")
    assert servers.all == () and servers.find("Lab") is None
    servers.add("Lab", "https://LAB-gpu:8471/", ca=tmp_path / "ca.pem")
    servers.add("Another", "localhost:8471")
    assert servers.all == (
        KnownServer("Another", "http://localhost:8471"),
        KnownServer("Lab", "https://lab-gpu:8471", str(tmp_path / "ca.pem")),
    )
    servers.add("LAB", "https://lab-gpu:9000")
    assert [server.address for server in servers.all] == ["http://localhost:8471", "https://lab-gpu:9000"]
    assert servers.find("lab") == servers.find("https://lab-gpu:9000") == KnownServer("LAB", "https://lab-gpu:9000")
    servers.remove("lab")
    with pytest.raises(ServerError, match="There is no server lab. The known servers: Another."):
        servers.remove("lab")


def test_a_token_is_in_the_keyring_and_nowhere_else(folder, monkeypatch):
    keyring = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    servers = Servers()
    assert servers.add("Lab", "https://lab:1", "secret") == "The token is in the keyring of the system."
    assert servers.token(servers.named("lab")) == "secret"
    assert "secret" not in "".join(file.read_text() for file in folder.iterdir())
    servers.add("Lab", "https://lab:2")
    assert keyring.kept == {} and servers.token(servers.named("lab")) is None


@pytest.mark.parametrize("keyring", [None, Locked(), Forgetful()])
def test_without_a_keyring_a_token_is_in_a_file_that_only_the_user_can_read(folder, monkeypatch, keyring):
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    servers = Servers()
    kept = servers.add("Lab", "https://lab:1", "secret")
    file = folder / TOKENS
    assert str(file) in kept and kept.endswith("which only you can read.")
    assert ("is not installed" in kept) == (keyring is None)
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert servers.token(servers.named("Lab")) == "secret"
    servers.remove("Lab")
    assert "secret" not in file.read_text()


def test_two_names_of_one_address_share_its_token(folder):
    servers = Servers()
    servers.add("A", "https://lab:1", "secret")
    servers.add("B", "https://lab:1")
    servers.remove("A")
    assert servers.token(servers.named("B")) == "secret"


@pytest.mark.parametrize(("typed", "token"), [("", "a" * 40), ("b" * 40, "b" * 40)])
def test_a_token_that_is_kept_need_not_be_typed_again(folder, monkeypatch, capsys, typed, token):
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or typed)
    Servers(folder).add("Lab", "https://lab", "a" * 40)
    assert main(["servers", "add", "other", "https://lab"]) == main(["servers", "add", "lab", "https://moved"]) == 0
    assert asked == [f"Token of {name}: press Enter): " for name in ("other (the one that is kept", "lab (none")]
    said = capsys.readouterr()
    assert ("Its token is kept as before." in said.out) == (typed == "") and said.err == ""
    assert Servers(folder).token(Servers(folder).named("other")) == token


def test_whoever_changes_an_address_in_the_list_gets_no_token(folder):
    servers = Servers()
    servers.add("Lab", "https://lab:1", "secret")
    text = (folder / LIST).read_text()
    (folder / LIST).write_text(text.replace("https://lab:1", "https://evil:1"))
    assert servers.named("Lab").address == "https://evil:1"
    assert servers.token(servers.named("Lab")) is None


@pytest.mark.parametrize("name", ["", " a", "a/b", "https://lab", "a\nb", 65 * "x", "lab:1"])
def test_names_that_could_be_addresses_or_confuse_are_refused(folder, name):
    with pytest.raises(ServerError, match="cannot be the name of a server"):
        Servers().add(name, "https://lab:1")


def test_what_is_not_valid_changes_nothing(folder, tmp_path):
    servers, token = Servers(), tmp_path / "token"
    token.write_text("no certificate")
    lab = "https://lab:1"
    for arguments in (("A", "lab:1"), ("A", lab, "two words"), ("A", lab, None, "none.pem"), ("A", lab, None, token)):
        with pytest.raises(ServerError):
            servers.add(*arguments)
    assert servers.all == () and not (folder / TOKENS).exists()


@pytest.mark.parametrize("content", [*WEIRD, *({"servers": value} for value in WEIRD if value != [])])
def test_a_damaged_list_is_named(folder, content):
    folder.mkdir(parents=True)
    (folder / LIST).write_text(json.dumps(content))
    with pytest.raises(ServerError, match=f"{LIST} cannot be read [(]"):
        _ = Servers().all


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"servers": [{"name": "a", "address": "lab:1"}]}'])
def test_a_list_that_is_cut_off_is_named(folder, text):
    folder.mkdir(parents=True)
    (folder / LIST).write_text(text)
    with pytest.raises(ServerError, match=f"{LIST} cannot be read [(]"):
        _ = Servers().all


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows write there anyway")
def test_a_folder_that_cannot_be_written(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    with pytest.raises(OutputError):
        Servers().add("Lab", "https://lab:1")


def test_a_folder_of_models_that_many_use_holds_no_list_of_servers(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "project" / "models"))
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / LIST).write_text('{"servers": [{"name": "lab", "address": "http://evil:1"}]}')
    assert Servers().all == ()
    Servers().add("lab", "https://lab:1", "secret")
    assert (folder / LIST).exists() and not (tmp_path / "project" / TOKENS).exists()


def test_the_commands(folder, tmp_path, monkeypatch, capsys):
    server = tmp_path / "server"
    secret = Tokens(server).make("anna")
    (tmp_path / "token").write_text(secret)
    voxels = np.random.default_rng(7).normal(0, 100, (20, 22, 24)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), tmp_path / "ct.nrrd")
    with quick_server(server, Offers(["toy-120"]), Quick(), monkeypatch, require_token=True) as api:
        assert main(["servers", "list"]) == ExitCode.OK
        assert "There is none yet" in capsys.readouterr().out
        add = ["servers", "add", "Lab", api.address]
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert main(add) == ExitCode.OK
        error = capsys.readouterr().err
        assert "You were not asked for the token of Lab" in error and "give --token-file, or set CLASSSCALESEG" in error
        add += ["--token-file", str(tmp_path / "token")]
        assert main(add) == ExitCode.OK
        said = capsys.readouterr()
        assert str(folder / TOKENS) in said.out and said.err == ""
        assert main(add[:4]) == ExitCode.OK  # as to change another option
        said = capsys.readouterr()
        assert said.out == f"Lab: {api.address}. Its token is kept as before.\n" and said.err == ""
        assert main(["servers", "test", "lab"]) == ExitCode.OK
        said = capsys.readouterr().out
        assert f"{api.address} runs ClassScaleSeg 0." in said and "It takes the token." in said
        assert "Devices: cpu" in said and "Models: toy-120." in said and "Jobs: 0 running, 0 waiting." in said
        for address in ("lab", api.address):
            words = ["segment", str(tmp_path / "ct.nrrd"), "-m", "toy-120", "--server", address]
            assert main([*words, "-o", str(tmp_path / "a.seg.nrrd"), "--overwrite"]) == ExitCode.OK
        capsys.readouterr()
        assert main(["servers", "list", "--json"]) == ExitCode.OK
        out = capsys.readouterr().out
        assert (
            json.loads(out) == [{"name": "Lab", "address": api.address, "ca": None, "insecure": False}]
            and secret not in out
        )
        Tokens(server).revoke("anna")
        assert main(["servers", "test", "Lab"]) == ExitCode.FAULT
        assert "does not take the token" in capsys.readouterr().err
    assert main(["servers", "remove", "LAB"]) == ExitCode.OK
    assert capsys.readouterr().out == "Lab is removed.\n"
    assert main(["servers", "test", "Lab"]) == ExitCode.FAULT


def test_a_token_of_the_environment_comes_before_that_of_the_list(folder, tmp_path, monkeypatch):
    from ClassScaleSegLib.commands.server_options import connect
    from ClassScaleSegLib.process.job import Job

    Servers().add("Lab", f"http://127.0.0.1:{free_port()}", "listed")
    job = Job(("ct.nrrd",), "toy-120", "a.nrrd", server="lab")
    assert connect(job, None).connection.token == "listed"
    monkeypatch.setenv("CLASSSCALESEG_TOKEN", "given")
    assert connect(job, None).connection.token == "given"


def test_a_token_that_a_program_of_windows_has_saved_is_read(tmp_path):
    (tmp_path / "token.txt").write_bytes(b"\xef\xbb\xbfcss_secret\r\n")
    assert check_token(read_token(tmp_path / "token.txt")) == "css_secret"


def test_a_server_without_models_or_devices_is_described(folder):
    with lying_server() as liar:
        liar.says("GET /v1/models", {"models": []})
        Servers().add("Lab", liar.address)
        assert Servers().test(Servers().named("Lab"))[1:3] == ["Devices: not stated.", "Models: none."]


def test_that_a_connection_may_be_open_to_others_is_said_once_for_a_server_of_the_list(folder, monkeypatch, capsys):
    monkeypatch.setattr(addresses, "is_private", lambda address: address.startswith("https"))
    monkeypatch.setattr(commands, "is_private", addresses.is_private)
    monkeypatch.setenv("CLASSSCALESEG_TOKEN", "secret")
    with lying_server() as liar:
        liar.says("GET /v1/models", {"models": []})
        add, test = ["servers", "add", "Lab", liar.address], ["servers", "test", "Lab"]
        assert main(add) == ExitCode.OK
        assert f"{liar.address} is not encrypted: others" in (said := capsys.readouterr().err)
        assert "Nothing is sent without --insecure" in said
        assert main(test) == ExitCode.USAGE and liar.requests == []
        assert "could read the token. Nothing was sent." in capsys.readouterr().err
        assert main([*test, "--insecure"]) == ExitCode.OK and len(liar.requests) == 2
        assert main(test) == ExitCode.USAGE, "for one time only"
        capsys.readouterr()
        assert main([*add, "--insecure"]) == ExitCode.OK
        assert "--insecure" not in capsys.readouterr().err
        assert main(test) == ExitCode.OK
        words = ["segment", "ct.nrrd", "-m", "toy-120", "-o", "a.nrrd", "--server", "lab"]
        assert main(words) == ExitCode.MODEL  # it was asked, and has none
        assert "has no model toy-120" in capsys.readouterr().err
        Servers().add("Lab", liar.address)  # with another token, as in the panel
        assert Servers().named("Lab").insecure
        Servers().add("Lab", "http://another:8471")
        assert not Servers().named("Lab").insecure


def test_a_list_of_an_older_version_allows_nothing(folder):
    folder.mkdir(parents=True)
    (folder / LIST).write_text('{"servers": [{"name": "Lab", "address": "http://lab:1", "ca": null}]}')
    assert Servers().named("Lab") == KnownServer("Lab", "http://lab:1")
    with Servers().segmenter(Servers().named("Lab")) as segmenter:  # without a token, it could be asked what it offers
        for send in (segmenter.upload, lambda image: segmenter.segment(image, "toy-120")):
            with pytest.raises(Unencrypted, match="could read the image. Nothing was sent."):
                send("ct.nrrd")


def test_name_and_address_are_taken_in_either_order(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for words in (["https://lab-gpu:8471", "lab"], ["lab", "https://lab-gpu:8471"]):
        assert main(["servers", "add", *words]) == ExitCode.OK
        assert capsys.readouterr().out == "lab: https://lab-gpu:8471\n"
        assert [(server.name, server.address) for server in Servers().all] == [("lab", "https://lab-gpu:8471")]
    for words in (["https://a:1", "https://b:2"], ["one", "two"]):
        assert main(["servers", "add", *words]) == ExitCode.FAULT
    assert "https://a:1" in capsys.readouterr().err
