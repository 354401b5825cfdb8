"""Put the server together, and run it until it is stopped."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn

from ..addresses import is_loopback
from ..cohort.cluster import Cluster
from ..cohort.fitting import visible_gpus
from ..cohort.workers import check_where, open_cluster
from ..errors import ClassScaleError
from .app import Parts, make_app
from .connections import Connection, allow_open_files
from .converting import Converter
from .devices import default_slots, described
from .folder import opened_folder
from .guard import Guard
from .jobs import Jobs
from .limits import CONNECTIONS, Limits
from .offers import Offers
from .on_cluster import ClusterSlots
from .tokens import Tokens
from .uploads import Uploads
from .workers import Slot, Worker, adopt_unfinished

_SECONDS_BETWEEN_CLEANINGS = 5.0
_SECONDS_TO_STOP = 5.0
_AT_ONCE = 64  # jobs of a cluster, at most

log = logging.getLogger("classscaleseg.serve")


@dataclass(frozen=True)
class Settings:
    """How a server runs.

    :ivar folder: for tokens, images and results.
    :ivar models: paths, or ids or names of the catalogue.
    :ivar host: name or address to listen at.
    :ivar port: 0: any that is free.
    :ivar slots: where jobs run; by default one for each GPU, or the processor if there is none. With a cluster, the
        first one says what the device of a worker is.
    :ivar cluster: workers that run the jobs instead, as of :func:`~ClassScaleSegLib.cohort.workers.open_cluster`.
    :ivar require_token: also if it listens at loopback, as behind a proxy.
    :ivar certificate: file of the chain, PEM, for TLS.
    :ivar certificate_key: file of its key.
    """

    folder: Path
    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8471
    slots: tuple[Slot, ...] = ()
    require_token: bool = False
    certificate: Path | None = None
    certificate_key: Path | None = None
    limits: Limits = Limits()
    cluster: str | None = None

    @property
    def loopback(self) -> bool:
        """Whether nobody can reach it from other machines."""
        return is_loopback(self.host)

    @property
    def needs_token(self) -> bool:
        """Whether nobody may come in without a token."""
        return self.require_token or not self.loopback


class RunningServer:
    """A server that answers.

    :ivar address: such as ``http://127.0.0.1:8471``.
    """

    def __init__(self, server: uvicorn.Server, sockets: Sequence[socket.socket], address: str) -> None:
        self._server, self._sockets, self.address = server, list(sockets), address

    def run(self) -> None:
        """Answer requests until the process gets Ctrl-C or a termination signal, or `stop` is called."""
        self._server.run(self._sockets)

    def stop(self) -> None:
        """Answer no more requests. May be called from another thread."""
        self._server.should_exit = True


@contextmanager
def prepared(settings: Settings, offers: Offers | None = None) -> Iterator[RunningServer]:
    """Prepare a server, and clean up after it: the jobs that run are ended, images are removed.

    >>> import tempfile
    >>> with prepared(Settings(Path(tempfile.mkdtemp()), ("toy-120",), port=0, slots=(Slot("cpu", "cpu"),))) as server:
    ...     server.address.startswith("http://127.0.0.1:")
    True

    :raises ClassScaleError: if a model cannot be offered, a token is needed and there is none, a device or a file of
        the certificate is missing, or the address cannot be listened at.
    :raises Busy: if another server has the folder.
    """
    offers = offers or Offers(settings.models)
    with ExitStack() as stack:
        folder = stack.enter_context(opened_folder(settings.folder))
        tokens = Tokens(folder.root)
        if settings.needs_token and not tokens:
            raise ClassScaleError(
                "Nobody could use this server, as there is no token yet. Make one: classscaleseg serve token NAME."
            )
        adopt_unfinished(folder.unfinished, folder.results)
        uploads = Uploads(folder.uploads, settings.limits)
        jobs = Jobs(folder.unfinished, folder.results, uploads, settings.limits)
        if restored := jobs.restore():
            log.info("%d results of an earlier run can still be fetched", restored)
        slots = settings.slots or default_slots()
        listening = _listen(settings.host, settings.port)
        if settings.cluster is None:
            devices = described(slots)
            workers = [Worker(slot, jobs, offers, settings.limits) for slot in slots]
        else:
            cluster = ClusterSlots(stack.enter_context(_cluster(settings.cluster, folder.root, slots[0])))
            slot = replace(slots[0], name=cluster.cluster.what)
            workers = [Worker(slot, jobs, offers, settings.limits, cluster, cluster) for _ in range(_AT_ONCE)]
            devices = ({"name": "cluster", "about": cluster.cluster.what, "memory": None},)
        parts = Parts(offers, uploads, jobs, Converter(), devices)
        ended = threading.Event()
        janitor = threading.Thread(target=_clean, args=(ended, uploads, jobs), daemon=True, name="janitor")
        try:
            guarded = Guard(make_app(parts), tokens, settings.needs_token)
            server = uvicorn.Server(_configuration(settings, guarded))
            allow_open_files()
            for thread in (*workers, janitor):
                thread.start()
            port = listening[0].getsockname()[1]
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            scheme = "http" if settings.certificate is None else "https"
            yield RunningServer(server, listening, f"{scheme}://{host}:{port}")
        finally:
            ended.set()
            for worker in workers:
                worker.stop()
            jobs.close()
            for worker in workers:
                if worker.is_alive():
                    worker.join(_SECONDS_TO_STOP)
            uploads.close()
            for each in listening:
                each.close()


@contextmanager
def _cluster(where: str, folder: Path, slot: Slot) -> Iterator[Cluster]:
    """Start or find the workers of a cluster.

    :raises ClassScaleError: if there are none.
    """
    check_where(where)
    with open_cluster(where, folder, visible_gpus(slot.device), slot.threads) as cluster:
        yield cluster


def _configuration(settings: Settings, app: Callable[..., Any]) -> uvicorn.Config:
    for file in (settings.certificate, settings.certificate_key):
        if file is not None and not file.is_file():
            raise ClassScaleError(f"{file} does not exist. Name the files of the certificate and of its key.")
    try:
        configuration = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,  # streams of events would hold it up
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=64 << 10,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.certificate_key,
            ssl_ciphers="ECDHE+AESGCM:ECDHE+CHACHA20",  # of TLS 1.2; those of 1.3 are fixed
        )
        configuration.load()
        return configuration
    except (OSError, ValueError) as error:
        files = f"{settings.certificate} and {settings.certificate_key}"
        raise ClassScaleError(
            f"The certificate and its key cannot be used ({error}). {files} must be files in PEM that belong together."
        ) from error


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listen at an address now, so that a fault is told before anything starts."""
    if not 0 <= port <= 65535:  # the system would take the remainder
        raise ClassScaleError(f"{port} cannot be a port. Choose one from 1 to 65535, or 0 for a free one (--port).")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        said = f"The server cannot listen at {host}, port {port} ({getattr(error, 'strerror', None) or error})."
        raise ClassScaleError(f"{said} Choose another port (--port) or address of this machine (--host).") from error
    if is_loopback(host) and not is_loopback(listening.getsockname()[0]):
        listening.close()
        raise ClassScaleError(f"{host} is an address that other machines reach. Give 127.0.0.1 (--host) in its place.")
    # asyncio does so for sockets whose protocol it knows; else each answer, sent in two pieces, takes 40 ms longer
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setblocking(False)
    return [listening]


def _clean(ended: threading.Event, uploads: Uploads, jobs: Jobs) -> None:
    while not ended.wait(_SECONDS_BETWEEN_CLEANINGS):
        try:
            uploads.remove_old()
            jobs.remove_old()
        except Exception:
            log.exception("cleaning up")
