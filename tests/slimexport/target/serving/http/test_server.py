"""Where a server listens, and what is said where it cannot."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import urllib.request

import pytest

from slimtrain.base.errors import ResourceError, UserError
from tests.support.serving_fakes import FakeRuntime

server = pytest.importorskip("slimexport.target.serving.http.server", reason="pip install '.[serve]'")
app = pytest.importorskip("slimexport.target.serving.http.app", reason="pip install '.[serve]'")
bind, is_local, listen, url_of = server.bind, server.is_local, server.listen, server.url_of


def test_a_port_of_0_is_one_that_is_free() -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert port > 0 and url_of(listener) == f"http://127.0.0.1:{port}"


def test_connections_are_refused_until_it_listens() -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.getsockname(), timeout=60)
        listen(listener)
        socket.create_connection(listener.getsockname(), timeout=60).close()


def test_a_port_that_is_taken_is_one_message() -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        listen(listener)
        port = listener.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"127.0.0.1, port {port}: cannot listen there .*Choose another --port"):
            bind("127.0.0.1", port)


def test_of_two_that_were_bound_one_listens() -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with contextlib.closing(bind("127.0.0.1", port)) as second:
            listen(second)
            with pytest.raises(ResourceError, match=f"port {port}: cannot listen"):
                listen(first)


@pytest.mark.parametrize("host", ["no such host", "256.1.1.1", "a" * 300])
def test_a_host_that_is_none_is_one_message(host: str) -> None:
    with pytest.raises(UserError, match="not known") as error:
        bind(host, 0)
    assert error.value.exit_code == 2


def test_an_address_of_another_machine_is_one_message() -> None:
    with pytest.raises(ResourceError, match="cannot listen"):
        bind("192.0.2.1", 0)  # of documentation, nobody's


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_whether_only_this_machine_reaches_it_is_known(host: str, local: bool) -> None:
    with contextlib.closing(bind(host, 0)) as listener:
        assert is_local(listener) is local


def test_an_address_of_version_6_stands_in_brackets() -> None:
    try:
        listener = bind("::1", 0)
    except ResourceError:
        pytest.skip("no IPv6 here")
    with contextlib.closing(listener):
        assert url_of(listener).startswith("http://[::1]:") and is_local(listener)


def test_signals_are_the_caller_s_again_once_it_has_ended() -> None:
    """Ctrl-C ends it, and nothing is raised."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    running = server.make_server(app.make_app(FakeRuntime()))
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        listen(listener)
        url = f"{url_of(listener)}/v2/health/live"

        def end() -> None:
            with urllib.request.urlopen(url, timeout=60):  # answered, so its handlers stand
                pass
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=end)
        thread.start()
        running.run(sockets=[listener])
        thread.join(60)
    assert {number: signal.getsignal(number) for number in before} == before
    assert not running.force_exit
