"""A server for tests of the panel, and the panel of a user who knows it."""

import numpy as np
import pytest
from ClassScaleSegLib.remote.servers import Servers
from ClassScaleSegLib.server.tokens import Tokens
from live_server import live_server
from slicer_application import add_volume, application, slicer, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that asks for a token, and such a token."""
    folder = tmp_path_factory.mktemp("server")
    token = Tokens(folder).make("anna")
    with live_server(folder, token=token, require_token=True) as api:
        yield api, token


@pytest.fixture
def lab(server, panel, tmp_path):
    """The panel of a user who knows the server."""
    api, token = server
    Servers().add("Lab", api.address, token)
    application.leave()
    application.enter()
    return panel


@pytest.fixture
def asked(monkeypatch):
    """The questions with Yes and No, which are answered with Yes."""
    questions = []
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **more: questions.append(text) or True, raising=False
    )
    return questions


def choose_device(panel, text):
    box = panel.ui.deviceComboBox
    box.setCurrentIndex(box.findText(text))


def choose_lab(panel):
    choose_device(panel, "Server: Lab")
    wait_until(lambda: panel.state.server.models is not None or panel.state.server.fault, 30)


def small_volume(name="CT"):
    return add_volume(np.random.default_rng(0).integers(0, 100, (30, 30, 30)).astype(np.int16), name)


@pytest.fixture
def unused_tcp_port():
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
