"""Finding studies in a DICOM archive: what is listed, whatever the archive passes over, and what it may answer."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import fnmatch
import itertools
import json
import string

import pytest
from archive_fixtures import no_credentials, shelf  # noqa: F401  (fixtures)
from ClassScaleSegLib.archive import answers, asking, searching
from ClassScaleSegLib.archive.criteria import Criteria, parse_dates
from ClassScaleSegLib.archive.elements import is_uid, number_of, text_of
from ClassScaleSegLib.errors import ArchiveError
from hypothesis import given
from hypothesis import strategies as some
from reading_server import JSON, reading_server, run

pydicom = pytest.importorskip("pydicom")

from dicom_phantom import planes, write_series  # noqa: E402

ROOT = "1.2.826.0.1.3680043.8.498.5"
# name, patient ID, date, description; then modality, description and number of images of each series
STUDIES = [
    ("Smith^John", "a-1", "20260103", "CT Abdomen", [("CT", "venous", 3), ("SEG", "organs", 1)]),
    ("Müller^Anna", "A-1", "20260220", "MR Head", [("MR", "T1", 2)]),
    ("Smithson^Joe", "b-7", "", "", [("CT", "lung", 2), ("CT", "bone", 1)]),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for number, (name, patient, date, description, series) in enumerate(STUDIES, 1):
        for place, (modality, what, count) in enumerate(series, 1):
            write_series(
                folder / f"{number}-{place}",
                planes(count),
                series=f"{ROOT}.{number}.{place}",
                SpecificCharacterSet="ISO_IR 192",
                StudyInstanceUID=f"{ROOT}.{number}",
                SeriesNumber=len(series) - place,
                **{"PatientName": name, "PatientID": patient, "StudyDate": date, "StudyDescription": description},
                **{"Modality": modality, "SeriesDescription": what},
            )
    return folder


@pytest.fixture
def archive(shelf, written):
    for folder in sorted(written.iterdir()):
        shelf.add(folder)
    return shelf


def find(archive, capsys, *words) -> tuple[list[str], str]:
    """Return the last number of each study that is found, and what standard error says."""
    assert run("find", "--from", archive.address, "--json", *words) == 0
    out, err = capsys.readouterr()
    return sorted(study["uid"].rpartition(".")[2] for study in json.loads(out)), err


def test_studies_and_series_are_a_table_with_a_uid_at_the_end_of_each_line(archive, capsys):
    assert run("find", "--from", archive.address + "/") == 0
    out, err = capsys.readouterr()
    assert not err
    heading, *lines = out.splitlines()
    assert heading.split() == ["DATE", "PATIENT", "NAME", "STUDY", "UID"]
    uids = [f"{ROOT}.{end}" for end in ("2", "2.1", "1", "1.2", "1.1", "3", "3.2", "3.1")]  # by name, then by number
    assert [line.split()[-1] for line in lines] == uids
    assert len({line.index(f" {ROOT}") for line in lines}) == 1
    assert lines[2].startswith("2026-01-03  a-1      Smith^John    CT Abdomen")
    assert lines[3].startswith("            SEG  1 image   organs ")
    assert lines[4].startswith("            CT   3 images  venous ")


def test_json_has_all_that_is_known(archive, capsys):
    assert run("find", "--from", archive.address, "--json", "--patient", "a-1") == 0
    (study,) = json.loads(capsys.readouterr().out)
    series = study.pop("series")
    assert study == {
        "uid": f"{ROOT}.1",
        "patient": "a-1",
        "name": "Smith^John",
        "date": "20260103",
        "description": "CT Abdomen",
        "modalities": ["CT", "SEG"],
        "images": 4,
    }
    assert series[1] == {
        "uid": f"{ROOT}.1.1",
        "study": f"{ROOT}.1",
        "modality": "CT",
        "description": "venous",
        "number": 1,
        "images": 3,
    }


@pytest.mark.parametrize("ignores", [(), ("filters", "includefield"), ("filters", "limit", "offset")])
@pytest.mark.parametrize(
    ("words", "studies"),
    [
        ("", "123"),
        ("--patient a-1", "1"),
        ("--patient ?-1", "12"),
        ("--patient -1", ""),
        ("--name smith", "13"),
        ("--name 'smith, jo*n'", "1"),
        ("--name 'smith jo'", "13"),
        ("--name 'john smith'", ""),
        ("--name 'Smith^John'", "1"),
        ("--date 20260103", "1"),
        ("--date 20260104-", "2"),
        ("--date -20260220", "12"),
        ("--date 20260101-20260131", "1"),
        ("--modality ct", "13"),
        ("--modality PT", ""),
        ("--description abdomen", "1"),
        ("--description 'mr h'", "2"),
        (f"--study {ROOT}.3", "3"),
        ("--name smith --modality CT --date 20260101-", "1"),
    ],
)
def test_what_is_searched_for_is_found_also_if_the_archive_passes_over_it(archive, capsys, ignores, words, studies):
    import shlex

    archive.ignores = set(ignores)
    found, err = find(archive, capsys, *shlex.split(words))
    if "--description" in words and "includefield" in ignores:
        assert found == list("123") and "does not tell the description of every study, so not all" in err
    else:
        assert found == list(studies) and not err


@pytest.mark.parametrize("name", ["müller", "MÜLLER", "Müller^A"])
def test_letters_that_an_address_cannot_have_are_any_letters_to_the_archive(archive, capsys, name):
    assert find(archive, capsys, "--name", name) == (["2"], "")
    assert find(archive, capsys, "--name", "mïller", "--patient", "A/1") == ([], "")
    first, second = archive.queries[-2:]
    assert "PatientID=A*1&PatientName=*m*ller*&" in first and "%" not in first
    assert "PatientID=A%2F1&PatientName=m%C3%AFller&fuzzymatching=true&" in second


@pytest.mark.parametrize("name", ["muller", "MULLER"])
def test_names_are_found_without_their_accents_if_the_archive_does_so(archive, capsys, name):
    archive.ignores = {"filters"}
    assert find(archive, capsys, "--name", name) == (["2"], "")


def test_filters_are_asked_for_in_the_words_of_the_standard(archive, capsys):
    words = ("--patient", "a-1", "--name", "Smith, J", "--date", "20260101-", "--modality", "ct")
    assert find(archive, capsys, *words)[0] == ["1"]
    (path, query, headers), (series, of_series, _), *_ = archive.requests
    assert path == "/studies" and series == f"/studies/{ROOT}.1/series"
    assert dict(query) == {
        "PatientID": "a-1",
        "PatientName": "*Smith*J*",
        "StudyDate": "20260101-",
        "ModalitiesInStudy": "CT",
        "includefield": "00201208",  # and others
        "limit": str(searching.PAGE),
        "offset": "0",
    }
    assert dict(of_series)["Modality"] == "CT"
    assert headers["Accept"] == "application/dicom+json" and "Authorization" not in headers


def test_series_of_other_modalities_are_not_listed(archive, capsys):
    archive.ignores = {"filters"}
    assert run("find", "--from", archive.address, "--modality", "SEG") == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == [f"{ROOT}.1", f"{ROOT}.1.2"]


def test_what_the_archive_does_not_tell_is_said(archive, capsys):
    archive.ignores, archive.untold = {"filters"}, {"StudyDate", "ModalitiesInStudy", "Modality"}
    found, err = find(archive, capsys, "--date", "20260103", "--modality", "MR", "--patient", "a-1")
    assert found == ["1"]
    assert "does not tell the date of every study, so not all of these may fit" in err
    assert "does not tell the modality of every series, so not all of these may fit" in err
    archive.untold = {"PatientName"}
    assert find(archive, capsys, "--name", "smith", "--date", "19990101") == ([], "")


def test_an_archive_that_refuses_to_tell_more_is_asked_for_less(archive, capsys):
    archive.answer = lambda _, query, __: (400, {}, b"") if "includefield" in dict(query) else None
    assert find(archive, capsys)[0] == list("123")
    assert sum("includefield" in dict(query) for _, query, _ in archive.requests) == 1


def test_an_archive_without_wildcards_is_asked_for_beginnings_of_names(archive, capsys):
    """As Microsoft's: its conformance statement of DICOM names exact and fuzzy matches, and no others."""

    def answer(path, query, headers):
        asked = dict(query)
        if path != "/studies":
            return None
        name, fuzzy = asked.pop("PatientName", ""), asked.pop("fuzzymatching", "")
        if "*" in name or "*" in asked.get("PatientID", "") or not fuzzy:
            return 204, {}, b""
        status, kind, content = archive.usual(path, list(asked.items()), headers)
        rows = json.loads(content or "[]")
        words = [row["00100010"]["Value"][0]["Alphabetic"].casefold().split("^") for row in rows]
        fits = [
            all(any(part.startswith(word) for part in parts) for word in name.casefold().split()) for parts in words
        ]
        return status, kind, json.dumps([row for row, fit in zip(rows, fits, strict=True) if fit]).encode()

    archive.answer = answer
    assert find(archive, capsys, "--name", "smith") == (["1", "3"], "")
    assert find(archive, capsys, "--name", "smith jo") == (["1", "3"], "")
    assert find(archive, capsys, "--name", "john smith") == ([], "")  # which the archive finds, but not in this order
    assert find(archive, capsys, "--name", "müll") == (["2"], "")
    archive.answer = lambda _, query, __: (400, {}, b"") if "fuzzymatching" in dict(query) else None
    assert find(archive, capsys, "--name", "nobody") == ([], "")


