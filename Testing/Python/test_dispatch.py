"""Giving cases to workers that die, on a stand-in of Dask that does what the test says."""

import queue

import pytest
from ClassScaleSegLib import ClassScaleError, ImageError
from ClassScaleSegLib.cohort import dispatch as module
from ClassScaleSegLib.cohort.cluster import Cluster
from ClassScaleSegLib.cohort.dispatch import RETRIES, dispatch
from ClassScaleSegLib.cohort.ledger import PUT_ASIDE

distributed = pytest.importorskip("distributed")


class Future:
    def __init__(self, key):
        self.key, self.status = key, "pending"

    def add_done_callback(self, call):
        self._call = call

    def end(self, status, value=None):
        self.status, self._value = status, value
        self._call(self)

    def cancel(self):
        self.cancelled = True

    def release(self):
        pass

    def exception(self):
        return self._value if self.status == "error" else None

    def result(self, timeout=None):
        if self.status == "cancelled" and self._value is None:
            raise distributed.CancelledError
        if isinstance(self._value, (TimeoutError, distributed.CancelledError)):
            raise self._value
        return self._value


class Client:
    """Does with each attempt of a case what its script says, at once."""

    def __init__(self, scripts, workers=1):
        self.scripts = {name: list(steps) for name, steps in scripts.items()}
        self.workers = {str(number): {"resources": {}} for number in range(workers)}
        self.status, self.attempts, self.most = "running", [], 0
        self.retired = []

    def scheduler_info(self, n_workers):
        return {"workers": self.workers}

    def subscribe_topic(self, topic, handler):
        self._handler = handler

    def unsubscribe_topic(self, topic):
        self._handler = None

    def submit(self, function, name, attempt, key, resources, workers, pure):
        self.allowed = workers
        self.attempts.append((name, attempt))
        return Started(self, name, key)

    def retire_workers(self, workers, close_workers):
        self.retired += workers

    def begin(self, name, worker):
        self._handler((0, {"name": name, "host": "n1", "process": worker, "worker": "tcp"}))


class Started(Future):
    """Runs the next step of a case's script once the callback is there."""

    def __init__(self, client, name, key):
        super().__init__(key)
        self._client, self._name = client, name

    def add_done_callback(self, call):
        super().add_done_callback(call)
        for step in self._client.scripts[self._name].pop(0):
            step(self._client, self._name, self)


def begins(worker="w1"):
    return lambda client, name, future: client.begin(name, worker)


def ends(answer="done"):
    return lambda client, name, future: future.end("finished", {"answer": answer})


def dies(client, name, future):
    worker = type("W", (), {"address": "w1"})
    future.end("error", distributed.scheduler.KilledWorker(name, worker, 0))


def fails(error):
    return lambda client, name, future: future.end("error", error)


def is_cancelled(reason):
    error = distributed.CancelledError()
    error.reason = reason
    return lambda client, name, future: future.end("cancelled", error)


def is_lost(client, name, future):
    future.end("cancelled")


class Seen:
    def __init__(self):
        self.events = []

    def running(self, name, host, worker):
        self.events.append((name, "running", worker))

    def died(self, name, host, worker, why):
        self.events.append((name, "died", worker))

    def unfit(self, name, error):
        self.events.append((name, "unfit", error))

    def finished(self, name, answer):
        self.events.append((name, "finished", answer["answer"]))

    def failed(self, name, kind, error):
        self.events.append((name, "failed", kind))
        self.error = error

    def waiting(self, workers, hint):
        pass


def run(scripts, workers=1, again=lambda answer: None, arguments=None):
    client, seen = Client(scripts, workers), Seen()
    made = arguments or (lambda name: lambda: (name,))
    dispatch(Cluster(client, "a stand-in", None), len, [(name, made(name)) for name in scripts], seen, "topic", again)
    return client, seen.events, seen


GOOD = [begins(), ends()]


def test_every_case_is_done_once():
    client, events, _ = run({name: [GOOD] for name in "abcdef"}, workers=2)
    assert client.attempts == [(name, 1) for name in "abcdef"]
    assert [event[:2] for event in events] == [(name, what) for name in "abcdef" for what in ("running", "finished")]


def test_a_case_whose_worker_died_comes_behind_the_others():
    client, events, _ = run({"a": [[begins("w1"), dies], [begins("w2"), ends()]], "b": [GOOD], "c": [GOOD]})
    assert client.attempts == [("a", 1), ("b", 1), ("c", 1), ("a", 2)]
    assert [event for event in events if event[0] == "a"] == [
        ("a", "running", "w1"),
        ("a", "died", "w1"),
        ("a", "running", "w2"),
        ("a", "finished", "done"),
    ]


def test_a_case_that_kills_every_worker_is_put_aside_and_the_others_are_done():
    killer = [[begins(f"w{number}"), dies] for number in range(9)]
    client, events, seen = run({"a": killer, "b": [GOOD]})
    assert events[-1] == ("a", "failed", PUT_ASIDE) and ("b", "finished", "done") in events
    assert [name for name, _ in client.attempts].count("a") == RETRIES + 1
    assert "4 workers died one after another" in seen.error


def test_a_worker_that_dies_with_the_images_that_were_sent_there_counts_and_a_lost_connection_does_not():
    gone = [begins(), is_cancelled("already forgotten")]
    _, events, _ = run({"a": [gone] * (RETRIES + 1), "b": [GOOD]})
    assert ("a", "failed", PUT_ASIDE) in events
    cut_off = [begins(), is_cancelled("scheduler-connection-lost")]
    _, events, _ = run({"a": [cut_off] * (RETRIES + 2) + [GOOD]})
    assert events[-1] == ("a", "finished", "done") and ("a", "died", "w1") not in events


