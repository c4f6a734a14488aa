"""Bytes of connections, as a server gets them: which bodies come at once, and that no more is held than may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from slimexport.target.serving.http.bodies import COLLECTED, PARTS, Room

uvicorn = pytest.importorskip("uvicorn", reason="pip install '.[serve]'")
collecting = pytest.importorskip("slimexport.target.serving.http.collecting", reason="pip install '.[serve]'")
server = pytest.importorskip("uvicorn.server")

MOST = 1000


class Application:
    """Reads bodies: `read` holds the parts of each as messages had them, `collected` what its scope holds in their place."""

    def __init__(self) -> None:
        self.read: list[list[bytes]] = []
        self.collected: list[list[bytes] | None] = []
        self.left = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            parts.append(message["body"])
            more = message["more_body"]
        self.read.append(parts)
        self.collected.append(scope.get("extensions", {}).get(COLLECTED, {}).get(PARTS))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


class Wire(asyncio.Transport):
    """The other side of a connection, which takes whatever is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def serve(
    play: Callable[[Callable[[], Any], Application, Room], Any], most: int = MOST, application: Application | None = None
) -> Application:
    """What an application got in `play`, which opens connections; at the end nothing is held."""
    application, room = application or Application(), Room(most)
    config = uvicorn.Config(application, proxy_headers=False, log_config=None)
    config.load()

    def connect() -> Any:
        protocol = collecting.Collecting(room, config=config, server_state=server.ServerState(), app_state={})
        protocol.connection_made(Wire())
        return protocol

    async def all_of_it() -> None:
        await play(connect, application, room)
        await settled()

    asyncio.run(all_of_it())
    assert room.taken == 0
    return application


def head(*headers: str, path: str = "/v2/models/net/infer") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


def test_a_short_body_wakes_the_application_once_with_the_parts_that_came() -> None:
    async def play(connect: Any, application: Application, room: Room) -> None:
        wire = connect()
        for data in (head("Content-Length: 9") + b"abc", b"def", b"ghi"):
            assert not application.read
            wire.data_received(data)
            assert room.taken == (0 if data == b"ghi" else 9)
            await settled()
        for _ in range(2):  # on the same connection, all at once
            wire.data_received(head("Content-Length: 2") + b"jk")
            await settled()
        assert wire.transport.written.count(b"HTTP/1.1 200 OK") == 3

    application = serve(play)
    assert application.read == [[b""]] * 3
    assert application.collected == [[b"abc", b"def", b"ghi"], [b"jk"], [b"jk"]]


@pytest.mark.parametrize(
    ("headers", "path", "data"),
    [
        (["Content-Length: 3"], "/v2/models/net", b"abc"),
        (["Transfer-Encoding: chunked"], "/v2/models/net/infer", b"3\r\nabc\r\n0\r\n\r\n"),
        ([f"Content-Length: {MOST + 1}"], "/v2/models/net/infer", b"abc" + b"d" * (MOST - 2)),
        (["Content-Length: 0"], "/v2/models/net/infer", b""),
    ],
)
def test_other_bodies_go_uvicorn_s_way(headers: list[str], path: str, data: bytes) -> None:
    async def play(connect: Any, application: Application, room: Room) -> None:
        connect().data_received(head(*headers, path=path) + data)
        assert room.taken == 0
        await settled()

    application = serve(play)
    body = b"abc" + b"d" * (MOST - 2) if len(data) > MOST else data and b"abc"
    assert (application.read, application.collected) == ([[body]], [None])


def test_a_long_body_goes_uvicorn_s_way_though_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "SHORT", 2)

    async def play(connect: Any, application: Application, room: Room) -> None:
        connect().data_received(head("Content-Length: 3") + b"abc")
        connect().data_received(head("Content-Length: 2") + b"ab")
        await settled()

    application = serve(play)
    assert sorted(application.read) == [[b""], [b"abc"]]


def test_what_does_not_fit_beside_others_goes_uvicorn_s_way() -> None:
    async def play(connect: Any, application: Application, room: Room) -> None:
        slow = connect()
        slow.data_received(head("Content-Length: 8") + b"abc")
        other = connect()
        other.data_received(head("Content-Length: 3") + b"xyz")
        await settled()
        assert (application.read, application.collected, room.taken) == ([[b"xyz"]], [None], 8)
        slow.data_received(b"defgh")
        await settled()

    application = serve(play, most=10)
    assert application.collected == [None, [b"abc", b"defgh"]]


def test_a_connection_that_ends_in_the_middle_gives_back_what_it_held() -> None:
    async def play(connect: Any, application: Application, room: Room) -> None:
        wire = connect()
        wire.data_received(head("Content-Length: 8") + b"abc")
        await settled()
        assert room.taken == 8
        wire.connection_lost(None)

    application = serve(play)
    assert (application.read, application.left) == ([], 1)


def test_one_request_behind_another_keeps_its_own_body_and_is_not_collected() -> None:
    """As pipelining clients send them: nobody would read it, and uvicorn stops reading before it holds much."""

    async def play(connect: Any, application: Application, room: Room) -> None:
        connect().data_received(b"".join(head("Content-Length: 2") + body for body in (b"ab", b"cd", b"ef")))
        assert room.taken == 0
        for _ in range(5):
            await settled()

    application = serve(play)
    assert application.collected == [[b"ab"], None, None]
    assert [b"".join(parts) for parts in application.read] == [b"", b"cd", b"ef"]


class Refusing(Application):
    """Answers before it has read anything."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


def test_a_body_that_nobody_waits_for_any_more_holds_nothing() -> None:
    async def play(connect: Any, application: Application, room: Room) -> None:
        wire = connect()
        wire.data_received(head("Content-Length: 8", path="/another/infer"))
        await settled()
        assert room.taken == 0
        wire.data_received(b"abc")
        assert room.taken == 0

    serve(play, application=Refusing())