def test_patient_ids_that_an_address_cannot_have_are_found_with_and_without_wildcards(shelf, tmp_path, capsys):
    shelf.add(write_series(tmp_path / "a", planes(1), PatientID="A 1/2", StudyInstanceUID=f"{ROOT}.8"))
    assert find(shelf, capsys, "--patient", "A 1/2")[0] == ["8"] and "PatientID=A*1*2&" in shelf.queries[0]
    shelf.answer = lambda _, query, __: (204, {}, b"") if "*" in dict(query).get("PatientID", "") else None
    assert find(shelf, capsys, "--patient", "A 1/2")[0] == ["8"]
    assert find(shelf, capsys, "--patient", "A 1 2")[0] == []


@pytest.mark.parametrize("most", [1, 2, 3, 100])
@pytest.mark.parametrize("page", [1, 2, 100])
def test_all_pages_are_read_also_if_they_are_shorter_than_asked_for(archive, capsys, monkeypatch, most, page):
    monkeypatch.setattr(searching, "PAGE", page)
    archive.most = most
    assert find(archive, capsys) == (list("123"), "")


def test_a_page_beyond_the_last_one_may_be_missing(archive, capsys):
    archive.answer = lambda _, query, __: None if dict(query)["offset"] == "0" else (404, {}, b"")
    assert find(archive, capsys) == (list("123"), "")
    archive.answer = lambda *_: (404, {}, b"")
    assert run("find", "--from", archive.address) == 5