def test_a_case_that_only_waited_takes_no_blame():
    client, events, _ = run({"a": [[dies]] * 6 + [GOOD]})
    assert len(client.attempts) == 7 and [event[1] for event in events] == ["running", "finished"]
    run({"a": [[is_lost]] * 6 + [GOOD]})


def test_workers_that_always_die_before_they_begin_end_the_run():
    with pytest.raises(ClassScaleError, match="Workers die before they begin with a case"):
        run({"a": [[dies]] * 99})


def test_a_scheduler_that_repeats_by_itself_is_counted():
    """One that was not started here runs a case again without asking, three times by default."""
    again = [begins(f"w{number}") for number in range(3)]
    _, events, _ = run({"a": [[*again, ends()]]})
    assert [event[1] for event in events] == ["running", "died", "running", "died", "running", "finished"]
    more = [begins(f"w{number}") for number in range(9)]
    _, events, _ = run({"a": [[*more, ends()]], "b": [GOOD]})
    assert ("a", "failed", PUT_ASIDE) in events and ("a", "finished", "done") not in events


def test_a_worker_without_time_passes_the_case_on_and_goes():
    leaves = [lambda client, name, future: future.end("finished", {"leaves": "tcp://w7"})]
    client, events, _ = run({"a": [leaves, GOOD], "b": [GOOD]})
    assert client.retired == ["tcp://w7"] and [event[1] for event in events if event[0] == "a"] == [
        "running",
        "finished",
    ]


def answers(client, name, future):
    client._handler((0, {"key": future.key, "answer": '{"answer": "told"}'}))


def test_an_answer_that_was_told_counts_though_the_worker_died_then():
    client, events, _ = run({"a": [[begins(), answers, dies]], "b": [GOOD]})
    assert ("a", "finished", "told") in events and client.attempts == [("a", 1), ("b", 1)]


def test_results_that_cannot_be_fetched_are_made_again():
    gone = [begins(), lambda client, name, future: future.end("finished", TimeoutError())]
    client, events, _ = run({"a": [gone, GOOD]})
    assert client.attempts == [("a", 1), ("a", 2)] and events[-1] == ("a", "finished", "done")


def is_unfit(worker):
    def step(client, name, future):
        future.end("finished", {"unfit": worker, "error": f"Worker {worker} sees no folder."})

    return [begins(), step]


def test_a_worker_that_can_do_no_case_gets_no_more_and_the_last_one_ends_the_run():
    client, events, _ = run({"a": [is_unfit("1"), GOOD], "b": [GOOD]}, workers=2)
    assert client.allowed == ["0"] and ("a", "finished", "done") in events and ("b", "finished", "done") in events
    with pytest.raises(ClassScaleError, match="Worker 0 sees no folder"):
        run({"a": [is_unfit("1"), is_unfit("0")], "b": [GOOD]}, workers=2)


def test_an_answer_can_ask_for_another_worker():
    poor = [begins(), ends("no memory")]
    _, events, _ = run({"a": [poor, GOOD]}, again=lambda answer: answer["answer"] if "no" in answer["answer"] else None)
    assert [event[1] for event in events] == ["running", "died", "running", "finished"]
    _, events, _ = run({"a": [poor] * 9}, again=lambda answer: "no memory")
    assert [event[1] for event in events].count("running") == RETRIES + 1 and events[-1][2] == "no memory"


def test_a_case_whose_files_cannot_be_read_fails_alone():
    def arguments(name):
        def make():
            if name == "a":
                raise ImageError("a.nii.gz cannot be read.")
            return (name,)

        return make

    _, events, _ = run({"a": [], "b": [GOOD]}, arguments=arguments)
    assert events == [("a", "failed", "ImageError"), ("b", "running", "w1"), ("b", "finished", "done")]


@pytest.mark.parametrize(
    "error, sentence",
    [
        (
            ModuleNotFoundError("No module named 'ClassScaleSegLib'", name="ClassScaleSegLib"),
            "no package ClassScaleSegLib",
        ),
        (TypeError("unexpected argument"), r"cannot segment \(TypeError: unexpected argument\).* the same version"),
    ],
)
def test_workers_that_cannot_run_the_function_end_the_run(error, sentence):
    with pytest.raises(ClassScaleError, match=sentence):
        run({"a": [[fails(error)]], "b": [GOOD]})


def test_a_scheduler_that_is_gone_ends_the_run(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_WITHOUT_SCHEDULER", 0.01)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN", 0.01)

    def vanishes(client, name, future):
        client.status = "closed"

    with pytest.raises(ClassScaleError, match="The scheduler of the cluster does not answer any more"):
        run({"a": [[vanishes]]})


def test_no_more_cases_are_with_the_workers_than_they_need():
    waiting = queue.Queue()
    most = 0

    def waits(client, name, future):
        nonlocal most
        waiting.put(future)
        most = max(most, waiting.qsize())
        if waiting.qsize() == 6 or name == "t":
            while not waiting.empty():
                waiting.get().end("finished", {"answer": "done"})

    run({name: [[begins(), waits]] for name in "abcdefghijklmnopqrst"}, workers=3)
    assert most == 6  # one at work and one waiting for each worker
