"""Twenty clients at once, in a network that breaks connections at random; some cancel, and the server restarts."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import SimpleITK as sitk
from ClassScaleSegLib import RemoteSegmenter
from ClassScaleSegLib.errors import Cancelled
from ClassScaleSegLib.remote import connection, sending
from ClassScaleSegLib.server.limits import Limits
from ClassScaleSegLib.server.offers import Offers
from remote_fixtures import Network, Quick, quick_server

CLIENTS = 20
UP = (200, 5_000, 300_000, 700_000, 1 << 40, 1 << 40)  # bytes after which a connection breaks
DOWN = (100, 3_000, 60_000, 1 << 40, 1 << 40, 1 << 40)


def break_at_random(network: Network, ended: threading.Event) -> None:
    chance = random.Random(7)
    while not ended.wait(0.02):
        if len(network.up) < 5:
            network.up.append(chance.choice(UP))
            network.down.append(chance.choice(DOWN))


def segment(number: int, address: str, outcomes: dict[int, object]) -> None:
    """Segment an image of this number; note whether the result is its own."""
    voxels = np.random.default_rng(number).normal(0, 100, (70, 80, 90)).astype(np.int16)
    cancel = threading.Event()
    if number % 4 == 3:
        threading.Timer(0.2 * number, cancel.set).start()
    try:
        with RemoteSegmenter(address, patience=60) as segmenter:
            found = segmenter.segment(sitk.GetImageFromArray(voxels), "toy-120", cancel=cancel)
        outcomes[number] = np.array_equal(found.labels, voxels > voxels.mean())
    except Cancelled:
        outcomes[number] = number % 4 == 3
    except BaseException as error:
        outcomes[number] = error


def test_everybody_gets_the_result_of_the_own_image_and_no_job_is_done_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_PAUSES", (0.05, 0.1, 0.2, 0.4))
    monkeypatch.setattr(connection, "_FIRST_ATTEMPTS", 20)  # three connections in a row may break
    monkeypatch.setattr(sending, "PART_BYTES", 1 << 18)
    quick, offers, more = Quick(lambda job: job.stop.wait(0.1)), Offers(["toy-120"]), {"limits": Limits(jobs=50)}
    outcomes: dict[int, object] = {}
    ended = threading.Event()
    with quick_server(tmp_path, offers, quick, monkeypatch, **more) as api:
        port, network = int(api.address.rpartition(":")[2]), Network(api.address)
        threading.Thread(target=break_at_random, args=(network, ended), daemon=True).start()
        address = network.address
        clients = [threading.Thread(target=segment, args=(n, address, outcomes), daemon=True) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        while len(quick.finished) < 3:
            time.sleep(0.02)
    with quick_server(tmp_path, offers, quick, monkeypatch, port=port, **more) as api:
        try:
            for client in clients:
                client.join(90)
        finally:
            ended.set()
            network.close()
        assert outcomes == dict.fromkeys(range(CLIENTS), True)
        assert len(quick.finished) == len(set(quick.finished))
        assert network.connections > 3 * CLIENTS
        assert api("get", "health").json()["queue"] == {"waiting": 0, "running": 0}
        assert all(file.startswith("results") for file in api.files())  # a request to remove them may have been lost
