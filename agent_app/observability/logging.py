"""JSON lines on stdout, each with the correlation ID, for our loggers and all others.

No secret and no text of a conversation is ever in them: exceptions are told by type and place,
because their messages quote what they were given (a row, a query, an argument). At level `debug`
the messages are there too.
"""

import asyncio
import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import structlog
from asgi_correlation_id import correlation_id
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from agent_app.observability import tracing
from agent_app.observability.log_writer import LogWriter, standard_output
from agent_app.observability.secrets import without_secrets

FRAMES = 30
CHAINED = 5
QUIET = (
    *("httpx", "httpx2", "httpcore", "httpcore2", "uvicorn.access", "alembic"),
    *("langsmith", "mcp", "opentelemetry", "urllib3"),
)

_log = structlog.get_logger("agent_app.uncaught")


def configure_logging(level: int = logging.INFO) -> LogWriter:
    """Send every log of the process through one JSON formatter.

    Returns:
        What writes; closing it writes what still waits.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_correlation,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    writer = LogWriter(standard_output())
    writer.setFormatter(
        _SecretlessFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_Describe(texts=level <= logging.DEBUG)),
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [writer]
    root.setLevel(level)
    for noisy in QUIET:
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    _catch_what_nobody_caught()
    return writer


class _SecretlessFormatter(structlog.stdlib.ProcessorFormatter):
    """The last word on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return without_secrets(super().format(record))


def _add_correlation(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if current := correlation_id.get():
        event["request_id"] = current
    if trace := tracing.current_trace():
        event["trace_id"] = trace
    return event


class _Describe:
    """Tells an exception and what it came of: types and places.

    Args:
        texts: Its message too.
    """

    def __init__(self, *, texts: bool) -> None:
        self._texts = texts

    def __call__(self, exc_info: ExcInfo) -> str:
        error: BaseException | None = exc_info[1]
        lines: list[str] = []
        for _ in range(CHAINED):
            if error is None:
                break
            lines.append(self._name(error) if not lines else f"from {self._name(error)}")
            lines.extend(_places(error.__traceback__))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(lines)

    def _name(self, error: BaseException) -> str:
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        return f"{name}: {error}" if self._texts else name


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-FRAMES:]
    return [
        f"  at {'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}"
        for frame in frames
    ]


def _catch_what_nobody_caught() -> None:
    """Log as JSON what Python would print: crashes, dead threads, warnings."""
    logging.captureWarnings(True)

    def crashed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        _log.critical("crashed", exc_info=(kind, error, trace))

    def thread_died(arguments: threading.ExceptHookArgs) -> None:
        name = arguments.thread.name if arguments.thread else ""
        if error := arguments.exc_value:
            _log.error("thread_died", thread=name, exc_info=error)

    def ignored(unraisable: Any) -> None:
        _log.error("exception_ignored", exc_info=unraisable.exc_value)

    sys.excepthook = crashed
    threading.excepthook = thread_died
    sys.unraisablehook = ignored


def log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a task died of, as the event loop's exception handler.

    asyncio's own prints the task, and with it the exception's message.
    """
    task = context.get("task") or context.get("future")
    name = task.get_name() if isinstance(task, asyncio.Task) else ""
    _log.error(
        "event_loop", what=context.get("message"), task=name, exc_info=context.get("exception")
    )
