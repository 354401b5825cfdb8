"""Whatever an archive answers: a sentence or a result, an end, and no file but whole ones of the series."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ClassScaleSegLib.archive import fetching, searching
from ClassScaleSegLib.archive.asking import Asking, NotGiven
from ClassScaleSegLib.archive.connection import Archive
from ClassScaleSegLib.archive.criteria import Criteria
from ClassScaleSegLib.archive.elements import is_uid
from ClassScaleSegLib.archive.fetching import SeriesFetch
from ClassScaleSegLib.archive.received import look_at
from ClassScaleSegLib.archive.searching import Search, Series
from ClassScaleSegLib.errors import ArchiveError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from reading_server import MULTIPART, multipart

pydicom = pytest.importorskip("pydicom")

from dicom_phantom import planes, write_series  # noqa: E402

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.3"  # the study as dicom_phantom writes it
TAGS = ["0020000D", "0020000E", "00080018", "00080060", "00100010", "00100020", "00080020", "00081030", "00201209"]
texts = some.sampled_from(["1.2.3", "1.2", "../x", "CT", "20260101", "a\x1b[2J", "", "Smith^John"]) | some.text(
    max_size=4
)
values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | texts,
    lambda inner: some.lists(inner, max_size=2) | some.dictionaries(some.sampled_from(["Alphabetic", "a"]), inner),
    max_leaves=4,
)
elements = some.fixed_dictionaries({"vr": texts}, optional={"Value": some.lists(values, max_size=2) | values})
# what an archive tells of something that it has, of which a part may be anything
identifiers = some.sampled_from([SERIES, SERIES, "1.2", "1.2.3.4", STUDY, "1.2/../x"])
told = {tag: identifiers.map(lambda uid: {"vr": "UI", "Value": [uid]}) for tag in ("0020000D", "0020000E", "00080018")}
told["00080060"] = some.sampled_from(["CT", "MR"]).map(lambda kind: {"vr": "CS", "Value": [kind]})
anything = some.dictionaries(some.sampled_from(TAGS), elements | values, max_size=6)
likely = some.fixed_dictionaries(told)
rows = some.lists(likely | some.builds(dict.__or__, likely, anything) | anything, max_size=4)
beginnings = some.lists(likely, min_size=1, max_size=2)  # of what is found: a search without it says nothing
answers = rows | some.sampled_from([400, 404, 500, 501])


class Answering(Asking):
    """An archive that answers searches and retrievals as it is told."""

    def __init__(self, searches: Iterator[Any], files: Callable[[str], Any] = lambda path: 404) -> None:
        for name, value in {"archive": Archive("http://localhost:1"), "searches": searches, "files": files}.items():
            object.__setattr__(self, name, value)  # it is frozen

    def rows(self, path: str, parameters: Any) -> list[dict[str, Any]]:
        found = next(self.searches)
        if isinstance(found, int):
            raise NotGiven("refused", found)
        return json.loads(json.dumps(found))

    @contextmanager
    def answer(self, path: str, accept: str, parameters: Any = (), plain: bool = False) -> Iterator[Any]:
        found = self.files(path)
        if isinstance(found, int):
            raise NotGiven("refused", found)
        parts = {"headers": MULTIPART, "raw": io.BytesIO(), "iter_content": lambda _, size: iter(cut(found, size))}
        yield type("Answer", (), parts)()


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[place : place + size] for place in range(0, len(content), size)]


def endless(found: list[Any]) -> Iterator[Any]:
    yield from found
    while True:
        yield found[-1]


@settings(deadline=None)
@given(beginnings, some.lists(answers, max_size=8), some.sampled_from([None, "CT"]), some.sampled_from([None, "smith"]))
def test_whatever_is_found_a_search_ends_with_studies_that_have_valid_identifiers(first, more, modality, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "MOST_LOOKED_THROUGH", 20)
        patch.setattr(searching, "PAGE", 2)
        search = Search(Answering(endless([first, *more])))
        try:
            studies = search.studies(Criteria(modality=modality, name=name), 3)
        except ArchiveError:
            return
    assert len(studies) <= 3 and all(is_uid(study.uid) for study in studies)
    assert all(is_uid(series.uid) and series.study == study.uid for study in studies for series in study.series)
    assert modality is None or all(series.modality in ("", "CT") for study in studies for series in study.series)


@settings(deadline=None)
@given(beginnings, some.lists(answers, max_size=4))
def test_whatever_is_found_the_images_of_a_series_have_valid_identifiers(first, more):
    search = Search(Answering(endless([first, *more])))
    assert all(map(is_uid, search.images(Series(SERIES, STUDY)) or []))


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("series")
    write_series(folder / "a", planes(3), SERIES)
    write_series(folder / "b", planes(1), "1.2.4")
    return [file.read_bytes() for file in sorted(folder.rglob("*.dcm"))]


@settings(deadline=None)
@given(some.data())
def test_a_file_that_is_changed_anywhere_is_read_or_refused_with_a_sentence(contents, data):
    content = bytearray(contents[0])
    for place in data.draw(some.lists(some.integers(128, len(content) - 1), max_size=4)):
        content[place] = data.draw(some.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.dcm")
        file.write_bytes(content)
        try:
            assert is_uid(look_at(file).instance)
        except ArchiveError as error:
            assert str(error).startswith("it ")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.data())
def test_whatever_comes_only_whole_images_of_the_series_are_in_its_folder(contents, data):
    uids = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)).SOPInstanceUID for content in contents]
    listed = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids[:3]]
    searches = endless([data.draw(some.sampled_from([listed, listed[:1], 501])), []])

    def files(path: str) -> bytes | int:
        kind = data.draw(some.sampled_from(["refused", "whole", "cut", "changed"]))
        if kind == "refused":
            return data.draw(some.sampled_from([400, 403, 404, 406, 500]))
        whole = bytearray(multipart(data.draw(some.lists(some.sampled_from(contents), max_size=5))))
        if kind == "cut":
            return bytes(whole[: data.draw(some.integers(0, len(whole)))])
        if kind == "changed":
            for place in data.draw(some.lists(some.integers(0, len(whole) - 1), max_size=3)):
                whole[place] = data.draw(some.integers(0, 255))
        return bytes(whole)

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "_PIECE", data.draw(some.integers(1, 3000)))
        patch.setattr(fetching, "_refuse_full_disk", lambda folder: None)
        folder = Path(name, "got")
        said = SeriesFetch(Answering(searches, files), Series(SERIES, STUDY, images=3), folder).run()
        there = [file for file in Path(name).rglob("*") if file.is_file()]
        assert said.images == len(there)
        for file in there:
            found = look_at(file)
            assert file == folder / SERIES / f"{found.instance}.dcm"
            assert (found.study, found.series) == (STUDY, SERIES)
        assert said.whole == (len(there) >= 3 and not said.missing)
        assert said.whole or said.faults