def test_an_archive_that_gives_its_first_page_again_and_again(archive, capsys, monkeypatch):
    monkeypatch.setattr(searching, "PAGE", 2)
    archive.ignores = {"offset"}
    found, err = find(archive, capsys)
    assert found == ["1", "2"] and "The archive gives its first 2 studies only. There may be more." in err


def test_an_archive_without_an_end_is_given_up(shelf, capsys, monkeypatch):
    numbers = itertools.count(1)
    monkeypatch.setattr(searching, "MOST_LOOKED_THROUGH", 50)

    def answer(path, *_):
        tag = "0020000D" if path == "/studies" else "0020000E"
        rows = [{tag: {"vr": "UI", "Value": [f"1.2.{next(numbers)}"]}} for _ in range(20)]
        return 200, JSON, json.dumps(rows).encode()

    shelf.answer = answer
    found, err = find(shelf, capsys, "--name", "nobody", "--limit", "1000")
    assert len(found) == 60 and "After 60 studies the search was given up. There may be more: narrow it." in err


def test_a_limit_says_that_there_is_more(archive, capsys):
    found, err = find(archive, capsys, "--limit", "2")
    assert found == ["1", "2"]
    assert "There are more such studies than 2. Narrow the search, or give a larger --limit." in err
    assert find(archive, capsys, "--limit", "3")[1] == ""
    for limit in ("0", "-1", "x"):
        with pytest.raises(SystemExit) as ended:
            run("find", "--from", archive.address, "--limit", limit)
        assert ended.value.code == 2 and "it must be a number, 1 or more" in capsys.readouterr().err


