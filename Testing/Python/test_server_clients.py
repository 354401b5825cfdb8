"""Clients of a server that do not read, do not write, are too many, or are pages of a browser: nobody else suffers."""

import random
import socket
import ssl
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("fastapi")
import requests  # noqa: E402
from ClassScaleSegLib.server import app, connections, converting, guard, jobs, receiving, responses, uploads  # noqa: E402
from ClassScaleSegLib.server.limits import Limits  # noqa: E402
from ClassScaleSegLib.server.tokens import Tokens  # noqa: E402
from live_server import SLOT, Ahead, Api, live_server  # noqa: E402
from server_api import self_signed  # noqa: E402
from server_child import (  # noqa: E402, F401  (fixtures)
    IMAGE,
    a_server,
    begin,
    connection,
    controlled_child,
    finished,
    is_closed,
    left,
    refused,
    remove,
    server_without_tokens,
    start,
    toy_offers,
    wait_until,
)


def test_a_client_that_stops_reading_events_harms_nobody(api, child, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_TO_READ", 1.0)
    monkeypatch.setattr(app, "_SECONDS_BETWEEN", 0.001)  # all 40 MB of messages are to be sent
    child.does("for number in range(20000): say(event='message', message='x' * 10000)")
    made, gone, waiting = [], [], [0]
    connected, lost = connections.Connection.connection_made, connections.Connection.connection_lost

    def note_made(each, transport):
        made.append((each, transport))
        connected(each, transport)

    monkeypatch.setattr(connections.Connection, "connection_made", note_made)
    monkeypatch.setattr(
        connections.Connection, "connection_lost", lambda each, exc: gone.append(each.client) or lost(each, exc)
    )
    before = psutil.Process().memory_info().rss
    name = start(api)
    with begin(api, f"GET /v1/jobs/{name}/events") as deaf:
        while api.wait(name, "running", "finished")["state"] == "running":
            begun = time.monotonic()
            assert api("get", "health").status_code == 200 and time.monotonic() - begun < 10
            waiting += [at.get_write_buffer_size() for each, at in made if each.client == deaf.getsockname()]
            time.sleep(0.02)
        assert 0 < max(waiting) < 1 << 20
        assert psutil.Process().memory_info().rss - before < 100 << 20
        assert wait_until(lambda: deaf.getsockname() in gone)
        assert is_closed(deaf)
    remove(api, name)


def test_room_that_is_reserved_and_not_used_is_free_again(tmp_path, monkeypatch):
    clock = Ahead(monkeypatch)
    monkeypatch.setattr(uploads, "SPARE_BYTES", 0)
    free = psutil.disk_usage(str(tmp_path)).free
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    half = free * 45 // 100
    with live_server(tmp_path / "server", toy_offers(), limits=Limits(upload_bytes=half)) as api:
        kept, slow = api.upload(IMAGE), api.announce(IMAGE).json()["id"]
        reserved = api.announce(b"", size=half).json()["id"]
        refused(api.announce(b"", size=half), 429, "too_many", "reserve half of the room.")
        for offset in range(3):  # as long as something arrives, it may take any time
            assert api.part(slow, offset, IMAGE[offset : offset + 1]).status_code == 200
            clock.runs(600)
        refused(api("get", f"uploads/{reserved}"), 404, "upload_unknown", "send it again")
        assert api.announce(b"", size=half).status_code == 201
        assert api("get", f"uploads/{kept}").json()["complete"], "an image that has arrived is kept"
        clock.runs(1000)
        assert len(api.files()) == 1


def test_a_token_cannot_reserve_the_room_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "SPARE_BYTES", 0)
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    folder = tmp_path / "server"
    anna, ben = (Tokens(folder).make(name) for name in ("anna", "ben"))
    with live_server(folder, toy_offers(), anna, require_token=True) as api:
        other = Api(api.address, folder, ben)
        refused(api.announce(b"", size=1001), 507, "disk_full", "no room")
        names = [api.announce(b"", size=size).json()["id"] for size in (300, 200)]
        refused(api.announce(b"", size=1), 429, "too_many", "Send or remove one.")
        assert other.announce(b"", size=500).status_code == 201, "one image may take all that is left"
        refused(other.announce(b"", size=1), 507, "disk_full")
        assert api("delete", f"uploads/{names[0]}").status_code == 204
        refused(api.announce(b"", size=100), 429, "too_many")  # the half of what others leave
        assert api.announce(b"", size=50).status_code == 201


