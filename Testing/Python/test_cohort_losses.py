"""What becomes of a cohort when scheduler, workers or connections are lost, on a stand-in of Dask."""

from types import SimpleNamespace

import pytest
from ClassScaleSegLib import ClassScaleError
from ClassScaleSegLib.cohort import dispatch as module
from ClassScaleSegLib.cohort.cluster import Cluster
from ClassScaleSegLib.cohort.dispatch import LEAVES, dispatch
from ClassScaleSegLib.cohort.local_workers import _renew
from test_dispatch import GOOD, Client, Seen, begins, dies, is_lost, run

distributed = pytest.importorskip("distributed")


def test_a_lost_scheduler_is_a_sentence_though_the_connection_is_closed(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_WITHOUT_SCHEDULER", 0.01)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN", 0.01)

    class Closed(Client):
        def unsubscribe_topic(self, topic):
            raise distributed.client.ClosedClientError("Client is closed.")

    def vanishes(client, name, future):
        client.status = "closed"

    client = Closed({"a": [[vanishes]]})
    with pytest.raises(ClassScaleError, match="The scheduler of the cluster does not answer any more"):
        dispatch(Cluster(client, "a stand-in", None), len, [("a", lambda: ("a",))], Seen(), "topic")


@pytest.mark.parametrize("call", ["submit", "subscribe_topic", "retire_workers"])
def test_a_client_that_has_given_up_is_a_sentence_whatever_it_is_asked(call):
    def closed(*_arguments, **_more):
        raise distributed.client.ClosedClientError(f"Client is closed. Can't send {call} message.")

    def gives_up(client, name, future):
        setattr(client, call, closed)
        future.end("finished", {"answer": "", LEAVES: "w1"}) if call == "retire_workers" else future.end("cancelled")

    client = Client({"a": [[gives_up], GOOD], "b": [GOOD]})
    with pytest.raises(ClassScaleError, match=r"scheduler of the cluster does not answer any more \(.*message\)\. Run"):
        dispatch(
            Cluster(client, "a stand-in", None), len, [(name, lambda n=name: (n,)) for name in "ab"], Seen(), "topic"
        )


def test_a_scheduler_that_was_restarted_is_asked_again_for_what_workers_tell():
    class Forgetful(Client):
        def submit(self, *arguments, **more):
            future = super().submit(*arguments, **more)
            self.heard = self._handler is not None
            return future

    def restarts(client, name, future):
        client._handler = None
        future.end("cancelled")

    client, seen = Forgetful({"a": [[restarts], GOOD]}), Seen()
    dispatch(Cluster(client, "a stand-in", None), len, [("a", lambda: ("a",))], seen, "topic")
    assert client.heard and [event[1] for event in seen.events] == ["running", "finished"]


@pytest.mark.parametrize(
    "error",
    [distributed.TimeoutError(), distributed.CancelledError(), distributed.scheduler.KilledWorker("a", None, 0)],
)
def test_an_answer_that_is_lost_with_its_worker_is_asked_for_again(error):
    def finishes(client, name, future):
        def result(timeout):
            raise error

        future.result = result
        future.end("finished")

    client, events, _ = run({"a": [[begins(), finishes], GOOD]})
    assert client.attempts == [("a", 1), ("a", 2)] and events[-1] == ("a", "finished", "done")


def test_images_that_cannot_be_sent_are_sent_later():
    calls = []

    def arguments(name):
        def make():
            calls.append(name)
            if len(calls) < 3:
                raise distributed.TimeoutError("No valid workers found")
            return (name,)

        return make

    _, events, _ = run({"a": [GOOD]}, arguments=arguments)
    assert len(calls) == 3 and events[-1] == ("a", "finished", "done")


def test_nothing_is_given_out_before_there_are_workers(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN", 0.01)
    client, seen = Client({"a": [GOOD]}, workers=0), Seen()
    looks = []

    def waiting(workers, hint):
        looks.append((workers, len(client.attempts)))
        client.workers = {"1": {"resources": {"GPU": 1}}}

    seen.waiting = waiting
    cluster = Cluster(client, "a queue", 4)
    dispatch(cluster, len, [("a", lambda: ("a",))], seen, "topic")
    assert looks[0] == (0, 0) and cluster.resources == {"GPU": 1}  # which only the worker itself could tell


def test_workers_that_die_with_every_case_end_the_run_before_thousands_are_tried():
    names = [f"case{number}" for number in range(99)]
    steps = {name: [[begins(f"{name}-{number}"), dies] for number in range(4)] for name in names}
    with pytest.raises(ClassScaleError, match="20 workers died while they segmented, and no case is done"):
        run(steps)
    _, events, _ = run({"good": [GOOD]} | dict(list(steps.items())[:9]))  # which are put aside instead
    assert [event[1] for event in events].count("failed") == 9


def test_a_case_that_is_lost_again_and_again_ends_the_run():
    with pytest.raises(ClassScaleError, match="Workers die before they begin"):
        run({"a": [[is_lost]] * 99})


def test_workers_on_this_machine_that_ended_for_good_are_started_anew():
    status = distributed.core.Status
    workers = {0: SimpleNamespace(status=status.running), 1: SimpleNamespace(status=status.closed)}
    scaled = []
    cluster = SimpleNamespace(workers=workers, scale=scaled.append, loop=SimpleNamespace(add_callback=lambda do: do()))
    client = Client({}, workers=2)
    connection = Cluster(client, "two workers", 2, renew=lambda: _renew(cluster, 2))
    assert not scaled
    client.workers = {"0": {"resources": {}}}
    connection.refresh()
    assert list(workers) == [0] and scaled == [2]