def test_nothing_found(archive, shelf, capsys):
    assert run("find", "--from", shelf.address, "--patient", "x") == 0
    assert capsys.readouterr().out == f"No study of {shelf.address} is like that.\n"
    assert run("find", "--from", shelf.address, "--name", "x") == 0
    assert "Some archives compare case and accents of names." in capsys.readouterr().out
    assert find(shelf, capsys, "--patient", "x") == ([], "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--date", "2026-01-01"), "is neither a day nor a range of days"),
        (("--date", "20260230"), "is neither a day"),
        (("--date", "-"), "is neither a day"),
        (("--date", "20260201-20260101"), "ends before it begins"),
        (("--patient", "a\\b"), "cannot be searched for (--patient)"),
        (("--name", "\x1b[2J"), "cannot be searched for (--name)"),
        (("--description", " "), "cannot be searched for (--description)"),
        (("--patient", "x" * 65), "cannot be searched for (--patient)"),
        (("--modality", "CT,MR"), "is not a modality"),
        (("--study", "../1"), "is not a unique identifier (UID)"),
    ],
)
def test_what_cannot_be_searched_for_is_told_before_the_archive_is_asked(archive, capsys, words, sentence):
    assert run("find", "--from", archive.address, *words) == 2
    said = capsys.readouterr().err
    assert sentence in said and "\x1b" not in said and not archive.requests


# --- answers that are wrong or hostile


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((400, {}, b"what?"), "localhost:8042/dicom-web, give that. It says: what?"),
        ((401, {}, b""), "asks who you are (status 401). Give --user"),
        ((403, {}, b""), "status 403: this user may not see this"),
        ((404, {"Content-Type": "text/html"}, b"<h1>"), "or there is no DICOMweb service at this address"),
        ((413, {}, b""), "status 413: it finds more than it gives at once. Narrow the search"),
        ((418, {}, b""), "status 418: it refused the request"),
        ((500, JSON, b'{"Message": "broken"}'), 'it has a fault. Try again later, or tell its administrator. It says'),
        ((501, {}, b""), "status 501: it cannot do this"),
        ((302, {"Location": "https://login.example.org/"}, b""), "leads to https://login.example.org/, where"),
        ((200, {"Content-Type": "text/html"}, b"<html>"), "else than a DICOM archive would (status 200, text/html)"),
        ((200, JSON, b"[1, 2]"), "something else than a DICOM archive would"),
        ((200, JSON, b'"a"'), "something else than a DICOM archive would"),
        ((200, JSON, b"[" * 100_000), "something else than a DICOM archive would"),
        ((200, {**JSON, "Content-Encoding": "gzip"}, b"no gzip"), "something that cannot be decompressed"),
        ((200, {"Content-Type": "\x1b[2J"}, b"<html>"), "something else than a DICOM archive would"),
        ((500, {"Content-Type": "text/plain"}, b"\x1b[2Jhello"), "It says: [2Jhello"),
    ],
)  # fmt: skip
def test_an_archive_that_does_not_search_is_a_sentence(shelf, capsys, answer, sentence):
    shelf.answer = lambda *_: answer
    assert run("find", "--from", shelf.address) == 5
    said = capsys.readouterr()
    assert sentence in said.err and "\x1b" not in said.err and not said.out
    assert [path for path, _, _ in shelf.requests] in (["/studies"], ["/studies"] * 2)  # with and without includefield


