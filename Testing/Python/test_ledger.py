"""What the ledger of a cohort says, also after its command was killed in the middle of a line."""

import json

import pytest
from ClassScaleSegLib import OutputError
from ClassScaleSegLib.cohort.ledger import NAME, RUN, is_latest, open_ledger, read_ledger
from ClassScaleSegLib.cohort.records import FOLDER
from ClassScaleSegLib.errors import Busy


def test_it_tells_what_happened_to_each_case(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.add("begin", cases=5, cluster="local:2")
        for name in "abcd":
            ledger.add("running", case=name, host="n1", worker=name)
        ledger.add("done", case="a", host="n1", seconds=2.5)
        ledger.add("failed", case="b", host="n1", kind="ImageError", error="It is broken.")
        ledger.add("died", case="c", host="n1", worker="c", error="its worker died")
        history = read_ledger(tmp_path)
        assert history.running and history.hosts == {"n1": 1}
        assert dict(history.counts) == {"done": 1, "failed": 1, "running": 1, "waiting": 2}
        assert history.cases["a"].seconds == 2.5 and history.cases["c"].deaths == 1
        assert [(case.name, case.error) for case in history.failed()] == [("b", "It is broken.")]
    history = read_ledger(tmp_path)
    assert not history.running and not history.ended and history.counts["stopped"] == 2


def test_a_later_run_goes_on_where_the_first_was_killed(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.add("begin", cases=2)
        ledger.add("done", case="a", seconds=1)
        ledger.add("running", case="b", host="n1")
    file = tmp_path / FOLDER / NAME
    file.write_bytes(file.read_bytes() + b'{"at": "2026-11-28T10:00:00+00:00", "event": "done", "case": "b')
    assert read_ledger(tmp_path).counts["stopped"] == 1
    with open_ledger(tmp_path) as second:
        second.add("begin", cases=2)
        second.add("done", case="b", seconds=1)
        second.add("end")
    assert second.run != ledger.run
    history = read_ledger(tmp_path)
    assert history.ended and dict(history.counts) == {"done": 2, "waiting": 0}
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7 and sum(line.startswith("{") and line.endswith("}") for line in lines) == 6


def test_one_command_at_a_time_and_only_the_latest_one_writes(tmp_path):
    with open_ledger(tmp_path) as first:
        assert is_latest(tmp_path, first.run)
        with pytest.raises(Busy, match="is being segmented by another process"), open_ledger(tmp_path):
            pass
    with open_ledger(tmp_path) as second:
        assert is_latest(tmp_path, second.run) and is_latest(tmp_path, first.run) is False
    (tmp_path / FOLDER / RUN).unlink()
    assert is_latest(tmp_path, second.run) is None


def test_lines_of_others_are_ignored(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.add("done", case="a", seconds="soon")
    file = tmp_path / FOLDER / NAME
    at = '"at": "2026-11-28T10:00:00+00:00"'
    odd = ["", "7", "[]", "{}", f'{{{at}, "event": "done"}}', f'{{{at}, "event": "done", "case": 7}}', "[" * 99_999]
    odd += ['{"at": 7, "event": "done", "case": "x"}', f'{{{at}, "event": "begin", "cases": "many"}}']
    file.write_text(file.read_text() + "\n".join(odd) + "\n")
    history = read_ledger(tmp_path)
    assert list(history.cases) == ["a"] and history.cases["a"].seconds is None and history.counts.total() == 1


def test_a_folder_without_ledger_is_a_sentence(tmp_path):
    with pytest.raises(OutputError, match="is not a folder of results of segment --cluster"):
        read_ledger(tmp_path)
    (tmp_path / FOLDER / "cases").mkdir(parents=True)
    with pytest.raises(OutputError, match="was segmented without --cluster"):
        read_ledger(tmp_path)


def test_ten_thousand_cases_take_a_second(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.add("begin", cases=10_000)
        for number in range(10_000):
            ledger.add("done", case=str(number), host="n1", seconds=1)
    assert read_ledger(tmp_path).counts["done"] == 10_000
    assert (tmp_path / FOLDER / NAME).stat().st_size < 2_000_000
    assert json.loads((tmp_path / FOLDER / NAME).read_text().splitlines()[-1])["case"] == "9999"