def test_a_request_that_overtakes_the_removal_of_its_job_makes_no_other(api, child):
    upload, key = api.upload(IMAGE), "k" * 16
    name = start(api, upload, key=key, keep_images=True)
    remove(api, name)
    refused(api.job([upload], key=key, keep_images=True), 409, "key_taken", "was removed. Choose a new key")
    assert api("get", "health").json()["queue"] == {"waiting": 0, "running": 0}
    name = start(api, upload)  # runs when the removed one, which keeps the image, has ended
    assert api.wait(name)["state"] == "finished"
    remove(api, name)


def test_a_job_that_the_server_itself_has_removed_may_be_sent_again(api, child, monkeypatch):
    monkeypatch.setattr(jobs, "FETCHED_SECONDS", 0.0)
    name = finished(api, key="k" * 16)
    assert api("get", f"jobs/{name}/result").status_code == 200
    assert wait_until(lambda: api("get", f"jobs/{name}").status_code == 404)
    remove(api, finished(api, key="k" * 16))


def test_streams_of_a_job_are_counted(api, child):
    child.waits()
    name = start(api)
    opened = [begin(api, f"GET /v1/jobs/{name}/events") for _ in range(responses.STREAMS)]
    assert all(b"200 OK" in each.recv(1000) for each in opened)
    refused(api("get", f"jobs/{name}/events"), 429, "too_many", "16 connections")
    for each in opened:
        each.close()
    assert wait_until(lambda: api("get", f"jobs/{name}/events", stream=True).status_code == 200)
    remove(api, name)


