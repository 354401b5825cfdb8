"""The server fuzzed against its own description: no fault of its own, no answer that it does not describe."""

import json
import os
import re
import secrets
import socket
import tempfile
from contextlib import suppress

import pytest

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")
from ClassScaleSegLib.server.limits import Limits  # noqa: E402
from ClassScaleSegLib.server.tokens import Tokens  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import seed as seeded  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from live_server import live_server  # noqa: E402
from schemathesis.checks import CHECKS, load_all_checks  # noqa: E402
from server_child import SAMPLE, fake_child, toy_offers, without_faults  # noqa: E402

EXAMPLES = int(os.environ.get("SERVER_FUZZ_EXAMPLES", "25"))  # of each route; to fuzz for longer
SEED = int(os.environ.get("SERVER_FUZZ_SEED", "1"))
CHECKED = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]


def fuzz(api, description: dict, examples: int, headers: dict[str, str]) -> dict[str, set[int]]:
    """Send what hypothesis makes up to each route, often with ids that exist; return the statuses of each."""
    found = schemathesis.openapi.from_dict(description).get_all_operations()
    return {operation.ok().label: fuzz_route(api, operation.ok(), examples, headers) for operation in found}


def fuzz_route(api, operation, examples: int, headers: dict[str, str]) -> set[int]:
    load_all_checks()
    checks, statuses = CHECKS.get_by_names(CHECKED), set()

    @seeded(SEED)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), real=st.booleans(), finished=st.booleans())
    def one(case, real, finished) -> None:
        if real:
            known = {"upload_id": api.an_upload, "job_id": api.a_result if finished else api.a_job}
            for name in case.path_parameters or {}:
                case.path_parameters[name] = known.get(name, "toy-120")
        if real and isinstance(case.body, dict) and "models" in case.body:
            case.body |= {"models": ["toy-120"], "images": [api.an_upload], "keep_images": True}
        if operation.method == "delete" and real:
            return  # they are needed
        answer = case.call(base_url=api.address, headers=headers, timeout=30, session=api.session)
        case.validate_response(answer, checks=checks)
        statuses.add(answer.status_code)
        if answer.status_code == 201:
            path = f"{operation.path.removeprefix('/v1/')}/{answer.json()['id']}"
            assert api("DELETE", path).status_code == 204

    one()
    return statuses


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a token, an image, a job that does not end by itself, and one that is finished."""
    folder = tmp_path_factory.mktemp("fuzzed")
    secret = Tokens(folder / "server").make("anna")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        child = fake_child(folder / "child", monkeypatch)
        settings = {"require_token": True, "limits": Limits(job_seconds=0.5)}
        with live_server(folder / "server", toy_offers(), secret, **settings) as api:
            wanted = {"confidence": True, "statistics": True}
            for _ in range(9):  # on a machine that stands still, its time may be over
                api.a_result = api.job([api.upload(SAMPLE.read_bytes())], **wanted).json()["id"]
                if api.wait(api.a_result)["state"] == "finished":
                    break
            child.waits()
            api.an_upload = api.upload(SAMPLE.read_bytes())
            api.a_job = api.job([api.an_upload], keep_images=True).json()["id"]
            api.head = (f"Host: {api.address[7:]}", f"Authorization: Bearer {secret}")
            yield api


@pytest.fixture
def api(server):
    """The server, which in the end must still answer, and must not have logged a fault of its own."""
    with without_faults(server, "accepted"):
        yield server


def test_every_route_answers_what_it_describes(api):
    seen = fuzz(api, api("GET", "openapi.json").json(), EXAMPLES, {})
    assert 200 in seen["GET /v1/jobs/{job_id}/result"] and 201 in seen["POST /v1/uploads"], seen
    assert {200, 201, 404, 409, 422} <= set.union(*seen.values()), seen


def test_nobody_comes_in_without_a_token(api):
    seen = fuzz(api, api("GET", "openapi.json").json(), 5, {"Authorization": "Bearer css_guess"})
    assert seen.pop("GET /v1/health") == {200}
    assert all(statuses <= {401} for statuses in seen.values()), seen


def raw(api, request: bytes, ends: bool = True) -> bytes:
    """Send bytes as they are, and return what the server sends until it closes the connection or says no more.

    :param ends: tell it that no more bytes will come.
    """
    host, port = api.address[7:].split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with suppress(OSError):  # it may have closed the connection already
            connection.sendall(request)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                answer += part
                if not ends and b"\r\n\r\n" in answer:
                    break
    return answer


def status(answer: bytes) -> int | None:
    return int(answer[9:12]) if re.match(rb"HTTP/1.1 \d{3} ", answer) else None


def request(api, line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", *api.head, *headers, "", "")).encode() + body


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda api: request(api, "GET /v1/models", f"X-Long: {'x' * (1 << 20)}"), {400, None}),
        (lambda api: request(api, "GET /v1/models", *(f"X-{number}: 1" for number in range(20_000))), {400, None}),
        (lambda api: request(api, "GET /v1/" + "a" * (1 << 20)), {400, None}),
        (lambda api: request(api, "POST /v1/jobs", "Content-Length: 2", "Content-Length: 3", body=b"{}}"), {400}),
        (lambda api: request(api, "POST /v1/jobs", "Content-Length: -1", body=b"{}"), {400}),
        (lambda api: request(api, "POST /v1/jobs", "Content-Length: 1e3", body=b"{}"), {400}),
        (lambda api: request(api, "POST /v1/jobs", f"Content-Length: {'9' * 5000}", body=b"{}"), {400, 413}),
        (lambda api: request(api, "POST /v1/jobs", "Content-Length: 5000", body=b"{}"), {400, None}),
        (lambda api: request(api, "POST /v1/jobs", "Transfer-Encoding: gzip", body=b"{}"), {400, 501}),
        (lambda api: request(api, "POST /v1/jobs", "Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n"), {400, None}),
        (lambda api: request(api, "POST /v1/jobs", "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n"), {400, None}),
        (lambda api: request(api, "GET /v1/models", f"Host: {'evil.example'}"), {400}),
        (lambda api: b"GET /v1/models HTTP/1.1\r\n\r\n", {400}),
        (lambda api: b"GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n", {400, 401, 505}),
        (lambda api: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}),  # TLS
        (lambda api: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 401}),
        (lambda api: b"\r\n" * 100_000, {400, None}),
        (lambda api: b"GET  /v1/models  HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (lambda api: request(api, "GET /v1/models\tx"), {400}),
        (lambda api: request(api, "GET http://evil.example/v1/models"), {404}),
        (lambda api: request(api, "GET /v1/models", "X: a\x00b"), {400}),
        (lambda api: request(api, "GET /v1/models", "X: a\r\n folded"), {200, 400}),
        (lambda api: request(api, "CONNECT evil.example:443"), {404, 405, 400}),
        (lambda api: request(api, "OPTIONS *"), {404, 405}),
        (lambda api: request(api, "GET /v1/models", "Connection: Upgrade", "Upgrade: websocket"), {200}),
        (lambda api: request(api, "GET /v1/models") * 50, {200}),
    ],
)
def test_broken_http_is_refused(api, make, expected):
    assert status(raw(api, make(api))) in expected


@seeded(SEED)
@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(start=st.sampled_from((b"", b"GET /v1/health HTTP/1.1\r\n", b"POST /v1/jobs HTTP/1.1\r\n")), rest=st.binary())
def test_random_bytes_are_refused(api, start, rest):
    assert status(raw(api, start + rest + b"\r\n\r\n")) in {400, 401, None}


DEEP = b'{"key": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body, expected",
    [
        (DEEP, 400),
        (b'{"key": ' * 50_000, 400),
        (b'{"key": "' + b"\xff" * 20 + b'"}', 400),
        (b'{"key": "\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800"}', 422),
        (b'{"key": NaN}', 422),
        (b'{"size": ' + b"9" * 5000 + b"}", 400),
        (b'{"size": 1e999}', 422),
        (b'{"size": -0}', 422),
        (b'{"size": true}', 422),
        (b'{"key": "0123456789abcdef\\n"}', 422),
        (b'{"a": 1, "a": 2}', 422),
        (b"\xef\xbb\xbf{}", 422),
        (b'"' + "é".encode("utf-16") + b'"', 400),
        (b"[]", 422),
        (b"null", 422),
        (b"", 422),
        (b"x" * (1 << 20), 400),
        (b"x" * ((1 << 20) + 1), 413),
    ],
    ids=lambda given: repr(given)[:40],
)
@pytest.mark.parametrize("route", ["uploads", "jobs"])
@pytest.mark.parametrize("chunked", [False, True])
def test_json_that_is_none_is_refused(api, body, expected, route, chunked):
    sent = iter([body]) if chunked and body else body
    answer = api("POST", route, data=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == expected, answer.text
    assert answer.json()["error"]["message"] and len(answer.content) < 1000


@pytest.mark.parametrize(
    "options, expected",
    [
        ('{"step": NaN}', "step"),
        (f'{{"step": "{"x" * 500_000}"}}', "step"),
        (f'{{"{"x" * 500_000}": 1}}', "no option"),
        ('{"step": Infinity}', "step"),
        ('{"step": 1e-300}', None),
        ('{"smooth": 1e999}', "smooth"),
        ('{"classes": ["\\ud800"]}', None),
        ('{"classes": ["' + "a" * 100_000 + '", {}]}', "classes"),
        ('{"folds": ["../../../etc"]}', None),
        ('{"folds": ["0\\u0000"]}', None),
        ('{"configuration": "../../etc/passwd"}', None),
        ('{"locate_with": "/etc/passwd"}', "no model"),
        ('{"locate_with": "\\u0000"}', "no model"),
        ('{"locate_with": ["toy-120"]}', "locate_with"),
        ('{"device": "cpu"}', "no option device"),
        ('{"threads": 1}', "no option threads"),
        ('{"checkpoint": "best"}', "no option"),
        ('{"__class__": 1}', "no option"),
        ('{"\\ud800": 1}', "no option"),
        ('{"interpolation": {"linear": 1}}', "interpolation"),
        ('{"mirroring": 1}', "mirroring"),
        ('{"step": ' + "[" * 500 + "]" * 500 + "}", "step"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_options_that_are_none_are_refused(api, options, expected):
    facts = {"key": secrets.token_hex(16), "models": ["toy-120"], "images": [api.an_upload], "keep_images": True}
    body = f'{json.dumps(facts)[:-1]}, "options": {options}}}'
    answer = api("POST", "jobs", data=body.encode(), headers={"Content-Type": "application/json"})
    if expected is None:  # what only the model can tell
        assert answer.status_code == 201, answer.text
        assert api("DELETE", f"jobs/{answer.json()['id']}").status_code == 204
    else:
        assert answer.status_code in (404, 422) and expected in answer.json()["error"]["message"], answer.text
        assert len(answer.content) < 5000


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", "..%2f..%2ftokens.json", "%00", "%ff", "%0a", "0" * 31 + "%00", "0" * 32 + "%0a", "A" * 32]
    + ["0" * 33, "%d9%a0" * 32, "a" * 10_000, "%2f" * 3, "{upload_id}", "%ed%a0%80", "..%5c..", "."],
)
def test_ids_that_are_none_are_refused(api, name):
    for line in f"GET /v1/uploads/{name}", f"GET /v1/jobs/{name}/result", f"DELETE /v1/jobs/{name}":
        answer = raw(api, request(api, line, "Connection: close"))
        assert status(answer) in {404, 405, 422}, answer
        facts = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert len(facts["error"]["message"]) < 600
