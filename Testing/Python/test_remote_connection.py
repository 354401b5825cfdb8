"""The connection to a server: each way to fail is one sentence that names the address and says what to do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from archive_server import make_certificate
from ClassScaleSegLib import addresses
from ClassScaleSegLib.errors import Cancelled, ServerError
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.process.exit_codes import ExitCode, exit_code
from ClassScaleSegLib.remote import exchange
from ClassScaleSegLib.remote.address import check_address
from ClassScaleSegLib.remote.connection import Connection
from ClassScaleSegLib.remote.faults import Unencrypted
from ClassScaleSegLib.server.offers import Offers
from live_server import live_server
from remote_fixtures import Clock, free_port, lying_server
from server_api import self_signed

SECRET = "a-secret-token"


@pytest.fixture(scope="module")
def offers():
    return Offers(["toy-120"])


@pytest.fixture
def liar():
    with lying_server() as server:
        yield server


def said(connection: Connection) -> str:
    """The sentence with which asking for the health fails."""
    with pytest.raises(ServerError) as caught:
        connection.health()
    connection.close()
    text = str(caught.value)
    assert exit_code(caught.value) == ExitCode.FAULT
    assert SECRET not in text and "\n" not in text and text.endswith(".") and len(text) < 600
    return text


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("https://lab-gpu:8471", "https://lab-gpu:8471"),
        (" HTTP://Lab-GPU:8471/ ", "http://lab-gpu:8471"),
        ("localhost:8471", "http://localhost:8471"),
        ("127.0.0.1:8471", "http://127.0.0.1:8471"),
        ("[::1]:8471", "http://[::1]:8471"),
        ("https://gpu.example.org", "https://gpu.example.org"),
        ("http://lab_gpu:08471", "http://lab_gpu:8471"),
        ("https://bücher.example:", "https://bücher.example"),
        ("http://[FE80::1]", "http://[fe80::1]"),
    ],
)
def test_an_address_gets_its_usual_form(given, address):
    assert check_address(given) == address


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("lab-gpu:8471", "Write https://lab-gpu:8471, or http://lab-gpu:8471 if"),
        ("lab-gpu", "Write https://lab-gpu, or"),
        ("https://lab-gpu:8471/v1", "Leave out what follows: https://lab-gpu:8471."),
        ("https://lab-gpu:8471?token=hidden", "Leave out what follows: https://lab-gpu:8471."),
        ("https://me:hidden@lab-gpu:8471", "user or password"),
        ("ftp://lab-gpu", "is not the address of a server. Write it as https://lab-gpu:8471."),
        ("http://", "is not the address of a server"),
        ("http://a b", "is not the address of a server"),
        ("http://lab-gpu:99999", "is not the address of a server"),
        ("http://" + 300 * "x", "is not the address of a server"),
        ("", "is not the address of a server"),
        (r"https://evil.org\.lab.org", "is not the address of a server"),
        ("https://evil.org;.lab.org", "is not the address of a server"),
        ("https://evil.org%2f.lab.org", "is not the address of a server"),
        ("http://[::g]", "is not the address of a server"),
        ("http://a:b:1", "is not the address of a server"),
    ],
)
def test_an_address_that_is_none_is_refused_with_the_right_spelling(given, sentence):
    with pytest.raises(ServerError) as caught:
        Connection(given)
    assert sentence in str(caught.value) and "hidden" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "tökén", "a\nb", 2000 * "x"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token):
    with pytest.raises(ServerError, match="must be a single word") as caught:
        Connection("localhost:1", token)
    assert not token or token not in str(caught.value)


def test_the_token_is_not_shown():
    assert SECRET not in repr(Connection("localhost:1", SECRET))


def test_a_token_that_others_could_read_is_not_sent_unless_that_is_allowed(liar, monkeypatch):
    with pytest.raises(
        Unencrypted, match="lab-gpu:8471 is not encrypted, so others in the network could read the token"
    ):
        Connection("http://lab-gpu:8471", SECRET, insecure=False)
    for address, token in (("https://lab-gpu:8471", SECRET), ("localhost:1", SECRET), ("http://lab-gpu:8471", None)):
        Connection(address, token, insecure=False)
    monkeypatch.setattr(addresses, "is_private", lambda address: False)
    with pytest.raises(Unencrypted):
        Connection(liar.address, SECRET, insecure=False).health()
    assert liar.requests == []
    Connection(liar.address, SECRET, insecure=True).another().health()
    assert liar.requests[0][2]["Authorization"] == f"Bearer {SECRET}"


def test_a_server_that_does_not_run():
    address = f"http://127.0.0.1:{free_port()}"
    text = said(Connection(address))
    assert text.startswith(f"{address} cannot be reached") and "whether the server runs" in text


def test_a_name_that_no_machine_has():
    assert "cannot be reached" in said(Connection("https://no-such-machine.invalid"))


def test_another_server(liar):
    del liar.answers["GET /v1/health"]
    assert said(Connection(liar.address)).startswith(f"{liar.address} is not a server of ClassScaleSeg (status 404)")
    liar.says("GET /v1/health", {"detail": "Not Found"}, 404)
    assert "is not a server of ClassScaleSeg" in said(Connection(liar.address))
    liar.says("GET /v1/health", {"service": "MONAILabel", "api": 1})
    assert "is not a server of ClassScaleSeg" in said(Connection(liar.address))
    liar.says("GET /v1/health", ["ClassScaleSeg"])
    assert "is not a server of ClassScaleSeg" in said(Connection(liar.address))
    liar.answers["GET /v1/health"] = (200, {}, b"[" * 100_000)
    assert "is not a server of ClassScaleSeg" in said(Connection(liar.address))


def test_a_port_that_does_not_speak_http():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):  # the test has ended
                while True:
                    client, _ = listening.accept()
                    with client:
                        client.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
                        client.recv(1000)

        threading.Thread(target=answer, daemon=True).start()
        text = said(Connection(f"http://127.0.0.1:{listening.getsockname()[1]}"))
    assert "is not a server of ClassScaleSeg (it does not speak HTTP)" in text


@pytest.mark.parametrize(("api", "where"), [(2, "here"), (0, "there")])
def test_another_version_says_which_one_to_update(liar, api, where):
    liar.health(api=api, version="7.1.0")
    text = said(Connection(liar.address))
    assert "ClassScaleSeg 7.1.0" in text and text.endswith(f"Update ClassScaleSeg {where}.")


def test_a_redirect_is_not_followed(liar):
    with lying_server() as other:
        liar.answers["GET /v1/health"] = (307, {"Location": f"{other.address}/v1/health"}, b"")
        text = said(Connection(liar.address, SECRET))
        assert f"leads to {other.address}/v1/health, where nothing was sent" in text
        assert other.requests == []


def test_http_where_https_is_spoken_and_the_other_way_round(liar, tmp_path):
    with lying_server(*make_certificate(tmp_path)) as encrypted:
        address = encrypted.address.replace("https", "http")
        assert said(Connection(address, SECRET)) == (f"{address} speaks https, not http. Write {encrypted.address}.")
    text = said(Connection(liar.address.replace("http", "https"), SECRET))
    assert f"speaks http, not https. If that is right, write {liar.address};" in text


def test_a_certificate_is_trusted_only_if_it_is_named(tmp_path):
    certificate, key = make_certificate(tmp_path)
    with lying_server(certificate, key) as server:
        text = said(Connection(server.address, SECRET))
        assert "is not trusted" in text and "--server-ca" in text
        assert server.requests == []
        assert Connection(server.address, SECRET, ca=certificate).health().version == "0.2.0"
        assert server.requests[0][2]["Authorization"] == f"Bearer {SECRET}"
        (tmp_path / "other").mkdir()
        other, _ = make_certificate(tmp_path / "other")
        assert "is not trusted" in said(Connection(server.address, SECRET, ca=other))
    (tmp_path / "token").write_text(SECRET)
    with pytest.raises(ServerError, match="token is not a certificate in PEM"):
        Connection(server.address, ca=tmp_path / "token")
    with pytest.raises(ServerError, match="nowhere.pem does not exist"):
        Connection(server.address, ca=tmp_path / "nowhere.pem")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("local", [True, False])
def test_a_named_certificate_counts_more_than_those_of_the_environment(tmp_path, monkeypatch, variable, local):
    (tmp_path / "other").mkdir()
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv(variable, str(make_certificate(tmp_path / "other")[0]))
    monkeypatch.setattr(exchange, "is_this_machine", lambda address: local)
    with lying_server(certificate, key) as server:
        assert Connection(server.address, SECRET, ca=certificate).health().version == "0.2.0"
        assert "is not trusted" in said(Connection(server.address, SECRET))


def test_a_certificate_for_another_name_says_so(tmp_path):
    certificate, key = make_certificate(tmp_path, "DNS:lab-gpu.example.org")
    with lying_server(certificate, key) as server:
        text = said(Connection(server.address, SECRET, ca=certificate))
        assert "is for another name" in text and "--server-ca" not in text
        assert server.requests == []


def test_a_certificate_that_has_expired_says_so(tmp_path):
    key, certificate = self_signed(tmp_path, hours=-1)
    with lying_server(certificate, key) as server:
        text = said(Connection(server.address, SECRET, ca=certificate))
        assert f"The certificate of {server.address} has expired. Ask" in text and "--server-ca" not in text
        assert server.requests == []


def test_tokens_of_the_real_server(tmp_path, offers):
    from ClassScaleSegLib.server.tokens import Tokens

    secret = Tokens(tmp_path).make("anna")
    with live_server(tmp_path, offers, require_token=True) as api:
        assert f"{api.address} asks for a token. Put it into" in said(Connection(api.address))
        assert f"{api.address} does not take the token." in said(Connection(api.address, SECRET))
        found = Connection(api.address, f" {secret}\n").health()
        assert (found.token, found.waiting, found.running) == ("accepted", 0, 0) and "cpu" in found.devices[0]


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(liar, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert Connection(liar.address).health().instance == "a"


def test_a_proxy_that_fails_is_named(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert "the proxy failed" in said(Connection("http://lab-gpu.invalid:8471"))


def test_no_password_of_netrc_is_sent(liar, monkeypatch, tmp_path):
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(file))
    Connection(liar.address).health()
    assert "Authorization" not in liar.requests[0][2]


def test_an_answer_without_end_is_not_read_to_its_end(liar, monkeypatch):
    monkeypatch.setattr(exchange, "LARGEST_JSON", 1000)
    liar.health(version="x" * 2000)
    assert "sends more than the 1000 bytes" in said(Connection(liar.address))


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (507, "disk_full", "has no room on its disk. Sorry."),
        (413, "too_large", ": Sorry."),
        (422, "invalid", ": Sorry."),
        (403, "forbidden", ": Sorry."),
        (401, "token_wrong", "does not take the token"),
    ],
)
def test_what_the_server_refuses_is_told_with_its_address(liar, status, code, sentence):
    liar.says("GET /v1/models", {"error": {"code": code, "message": "Sorry."}}, status)
    with pytest.raises(ServerError) as caught:
        Connection(liar.address).ask("GET", "/v1/models", Monitor())
    assert str(caught.value).startswith(liar.address) and sentence in str(caught.value)


def test_letters_that_control_a_terminal_are_not_passed_on(liar):
    liar.says("GET /v1/models", {"error": {"code": "invalid", "message": "a\x1b[2Jb\n" + 5000 * "c"}}, 422)
    with pytest.raises(ServerError) as caught:
        Connection(liar.address).ask("GET", "/v1/models", Monitor())
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_server_that_takes_no_more_is_asked_again_for_a_while(liar, monkeypatch):
    Clock(monkeypatch)
    liar.says("GET /v1/models", {"error": {"code": "too_many", "message": "20 jobs."}}, 429)
    with pytest.raises(ServerError, match="takes no more at the moment. 20 jobs."):
        Connection(liar.address).ask("GET", "/v1/models", Monitor())
    assert liar.count("GET /v1/models") > 20


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_that_breaks_off_in_its_headers_is_asked_for_again(liar, status):
    connection = Connection(liar.address)
    connection.health()
    liar.answers["GET /v1/models"] = (status, {}, b"")
    liar.later["GET /v1/models"] = (2, {"models": []})
    assert connection.ask("GET", "/v1/models", Monitor()) == {"models": []}


def test_a_server_that_is_away_for_a_while_is_asked_again(liar):
    connection = Connection(liar.address)
    liar.says("GET /v1/models", {"error": {"code": "stopping", "message": "Later."}}, 503)
    liar.later["GET /v1/models"] = (2, {"models": []})
    assert connection.ask("GET", "/v1/models", Monitor()) == {"models": []}
    assert liar.count("GET /v1/models") == 3


def test_a_user_is_told_once_that_the_server_is_away(liar, monkeypatch):
    Clock(monkeypatch)
    connection, heard = Connection(liar.address), []
    connection.health()
    liar.says("GET /v1/models", {"error": {"code": "stopping", "message": "Later."}}, 503)
    liar.later["GET /v1/models"] = (20, {"models": []})
    connection.ask("GET", "/v1/models", Monitor(lambda report: heard.append(report.message)))
    assert heard == [f"{liar.address} does not answer. It is asked again, for 10 minutes at most."]


def test_a_server_that_was_not_asked_for_long_is_asked_again(liar):
    connection = Connection(liar.address)
    connection.health()
    connection._contact -= 3600  # as of a notebook
    liar.says("GET /v1/models", {"error": {"code": "stopping", "message": "Later."}}, 503)
    liar.later["GET /v1/models"] = (1, {"models": []})
    assert connection.ask("GET", "/v1/models", Monitor()) == {"models": []}


def test_a_server_that_stays_away_is_given_up(monkeypatch):
    Clock(monkeypatch)
    with lying_server() as server:
        connection = Connection(server.address)
        connection.health()
        connection.close()
    with pytest.raises(ServerError, match=r"has not answered for 600 s. Its last fault: .* connection was lost"):
        connection.ask("GET", "/v1/models", Monitor(cancel=Deadline(100)))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_whose_server_stays_away_is_given_up(liar, monkeypatch, status):
    Clock(monkeypatch)
    connection = Connection(liar.address)
    connection.health()
    liar.answers["GET /v1/models"] = (status, {"Content-Type": "text/html"}, b"<h1>Bad Gateway</h1>")
    with pytest.raises(ServerError, match=rf"has not answered for 600 s. .* \(status {status}\)"):
        connection.ask("GET", "/v1/models", Monitor(cancel=Deadline(100)))


class Deadline:
    """Set after some seconds, so that a test that would last for ever fails."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def is_set(self) -> bool:
        return time.monotonic() > self._end


def test_a_server_that_does_not_answer_does_not_hold_up_cancelling():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        cancel = threading.Event()
        threading.Timer(0.3, cancel.set).start()
        begin = time.monotonic()
        with pytest.raises(Cancelled):
            Connection(f"http://127.0.0.1:{listening.getsockname()[1]}").health(Monitor(cancel=cancel))
        assert time.monotonic() - begin < 15  # the connection itself would wait for 30 s


def test_a_description_that_is_odd_is_shown_as_text(liar):
    liar.health(devices=[{"name": "cuda:0", "about": "\x1b[31mGPU"}, 7, {"name": None}], queue={"waiting": -1})
    found = Connection(liar.address).health()
    assert found.devices == ("cuda:0 ([31mGPU)", "") and (found.waiting, found.running) == (0, 0)
