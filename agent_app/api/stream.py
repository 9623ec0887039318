"""Streams to clients: the response itself, and its end when the client leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agent_app.agent.run import Run
from agent_app.errors import RunInterrupted

T = TypeVar("T")

QUIET_SECONDS = 10.0
KEEP_ALIVE = b": keep-alive\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Server-sent events of a run; a client that leaves ends the run, at once or after a grace.

    Args:
        run: What the client follows.
        body: The bytes to send.
        headers: More headers.
        line: Names this connection to the run.
        grace_seconds: How long the run waits for its client to come back; 0: it is stopped, and
            waited for.
    """

    def __init__(
        self,
        run: Run,
        body: AsyncIterator[bytes],
        headers: dict[str, str],
        *,
        line: object | None = None,
        grace_seconds: float = 0,
    ) -> None:
        super().__init__(body, headers={**HEADERS, **headers}, media_type="text/event-stream")
        self._run = run
        self._line = line
        self._grace = grace_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send until the run or the client ends."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_client_leaves(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            if self._line is not None and self._grace:
                self._run.leave(self._line, self._grace)
                await _let_go(None, sending, leaving)
            else:
                await _let_go(self._run, sending, leaving, line=self._line)

    async def _send(self, send: Send) -> None:
        try:
            await self.stream_response(send)
        except OSError:  # gone: as good as a goodbye
            return


async def until_client_leaves(
    request: Request, run: Run, result: Awaitable[T], *, keep: bool = False
) -> T:
    """Return a run's result, or stop the run when its client leaves.

    Args:
        request: Whose client it is.
        run: Stopped in the end.
        result: What to wait for.
        keep: Leave the run going when the result is there.

    Raises:
        RunInterrupted: The client left.
    """
    kept = False
    collecting = asyncio.ensure_future(result)
    leaving = asyncio.create_task(_client_leaves(request.receive))
    try:
        await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if collecting.done():
            kept = keep and collecting.exception() is None
            return collecting.result()
        raise RunInterrupted("the client left")
    finally:
        await _let_go(None if kept else run, collecting, leaving)


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _let_go(
    run: Run | None, *tasks: "asyncio.Future[Any]", line: object | None = None
) -> None:
    """End the response's tasks and the run, even while we are being cancelled ourselves.

    The run stays if its client is back on another line already.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if run is not None and not (line is not None and run.has_other_line(line)):
        await asyncio.shield(asyncio.ensure_future(run.stop()))
