"""The server: uvicorn on a socket of ours. On SIGTERM and Ctrl-C it takes no more connections, and answers what waits."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from slimexport.target.serving.http.bodies import Room
from slimtrain.base.errors import ResourceError, UserError
from slimtrain.base.packages import is_installed

BACKLOG = 2048
KEEP_ALIVE_S = 75  # longer than balancers keep idle connections: theirs to close
DRAIN_S = 30  # for bodies that are still coming; what waits in the runtime takes less


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, which refuses connections until it listens. UserError for a host that is none, ResourceError for
    a port that is taken or not allowed."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(
            f"host {host!r}: not known ({error}). Give an address of this machine, as 127.0.0.1 or 0.0.0.0."
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it lets two processes take one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unusable(host, port, error) from error
    return listener


def listen(listener: socket.socket) -> None:
    """From now on connections wait. ResourceError where another process was quicker."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _unusable(host, port, error) from error


def _unusable(host: str, port: int, error: OSError) -> ResourceError:
    return ResourceError(f"{host}, port {port}: cannot listen there ({error.strerror}). Choose another --port, or --host.")


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


class Server(uvicorn.Server):
    """One that ends on signals, and ends the process with nothing but its return: uvicorn's own raises them again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(app: ASGIApp) -> Server:
    """A server for an application. `run(sockets=[listener])` ends on a signal, on a second Ctrl-C without waiting; in another
    thread once `should_exit` is set."""
    return Server(
        uvicorn.Config(
            app,
            http=_protocol(),
            loop="auto",  # uvloop where it is installed: a tenth of a millisecond less a request
            lifespan="on",
            ws="none",
            log_config=None,
            log_level="error",  # what clients do wrong is their affair, and metrics'
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,  # nothing asks who sent a request: a layer less
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )


def _protocol() -> Any:
    """What reads HTTP: uvicorn's, with the parser that is installed."""
    if not is_installed("httptools"):
        return "auto"
    from slimexport.target.serving.http.collecting import MOST, Collecting

    return partial(Collecting, Room(MOST))