def test_a_connection_without_a_request_is_closed(api, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_FOR_REQUEST", 0.4)
    for head in (b"", b"GET /v1/health HTTP/1.1\r\nHost: ", b"\r\n"):
        with connection(api) as opened:
            opened.sendall(head)
            assert is_closed(opened)
    with connection(api) as opened:  # a byte now and then does not help
        with pytest.raises(ConnectionError):
            for letter in b"GET /v1/health HTTP/1.1\r\nX: " + b"x" * 1000:
                opened.sendall(bytes([letter]))
                time.sleep(0.05)
    with begin(api, "GET /v1/health") as opened:  # the second request of a connection
        opened.recv(1000)
        opened.sendall(b"GET")
        assert is_closed(opened)


def test_a_client_that_goes_on_after_its_answer_is_let_go(tmp_path, child, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_FOR_REQUEST", 0.5)
    folder = tmp_path / "server"
    secret = Tokens(folder).make("anna")
    with a_server(folder, secret, require_token=True) as api:
        with begin(api, f"PATCH /v1/uploads/{'0' * 32}", "Transfer-Encoding: chunked", "Upload-Offset: 0") as opened:
            begun = time.monotonic()
            with pytest.raises(ConnectionError):
                while time.monotonic() - begun < 60:
                    opened.sendall(b"4\r\nabcd\r\n" * 100)
                    time.sleep(0.02)


def test_images_that_are_sent_at_the_same_moment_are_counted(api, monkeypatch):
    monkeypatch.setattr(uploads, "SENDING", 2)
    monkeypatch.setattr(receiving, "_BLOCK", 1)
    names = [api.announce(IMAGE).json()["id"] for _ in range(3)]
    opened = []
    for name in names[:2]:
        opened.append(begin(api, f"PATCH /v1/uploads/{name}", f"Content-Length: {len(IMAGE)}", "Upload-Offset: 0"))
        opened[-1].sendall(IMAGE[:50])
        assert wait_until(lambda name=name: api("get", f"uploads/{name}").json()["offset"] == 50)
    refused(api.part(names[2], 0, IMAGE), 429, "too_many", "2 images")
    for each in opened:
        each.close()
    assert wait_until(lambda: api.part(names[2], 0, IMAGE).status_code == 200)
    for name in names:
        assert api("delete", f"uploads/{name}").status_code == 204


@pytest.mark.parametrize("limit", ["CONNECTIONS", "CONNECTIONS_OF_ADDRESS"])
def test_connections_are_counted(api, monkeypatch, limit):
    monkeypatch.setattr(connections, limit, 6)
    monkeypatch.setattr(connections, "is_loopback", lambda address: limit == "CONNECTIONS")
    opened = [connection(api) for _ in range(10)]
    assert wait_until(lambda: sum(is_closed(each) for each in opened if each.settimeout(0.2) is None) >= 4)
    for each in opened:
        each.close()
    assert wait_until(lambda: asks(api, "health") == 200)


def asks(api: Api, path: str) -> int | None:
    try:
        return requests.get(f"{api.address}/v1/{path}", timeout=30).status_code
    except requests.ConnectionError:
        return None


def test_a_body_that_never_ends_is_given_up(api, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS_FOR_BYTES", 0.3)
    for headers in (("Content-Length: 100",), ("Transfer-Encoding: chunked",)):
        kind = "Content-Type: application/json"
        with begin(api, "POST /v1/jobs", kind, *headers, body=b'2\r\n{"\r\n') as opened:
            assert b"408 Request Timeout" in opened.recv(1000)
    monkeypatch.setattr(guard, "SECONDS_FOR_BYTES", 60.0)
    with begin(api, "POST /v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked") as opened:
        try:
            for _ in range(200):
                opened.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        except ConnectionError:
            pass
        else:
            assert b"413 " in opened.recv(1000)


def test_images_of_a_token_are_counted(api, monkeypatch):
    monkeypatch.setattr(uploads, "UPLOADS", 3)
    names = [api.announce(IMAGE).json()["id"] for _ in range(3)]
    refused(api.announce(IMAGE), 429, "too_many", "3 images")
    for name in names:
        assert api("delete", f"uploads/{name}").status_code == 204


def test_results_of_a_token_are_counted_and_failed_jobs_make_room(api, child, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT", 3)
    child.does("raise SystemExit(1)")
    failed = [start(api) for _ in range(2)]
    assert [api.wait(name)["state"] for name in failed] == ["failed"] * 2
    child.does("")
    kept = [finished(api) for _ in range(3)]
    assert [api("get", f"jobs/{name}").status_code for name in (*failed, *kept)] == [404, 404, 200, 200, 200]
    upload = api.upload(IMAGE)
    refused(api.job([upload]), 429, "too_many", "3 results")
    remove(api, kept[0])
    remove(api, *kept[1:], start(api, upload))


def test_images_that_wait_for_parts_hold_no_file_open(api):
    before = psutil.Process().num_fds() if hasattr(psutil.Process(), "num_fds") else None
    names = [api.announce(IMAGE).json()["id"] for _ in range(20)]
    for name in names:
        assert api.part(name, 0, IMAGE[:50]).status_code == 200
    assert before is None or psutil.Process().num_fds() < before + 10
    for name in names:
        assert api.part(name, 50, IMAGE[50:]).json()["complete"]
        assert api("delete", f"uploads/{name}").status_code == 204


def test_conversions_do_not_hold_up_images(api, monkeypatch):
    name = finished(api)
    wait = threading.Event()
    monkeypatch.setattr(converting, "_convert", lambda file, path, kind: wait.wait(60) and path.write_bytes(b""))
    asked = [begin(api, f"GET /v1/jobs/{name}/result", "Accept: application/x-nifti") for _ in range(50)]
    time.sleep(0.3)
    upload = api.upload(IMAGE)
    wait.set()
    assert all(b"200 OK" in each.recv(1000) for each in asked)
    for each in asked:
        each.close()
    remove(api, name, start(api, upload))


def test_files_that_take_long_to_remove_do_not_hold_up_others(api, child, monkeypatch):
    real, removing, go_on = Path.unlink, threading.Event(), threading.Event()

    def slow(path, **more):
        removing.set()
        go_on.wait(60)
        real(path, **more)

    monkeypatch.setattr(Path, "unlink", slow)
    child.waits()
    running, waiting = start(api), start(api)
    upload = api.upload(IMAGE)
    for path in (f"uploads/{upload}", f"jobs/{waiting}", f"jobs/{running}"):
        go_on.clear()
        thread = threading.Thread(target=api, args=("delete", path))
        thread.start()
        assert removing.wait(60), path
        for ask in ("health", f"uploads/{'0' * 32}", f"jobs/{'0' * 32}"):
            assert requests.get(f"{api.address}/v1/{ask}", timeout=30).status_code in (200, 404), (path, ask)
        removing.clear()
        go_on.set()
        thread.join()


def test_old_kinds_of_tls_are_refused(tmp_path):
    key, certificate = self_signed(tmp_path)
    with live_server(tmp_path / "server", toy_offers(), certificate=certificate, certificate_key=key) as api:
        host, port = api.address[8:].split(":")
        for ciphers, accepted in (("ECDHE+AESGCM", True), ("ECDHE-ECDSA-AES128-SHA", False), ("AES128-SHA", False)):
            context = ssl.create_default_context(cafile=certificate)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            with socket.create_connection((host, int(port)), timeout=30) as opened:
                if accepted:
                    context.wrap_socket(opened, server_hostname=host).close()
                else:
                    with pytest.raises(ssl.SSLError):
                        context.wrap_socket(opened, server_hostname=host)


@pytest.mark.parametrize("site, status", [("cross-site", 403), ("same-site", 403), ("none", 200), (None, 200)])
def test_pages_of_a_browser_stay_outside_also_if_they_only_show_an_answer(api, site, status):
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    assert api("get", "models", headers=headers).status_code == status


@pytest.mark.parametrize(
    "host, status",
    [(host, 200) for host in ("127.0.0.1", "127.0.0.2:8471", "LOCALHOST:1", "[::1]:8471")]
    + [(host, 403) for host in ("", "::1", "10.0.0.1", "0.0.0.0", "2130706433", "[::ffff:10.0.0.1]", "localhost:80:80")]
    + [(host, 403) for host in ("localhost.evil.example", "127.0.0.1.evil.example", "evil@localhost")],
)
def test_only_names_of_this_machine_lead_to_a_server_without_tokens(api, host, status):
    assert api("get", "health", headers={"Host": host}).status_code == status


def test_clients_that_do_everything_at_once_leave_nothing(tmp_path, child):
    """Nine clients of three tokens send, ask, break off and remove at random; all answers are documented ones."""
    folder = tmp_path / "server"
    secrets = {name: Tokens(folder).make(name) for name in ("anna", "ben", "carl")}
    known = {name: {"uploads": ["0" * 32], "jobs": ["0" * 32]} for name in secrets}
    statuses, until = set(), time.monotonic() + 8
    child.does("import random; time.sleep(random.random() / 5)\nif random.random() < 0.2: raise SystemExit(1)")

    def work(name: str, seed: int, address: str) -> None:
        chance, mine, api = random.Random(seed), known[name], Api(address, folder, secrets[name])
        while time.monotonic() < until:
            upload, job = (chance.choice(mine[kind][-8:]) for kind in ("uploads", "jobs"))
            other = chance.choice(known[chance.choice(list(known))]["jobs"][-5:])
            offset, accept = chance.choice((0, 50)), chance.choice(("*/*", "text/csv", "application/x-nifti"))
            steps = (
                lambda: api.announce(IMAGE, key=f"{chance.randrange(50):016}"),
                lambda upload=upload, offset=offset: api.part(upload, offset, IMAGE[offset : offset + 100]),
                lambda upload=upload: api.part(upload, 0, IMAGE),
                lambda upload=upload: api.job([upload], keep_images=chance.random() < 0.5),
                lambda job=job: api("get", f"jobs/{job}/events", stream=chance.random() < 0.5),
                lambda job=job, accept=accept: api("get", f"jobs/{job}/result", headers={"Accept": accept}),
                lambda job=job: api("delete", f"jobs/{job}"),
                lambda upload=upload: api("delete", f"uploads/{upload}"),
                lambda other=other: api("get", f"jobs/{other}"),
            )
            try:
                answer = chance.choice(steps)()
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):  # removed while it was sent
                continue
            statuses.add(answer.status_code)
            if answer.status_code == 201:
                kind = answer.request.path_url.rpartition("/")[2]
                mine[kind].append(answer.json()["id"])
            answer.close()
            api.session.close()

    limits = Limits(keep_seconds=2, job_seconds=1)
    with a_server(folder, secrets["anna"], require_token=True, slots=(SLOT, SLOT), limits=limits) as api:
        arguments = [(name, seed, api.address) for seed, name in enumerate(list(secrets) * 3)]
        clients = [threading.Thread(target=work, args=each) for each in arguments]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert {200, 201, 204, 404, 409} <= statuses <= {200, 201, 204, 404, 409, 422, 429}, statuses
        assert wait_until(lambda: left(api) == [], 60)  # what nobody fetches is removed after two seconds