def test_a_redirect_gets_neither_the_question_nor_the_token(shelf, capsys, monkeypatch):
    monkeypatch.setenv("CLASSSCALESEG_DICOM_TOKEN", "secret")
    with reading_server() as other:
        shelf.answer = lambda *_: (307, {"Location": f"{other.address}/studies"}, b"")
        assert run("find", "--from", shelf.address, "--patient", "a-1") == 5
        assert not other.requests and shelf.requests[0][2]["Authorization"] == "Bearer secret"
    assert "secret" not in capsys.readouterr().err


def test_nothing_is_asked_in_the_clear_from_another_machine(capsys):
    assert run("find", "--from", "http://pacs.invalid/dicom-web") == 2
    assert "is not encrypted" in capsys.readouterr().err
    assert run("find", "--from", "http://pacs.invalid/dicom-web", "--insecure") == 5
    assert "cannot be reached" in capsys.readouterr().err


def test_an_answer_is_read_up_to_a_limit(shelf, capsys, monkeypatch):
    monkeypatch.setattr(asking, "LARGEST_LIST", 5 << 20)
    assert answers.LARGEST < 5 << 20
    shelf.answer = lambda *_: (200, JSON, b"[" + b" " * (5 << 20) + b"]")
    assert run("find", "--from", shelf.address) == 5
    said = capsys.readouterr().err
    assert "answers with more than 5 MiB" in said and "of its DICOMweb service, or narrow the search." in said


def test_a_lost_connection_is_a_sentence(shelf, capsys):
    shelf.answer = lambda *_: (200, {**JSON, "Content-Length": "100"}, iter([b"[{"]))
    assert run("find", "--from", shelf.address) == 5
    assert "did not answer, or the connection was lost" in capsys.readouterr().err


def test_nothing_that_the_archive_tells_controls_the_terminal_or_breaks_the_table(shelf, capsys):
    evil = "a\n\x1b[2J\u202eb\x9b2J" + "x" * 5000
    study = {
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": evil}]},
        "00100020": {"vr": "LO", "Value": [evil, {"Alphabetic": 7}, None, [[]], 1.5]},
        "00080020": {"vr": "DA", "Value": "20260101"},
        "00081030": ["no element"],
    }
    series = {
        "0020000E": {"vr": "UI", "Value": ["1.2.3.4"]},
        "00080060": {"vr": "CS", "Value": [evil]},
        "00201209": {"vr": "IS", "Value": [-5]},
        "00200011": {"vr": "IS", "Value": ["9" * 400]},
    }
    rows = {"/studies": [study], "/studies/1.2.3/series": [series]}
    shelf.answer = lambda path, *_: (200, JSON, json.dumps(rows[path]).encode())
    assert run("find", "--from", shelf.address) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.isprintable() and second.isprintable() and max(len(first), len(second)) < 300
    assert first.endswith(" 1.2.3") and second.endswith(" 1.2.3.4") and "? images" in second
    assert run("find", "--from", shelf.address, "--json") == 0
    assert capsys.readouterr().out.isascii()


