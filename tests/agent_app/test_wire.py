"""The transport to engines, against servers that misbehave on the socket itself."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from agent_app.agent.wire import EngineTransport, read_lines

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Server:
    """Talks on each connection as the test says, request after request."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.connections = 0
        self.ended = asyncio.Event()
        self.requests: list[bytes] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self.talk(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def talking(
    talk: Talk, *, silence: float = 5
) -> AsyncIterator[tuple[Server, httpx2.AsyncClient]]:
    server = Server(talk)
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with httpx2.AsyncClient(
        transport=EngineTransport(ssl.create_default_context(), idle=4),
        base_url=f"http://127.0.0.1:{port}",
        timeout=httpx2.Timeout(3, read=silence),
    ) as client:
        yield server, client
    listening.close()


async def lines_of(client: httpx2.AsyncClient) -> list[str]:
    async with client.stream("POST", "/v1", json={"a": "ü"}) as response:
        assert response.status_code == 200
        return [line async for line in read_lines(response)]


async def test_a_stream_is_read_whole_however_it_is_cut_and_its_connection_kept() -> None:
    whole = "data: eins\n\ndata: zwölf\n\ndata: [DONE]\n\n".encode()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = HEAD + b"".join(chunk(whole[n : n + 3]) for n in range(0, len(whole), 3))
        for n in range(0, len(sent), 7):
            writer.write(sent[n : n + 7])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    async with talking(talk) as (server, client):
        for _ in range(3):
            assert await lines_of(client) == whole.decode().split("\n")[:-1]
        assert server.connections == 1
        assert server.requests[0].endswith('{"a":"ü"}'.encode())


async def test_a_reader_that_stops_at_the_last_event_keeps_the_connection_too() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: a\n\n") + chunk(DONE))
        await writer.drain()
        await asyncio.sleep(0.05)  # the end comes in a packet of its own
        writer.write(b"0\r\n\r\n")

    async with talking(talk) as (server, client):
        for _ in range(3):
            async with client.stream("POST", "/v1", json={}) as response:
                async for line in read_lines(response):
                    if line == "data: [DONE]":
                        break
        assert server.connections == 1


async def test_a_reader_that_leaves_cuts_the_connection() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: a\n\n"))
        await reader.readexactly(1)

    async with talking(talk) as (server, client):
        async with client.stream("POST", "/v1", json={}) as response:
            await anext(aiter(read_lines(response)))
        async with asyncio.timeout(1):
            await server.ended.wait()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", httpx2.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n", httpx2.RemoteProtocolError),
        (b"garbage that is no HTTP\r\n\r\n", httpx2.RemoteProtocolError),
        (HEAD + chunk(b"data: a\n\n"), httpx2.RemoteProtocolError),
        (HEAD + b"zz\r\n", httpx2.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", httpx2.RemoteProtocolError),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nab",
            httpx2.RemoteProtocolError,
        ),
    ],
)
async def test_a_response_that_is_not_whole_is_an_error(
    sent: bytes, error: type[Exception]
) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.close()

    async with talking(talk) as (_, client):
        with pytest.raises(error):
            await lines_of(client)


async def test_a_response_without_a_length_ends_with_its_connection() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\ndata: a\n")
        await writer.drain()
        writer.close()

    async with talking(talk) as (server, client):
        assert await lines_of(client) == ["data: a"]
        assert await lines_of(client) == ["data: a"]
        assert server.connections == 2


async def test_silence_is_bounded_but_a_slow_reader_is_not_silence() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: a\n"))
        await asyncio.sleep(0.1)
        writer.write(chunk(b"data: b\n"))
        await writer.drain()
        await asyncio.sleep(5)

    async with (
        talking(talk, silence=0.3) as (_, client),
        client.stream("POST", "/v1", json={}) as response,
    ):
        lines = aiter(read_lines(response))
        assert await anext(lines) == "data: a"
        await asyncio.sleep(0.6)
        assert await anext(lines) == "data: b"
        with pytest.raises(httpx2.ReadTimeout):
            await anext(lines)


async def test_a_reader_that_is_slow_holds_the_engine_back() -> None:
    written = 0

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(HEAD)
        for _ in range(2000):
            writer.write(chunk(b"x" * 10_000))
            await writer.drain()
            written += 10_000
        writer.write(b"0\r\n\r\n")

    async with talking(talk) as (_, client), client.stream("POST", "/v1", json={}) as response:
        body = aiter(response.aiter_bytes())
        first = await anext(body)
        await asyncio.sleep(0.5)
        assert written < 10_000_000
        assert len(first) + sum([len(piece) async for piece in body]) == 20_000_000


async def test_nobody_at_home_is_a_connect_error() -> None:
    transport = EngineTransport(ssl.create_default_context(), idle=4)
    async with httpx2.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.post("http://127.0.0.1:1/v1", json={})


async def test_a_connection_that_the_engine_closed_meanwhile_is_not_used_again() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ndata: a\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    async with talking(talk) as (server, client):
        assert await lines_of(client) == ["data: a"]
        await asyncio.sleep(0.2)
        assert await lines_of(client) == ["data: a"]
        assert server.connections == 2


@pytest.mark.parametrize(
    ("pause", "count", "fewest", "most"), [(0.002, 100, 5, 60), (0.06, 15, 15, 15)]
)
async def test_a_fast_stream_is_read_in_gulps_and_a_slow_one_at_once(
    pause: float, count: int, fewest: int, most: int
) -> None:
    sent: list[float] = []

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(count):
            sent.append(time.monotonic())
            writer.write(chunk(b"data: x\n\n"))
            await asyncio.sleep(pause)
        writer.write(b"0\r\n\r\n")

    got: list[float] = []
    pieces = 0
    async with talking(talk) as (_, client), client.stream("POST", "/v1", json={}) as response:
        async for piece in response.aiter_bytes():
            pieces += 1
            got += [time.monotonic()] * piece.count(b"data")
    assert len(got) == count
    assert fewest <= pieces <= most
    late = sorted(g - s for g, s in zip(got, sent, strict=True))
    assert got[0] - sent[0] < 0.02
    assert late[len(late) // 2] < (0.05 if pause < 0.01 else 0.01)


async def test_connections_that_died_idle_make_room_for_others() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ndata: a\n")
        await writer.drain()
        if server.connections <= 8:  # the first ones die, those after them stay
            await asyncio.sleep(0.05)
            writer.close()

    async with talking(talk) as (server, client):
        await asyncio.gather(*(lines_of(client) for _ in range(8)))
        await asyncio.sleep(0.2)
        for _ in range(5):
            await lines_of(client)
        assert server.connections == 9


async def test_a_kept_connection_that_was_closed_is_replaced_unseen() -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")  # the next request is there, and is not answered
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with httpx2.AsyncClient(
            transport=EngineTransport(ssl.create_default_context(), idle=4)
        ) as client:
            for _ in range(3):
                answer = await client.get(f"http://127.0.0.1:{port}/")
                assert answer.text == "ok"
    assert served == 3
