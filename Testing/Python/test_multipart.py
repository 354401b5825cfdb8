"""Reading messages of several parts as a stream: whatever is in the parts, however the message is cut."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterable

import pytest
from ClassScaleSegLib.archive.multipart import LONGEST_HEADER, Incomplete, Parts, boundary_of
from hypothesis import example, given
from hypothesis import strategies as some

BOUNDARY = b"b-1"
# pieces of contents that are most like boundaries
likely = some.sampled_from(
    [b"\r\n", b"\r", b"\n", b"--", b"-", b"--b-1", b"\r\n--b-", b"\r\n--b-1x", b" ", b"a", b"\r\n\r\n"]
)
cuts = some.lists(some.integers(1, 9), max_size=60)
contents = some.lists(some.lists(likely | some.binary(max_size=4), max_size=8).map(b"".join), max_size=4)
headers = some.sampled_from([b"", b"Content-Type: application/dicom\r\n", b"A: b\r\nContent-Length: 7\r\n"])
paddings = some.sampled_from([b"", b" ", b"\t  "])
ends = some.sampled_from([b"--", b"--\r\n", b"--\r\nan epilogue\r\n--b-1\r\n\r\nno part"])


def message(parts: list[bytes], header: bytes, padding: bytes, end: bytes, before: bytes = b"") -> bytes:
    line = b"\r\n--" + BOUNDARY
    whole = before + b"".join(line + padding + b"\r\n" + header + b"\r\n" + part for part in parts) + line + end
    return whole if before else whole[2:]


def is_boundary_in(content: bytes) -> bool:
    """Whether what is to be a content has a boundary, or may make one with what follows."""
    whole = b"\r\n" + content + b"\r\n--"
    rest = [whole[found.end() :] for found in re.finditer(b"\r\n--b-1", whole)]
    return any(after.startswith(b"--") or after.lstrip(b" \t").startswith((b"\r\n", b"\r")) for after in rest)


def pieces(whole: bytes, sizes: list[int]) -> list[bytes]:
    found, place = [], 0
    for size in [*sizes, len(whole)]:
        found.append(whole[place : place + size])
        place += size
    return found


def read(stream: Iterable[bytes]) -> list[bytes]:
    return [b"".join(part) for part in Parts(stream, BOUNDARY)]


@given(contents, headers, paddings, ends, cuts, some.sampled_from([b"", b"before"]))
@example([b"", b"\r\n", b"\r\n--b-1x"], b"", b"", b"--", [1] * 60, b"")
@example([b"\r\n--b-1\r\n--b-1x"], b"", b"", b"--", [], b"")
def test_parts_come_as_they_are_however_the_message_is_cut(parts, header, padding, end, sizes, before):
    parts = [part for part in parts if not is_boundary_in(part)]
    assert read(pieces(message(parts, header, padding, end, before), sizes)) == parts


@given(contents, headers, cuts, some.data())
def test_of_a_message_that_is_cut_only_whole_parts_come_and_it_is_said(parts, header, sizes, data):
    parts = [part for part in parts if not is_boundary_in(part)]
    whole = message(parts, header, b"", b"--")
    cut = whole[: data.draw(some.integers(0, len(whole) - 1))]
    came = []
    with pytest.raises(Incomplete, match="end of the archive's answer is missing"):
        for part in Parts(pieces(cut, sizes), BOUNDARY):
            came.append(b"".join(part))
    assert came == parts[: len(came)]


@given(some.lists(likely | some.binary(max_size=9), max_size=40))
def test_whatever_comes_is_a_message_or_an_exception(stream):
    try:
        found = read(stream)
    except Incomplete:
        return
    assert sum(map(len, found)) <= sum(map(len, stream))


def test_a_part_need_not_be_read():
    whole = message([b"one" * 100, b"two"], b"", b"", b"--")
    parts = iter(Parts(pieces(whole, [7] * 30), BOUNDARY))
    next(parts)
    second = next(parts)
    assert b"".join(second) == b"two" and next(parts, None) is None


def test_a_message_without_the_boundary_is_given_up():
    endless = iter(lambda: b"x" * 1000, None)
    with pytest.raises(Incomplete, match="does not separate the files by what it says"):
        read(endless)


def test_headers_without_an_end_are_given_up():
    def stream():
        yield b"--b-1\r\n"
        while True:
            yield b"A: b\r\n" * 100

    with pytest.raises(Incomplete, match="headers without an end"):
        read(stream())
    long = b"A: " + b"b" * (LONGEST_HEADER - 100) + b"\r\n"
    assert read([message([b"x"], long, b"", b"--")]) == [b"x"]


def test_spaces_after_a_boundary_without_an_end_are_content():
    content = b"x\r\n--b-1" + b" " * 1000 + b"\r\n"
    assert read([message([content], b"", b"", b"--")]) == [content]


def test_a_part_of_any_size_takes_no_memory():
    def stream():
        yield b"--b-1\r\n\r\n"
        for _ in range(2000):
            yield bytes(1 << 16)
        yield b"\r\n--b-1--"

    tracemalloc.start()
    try:
        (size,) = (sum(map(len, part)) for part in Parts(stream(), BOUNDARY))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 2000 << 16 and peak < 1 << 20


def test_content_full_of_what_is_nearly_a_boundary_takes_no_memory_and_little_time():
    content = b"\r\n--b-1x" * 20_000
    assert read([message([content], b"", b"", b"--")]) == [content]


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('Multipart/Related; BOUNDARY="a;b=c"; type="application/dicom"', b"a;b=c"),
        ("multipart/related;boundary=a\r\n b", b"a b"),
        ("application/dicom", None),
        ("text/html; boundary=abc", None),
        ("", None),
    ],
)
def test_the_boundary_is_what_the_content_type_names(value, boundary):
    assert boundary_of(value) == boundary


@pytest.mark.parametrize("value", ["", "; boundary=", '; boundary=""', "; boundary=" + "x" * 201, "; boundary=é"])
def test_a_boundary_that_is_none_is_refused(value):
    with pytest.raises(Incomplete, match="does not say by what it separates"):
        boundary_of("multipart/related" + value)
