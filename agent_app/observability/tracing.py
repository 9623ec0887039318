"""Spans, where OpenTelemetry is configured; else nothing, at the cost of a comparison.

Attributes follow the semantic conventions for HTTP and generative AI. They carry names and
figures, never a text of a conversation or an exception's message.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

Value = str | int | float | bool | tuple[str, ...]
Attributes = Mapping[str, Value]
Kind = Literal["internal", "server", "client"]


class Span:
    """A span under way; this one is of those that nobody records."""

    headers: Mapping[str, str] = {}
    """W3C trace context for whom we call within it."""

    def name(self, name: str) -> None:
        """Give it another name."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note that something happened."""

    def fail(self, kind: str) -> None:
        """Say that it failed, by a short word."""

    def end(self) -> None:
        """End it."""


class Tracer(Protocol):
    """What records spans."""

    def begin(
        self, name: str, kind: Kind, attributes: Attributes, carrier: Mapping[str, str] | None
    ) -> Span:
        """Begin a span under the current one, or under a carrier's trace context."""

    def current(self, span: Span) -> AbstractContextManager[None]:
        """Make a span the current one of this task."""

    def trace_id(self) -> str:
        """Return the current trace's ID in hex, "" where none is recorded."""


NOTHING = Span()
_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Record with a tracer from now on; None ends it."""
    global _tracer  # noqa: PLW0603 - one per process, as loggers are
    _tracer = tracer


def current_trace() -> str:
    """Return the current trace's ID, "" where there is none."""
    return _tracer.trace_id() if _tracer is not None else ""


def begin(name: str, kind: Kind, attributes: Attributes) -> Span:
    """Begin a span that is not made current: for generators, whose context is their caller's."""
    return NOTHING if _tracer is None else _tracer.begin(name, kind, attributes, None)


@contextmanager
def span(
    name: str,
    attributes: Attributes,
    *,
    kind: Kind = "internal",
    carrier: Mapping[str, str] | None = None,
) -> Iterator[Span]:
    """Record what happens within; never around a `yield`.

    Args:
        name: Of few kinds: no identifiers in it.
        attributes: Known at the start.
        kind: `server` for what was asked of us, `client` for what we ask of others.
        carrier: Headers of who asked, where its trace is to go on here.
    """
    if _tracer is None:
        yield NOTHING
        return
    begun = _tracer.begin(name, kind, attributes, carrier)
    try:
        with _tracer.current(begun):
            yield begun
    except BaseException as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        begun.end()
