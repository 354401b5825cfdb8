"""Asks a server what it is, what it offers and how many jobs wait there, in a thread, so that nothing waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from ..state import PanelState, ServerView
from ..widgets.texts import shortened
from .consent import agree_to_token, token_agreed

if TYPE_CHECKING:
    from ClassScaleSegLib.inference.progress import CancelToken
    from ClassScaleSegLib.remote.servers import KnownServer, Servers

ASKING_MILLISECONDS = 100  # between two looks at the thread
QUEUE_MILLISECONDS = 15_000  # after which a server is asked again how many jobs wait
_PATIENCE = 20.0  # seconds for which a server that has answered once may stay away
# In Slicer a thread runs only while Python code of the main thread lets it: its event loop keeps the interpreter.
_SECONDS_FOR_THREAD = 0.02


class ServerWatch:
    """Keeps ``server`` of the state up to date.

    :ivar timer: looks for answers.
    :param servers: the user's servers.
    :param on_changed: called without arguments when something new is known.
    """

    def __init__(self, state: PanelState, servers: Servers, on_changed: Callable[[], None]) -> None:
        self._state, self._servers, self._on_changed = state, servers, on_changed
        self._asking: Asking | None = None
        self.timer = qt.QTimer()
        self.timer.connect("timeout()", self.poll)

    def follow(self, device: str) -> None:
        """Take the device of the parameters into the state; a server that is new there is asked.

        Only a server of the user's list is: a scene of somebody else must not lead anywhere.
        """
        from ClassScaleSegLib.errors import ServerError
        from ClassScaleSegLib.remote.address import server_of

        wanted, before = server_of(device), self._state.server
        if wanted is None or before is None or before.device != wanted:
            self.close()
        if wanted is None:
            return
        if (view := self._state.server) is not None:
            if view.server is not None and not view.fault and not self.timer.active:  # the module was left meanwhile
                self._ask(view.server)
            return
        try:
            server = self._servers.find(wanted)
        except ServerError as error:
            self._state.server = ServerView(wanted, fault=str(error))
            return
        self._state.server = ServerView(wanted, server)
        if server is None:
            text = _("The device is the server {name}, which is not in your list. Add it, or select another device.")
            self._state.server = replace(self._state.server, fault=text.format(name=shortened(wanted, 80)))
        else:
            self._ask(server)

    def ask(self) -> None:
        """Ask the server again, because the user has changed the list of servers."""
        if self._state.server is not None:
            device = f"server:{self._state.server.device}"
            self.close()
            self.follow(device)
            self._on_changed()

    def again(self) -> None:
        """Ask the server again, because the user wants it; of a token that others could read, ask the user first."""
        view = self._state.server
        if view is not None and (not view.unasked or agree_to_token(view)):
            self.ask()

    def close(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()
        self._asking = self._state.server = None
        self.timer.stop()

    def poll(self) -> None:
        """Look for an answer; if there is one, note it, and ask again later."""
        view, asking = self._state.server, self._asking
        if view is None or view.server is None:
            return
        if asking is None:
            if self._state.parameters is None:  # another module is open
                self.timer.stop()
            elif self._state.run is None:
                self._ask(view.server)
            return
        found = asking.answer()
        if found is None:
            return
        self._asking = None
        self._state.server = replace(found, device=view.device)
        self.timer.stop()
        if not found.fault:  # it might take more for guessing of tokens
            self.timer.start(QUEUE_MILLISECONDS)
        self._on_changed()

    def _ask(self, server: KnownServer) -> None:
        self._asking = Asking(self._servers, server, self._state.server)
        self.timer.start(ASKING_MILLISECONDS)


class Asking:
    """A question to a server, which a thread waits for.

    :param before: the last answer; unless the server was started again since, its models are still the same.
    """

    def __init__(self, servers: Servers, server: KnownServer, before: ServerView | None = None) -> None:
        self._answers: queue.SimpleQueue[ServerView] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        arguments = (servers, server, before, token_agreed(server.address))
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Wait for no answer any longer."""
        self._cancelled.set()

    def answer(self) -> ServerView | None:
        """Return the answer, if it has come."""
        if self._thread.is_alive():
            time.sleep(_SECONDS_FOR_THREAD)
        try:
            return self._answers.get_nowait()
        except queue.Empty:
            return None

    def _run(self, servers: Servers, server: KnownServer, before: ServerView | None, agreed: bool) -> None:
        self._answers.put(ask_server(servers, server, agreed, self._cancelled, before))


def ask_server(
    servers: Servers, server: KnownServer, agreed: bool, cancel: CancelToken, before: ServerView | None = None
) -> ServerView:
    """Return what a server says of itself; this waits for its answer.

    :param agreed: the token may be sent although others could read it.
    """
    from ClassScaleSegLib.errors import Cancelled, ClassScaleError
    from ClassScaleSegLib.remote.chosen_server import ChosenServer
    from ClassScaleSegLib.remote.faults import Unencrypted

    view = ServerView(server.address, server)
    try:
        with servers.segmenter(server, _PATIENCE, insecure=agreed) as segmenter:
            health = segmenter.health(cancel)
            models = before.models if before is not None else None
            if models is None or before is None or before.health is None or before.health.instance != health.instance:
                models = {model.id: model for model in segmenter.models(cancel)}
            # nothing is sent to it before the user has agreed
            chosen = ChosenServer(server.address, segmenter.connection.token, server.ca, models, insecure=True)
        return replace(view, health=health, models=models, chosen=chosen)
    except Cancelled:
        return view
    except ClassScaleError as error:
        return replace(view, fault=str(error), unasked=isinstance(error, Unencrypted))
    except Exception as error:  # a bug here or in a package; the panel must not wait for ever
        logging.exception("A server could not be asked")
        return replace(view, fault=f"{server.address}: {type(error).__name__}: {error}")