@pytest.mark.parametrize("uid", ["", "../../x", "1.2/3", "1.2.", ".1", "1" * 65, "1.2\n3", 7, None, "１.2"])
def test_studies_without_a_valid_identifier_are_left_out_and_that_is_said(archive, capsys, uid):
    def answer(path, query, headers):
        if path != "/studies" or dict(query)["offset"] != "0":
            return None
        status, kind, content = archive.usual(path, query, headers)
        return status, kind, json.dumps([{"0020000D": {"vr": "UI", "Value": [uid]}}, *json.loads(content)]).encode()

    archive.answer = answer
    found, err = find(archive, capsys)
    valid = [7] if uid == 7 else []
    assert [one for one in found if one in "123"] == list("123") and len(found) == 3 + len(valid)
    assert valid or "Some studies are left out: the archive does not give them a valid identifier" in err


# --- parts


def test_dates_are_days_or_ranges():
    assert parse_dates(" 20240229 ") == ("20240229", "20240229") and parse_dates("-20260101") == ("", "20260101")
    for text in ("", "2026", "20230229", "20260101-2026", "a-b", "20260101-20260201-20260301", "２０２６０１０１"):
        with pytest.raises(ArchiveError, match="neither a day"):
            parse_dates(text)


@given(some.text("ab?*", max_size=6).filter(str.strip), some.text("ab?", max_size=8))
def test_patterns_are_those_of_file_names(pattern, text):
    fits = Criteria(patient=pattern).fit({"00100020": {"vr": "LO", "Value": [text]}}, set())
    assert fits == fnmatch.fnmatchcase(text, pattern)


def test_a_pattern_of_many_stars_takes_no_time():
    wanted = Criteria(patient="*a" * 31 + "*b")
    assert not wanted.fit({"00100020": {"vr": "LO", "Value": ["a" * 1000]}}, set())


@given(some.text(string.digits + ".-/\\\n a", max_size=70))
def test_identifiers_are_names_of_files(text):
    if is_uid(text):
        assert set(text) <= set(string.digits + ".") and 0 < len(text) <= 64
        assert text[0] != "." and text[-1] != "." and ".." not in text


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(["Alphabetic", "Value"]), inner),
    max_leaves=10,
)


def test_of_a_name_whose_other_letters_were_lost_the_latin_ones_are_shown():
    groups = {"Alphabetic": "Yamada^Tarou", "Ideographic": "^", "Phonetic": "^"}
    assert text_of({"00100010": {"vr": "PN", "Value": [groups]}}, "00100010") == "Yamada^Tarou"
    groups["Ideographic"] = "山田^太郎"
    assert text_of({"00100010": {"vr": "PN", "Value": [groups]}}, "00100010") == "Yamada^Tarou=山田^太郎"


@given(json_values)
def test_whatever_an_element_is_it_has_a_text_or_none(value):
    for element in (value, {"Value": value}):
        text = text_of({"00100010": element}, "00100010")
        assert text is None or isinstance(text, str)
        number = number_of({"00100010": element}, "00100010")
        assert number is None or 0 <= number < 10**9


def test_a_study_whose_series_the_archive_does_not_tell_does_not_hide_the_others(archive, capsys):
    broken = {f"/studies/{ROOT}.1/series"}
    archive.answer = lambda path, *_: (500, {}, b"") if path in broken else None
    assert run("find", "--from", archive.address, "--json") == 0
    output, error = capsys.readouterr()
    assert {study["uid"] for study in json.loads(output)} == {f"{ROOT}.2", f"{ROOT}.3"}
    assert f"The study {ROOT}.1 is left out" in error and "status 500" in error
    broken |= {f"/studies/{ROOT}.{number}/series" for number in (2, 3)}
    assert run("find", "--from", archive.address) == 5
    assert "has a fault" in capsys.readouterr().err
    assert run("find", "--from", archive.address, "--study", f"{ROOT}.1") == 5


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_is_no_certificate_is_named(tmp_path, monkeypatch, capsys, content):
    file = tmp_path / "hospital.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    for address in ("https://127.0.0.1:9/dicom-web", "https://pacs.invalid/dicom-web"):
        assert run("find", "--from", address) == 5
        assert f"{file} is not a file of certificates in PEM that can be read (" in capsys.readouterr().err
