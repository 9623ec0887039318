"""A server as a child process of ours, spoken to over stdin and stdout.

The SDK has a transport for this; ours bounds what the SDK's does not: the size of a line, the
number of messages, what reaches the log, and the environment.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from agent_app.config import McpServer, read_secret
from agent_app.tools.mcp.lines import Allowance, Lines, TooLong

MESSAGE_BYTES = 1_048_576  # as much as the SDK takes in one event over HTTP
CHUNK_BYTES = 65_536
MESSAGES_PER_SECOND = 500
MESSAGES_AT_ONCE = 2_000
GARBAGE_LINES = 100
LOG_LINE_CHARACTERS = 400
LOG_LINES_PER_SECOND = 1
LOG_LINES_AT_ONCE = 20
LEAVE_SECONDS = 2.0  # from the end of stdin to SIGTERM, and from there to SIGKILL
POLL_SECONDS = 0.01
LANGUAGE = "C.UTF-8"

_ID = re.compile(rb'"id"\s*:\s*(\d{1,15})\b')

Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]

log = structlog.get_logger(__name__)


class Misbehaved(Exception):
    """The server does not speak MCP, or floods us."""


def make_environment(settings: McpServer) -> dict[str, str]:
    """Return a server's environment: nothing of ours but PATH, then what the configuration names.

    Raises:
        ConfigError: A credential is missing.
    """
    secrets = {name: read_secret(credential) for name, credential in settings.credentials.items()}
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LANG": LANGUAGE, **settings.env, **secrets}


@contextlib.asynccontextmanager
async def open_stdio(
    name: str, settings: McpServer, environment: dict[str, str], ended: Callable[[], None]
) -> AsyncIterator[Streams]:
    """Run the server; it and all its children are gone afterwards.

    Args:
        name: The server's, for the log.
        settings: Its command.
        environment: All of its environment.
        ended: Called when it closes its stdout or misbehaves.

    Raises:
        OSError: It cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *_tied_to_us(settings.command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=settings.cwd or None,
        start_new_session=True,  # a process group of its own, which `_end` can end whole
    )
    to_us, inbox = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outbox, to_server = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with to_us:
            try:
                await _read(process, to_us)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass
            except Misbehaved as error:
                log.warning("mcp_server_misbehaved", server=name, why=str(error))
            finally:
                ended()

    async def write() -> None:
        assert process.stdin is not None
        async with to_server:
            with contextlib.suppress(OSError):
                async for message in to_server:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    process.stdin.write(text.encode() + b"\n")
                    await process.stdin.drain()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(write)
            group.start_soon(_log_stderr, name, process)
            try:
                yield inbox, outbox
            finally:
                group.cancel_scope.cancel()
    finally:
        inbox.close()
        outbox.close()
        with anyio.CancelScope(shield=True):
            await _end(process)


def _tied_to_us(command: tuple[str, ...]) -> tuple[str, ...]:
    """Have the kernel kill the server when we are killed, where util-linux is there to ask for it.

    Elsewhere it sees the end of its stdin, and systemd ends what is left of our unit.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--", *command) if setpriv else command


async def _read(
    process: asyncio.subprocess.Process, to_us: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    assert process.stdout is not None
    lines, garbage = Lines(MESSAGE_BYTES), 0
    pace = Allowance(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE)
    while chunk := await process.stdout.read(CHUNK_BYTES):
        for line in lines.feed(chunk):
            if not pace.take():
                raise Misbehaved(f"it sends more than {MESSAGES_PER_SECOND} messages a second")
            message = _parse(line)
            if message is None:
                garbage += 1
                if garbage > GARBAGE_LINES:
                    raise Misbehaved(f"{garbage} lines of its stdout were not MCP")
                continue
            await to_us.send(message)


def _parse(line: bytes | TooLong) -> SessionMessage | None:
    """Return a line's message; of one too long, the failure of the request that it answers."""
    if isinstance(line, TooLong):
        found = _ID.search(line.head)
        if found is None:
            return None
        error = ErrorData(code=INTERNAL_ERROR, message=f"the result is over {MESSAGE_BYTES} bytes")
        return SessionMessage(JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error))
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return None


async def _log_stderr(name: str, process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    lines, dropped = Lines(LOG_LINE_CHARACTERS * 4), 0
    allowance = Allowance(LOG_LINES_PER_SECOND, LOG_LINES_AT_ONCE)
    while chunk := await process.stderr.read(CHUNK_BYTES):
        for line in lines.feed(chunk):
            text = line.head if isinstance(line, TooLong) else line
            if not text.strip():
                continue
            if not allowance.take():
                dropped += 1
                continue
            said = text.decode(errors="replace")[:LOG_LINE_CHARACTERS]
            log.info("mcp_server_says", server=name, text=said, lines_left_out=dropped)
            dropped = 0


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its stdin, then SIGTERM, then SIGKILL to all of its group, each a while later."""
    assert process.stdin is not None
    process.stdin.close()
    if not await _is_gone(process):
        _signal_group(process.pid, signal.SIGTERM)
        await _is_gone(process)
    _signal_group(process.pid, signal.SIGKILL)  # also what it left behind
    if not await _is_gone(process):
        log.error("mcp_server_not_gone", process=process.pid)
    if transport := getattr(process, "_transport", None):  # a survivor may still hold the pipes
        transport.close()


async def _is_gone(process: asyncio.subprocess.Process) -> bool:
    """Wait a while for its end; not by `process.wait()`, which waits for the pipes' too."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while process.returncode is None and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
    return process.returncode is not None


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
