"""Logs and traces."""

from typing import Literal

from pydantic import AnyHttpUrl, Field

from agent_app.config.section import Section


class Telemetry(Section):
    """Where spans go, and how much is told."""

    log_level: Literal["debug", "info", "warning"] = "info"
    """At debug the messages of exceptions are logged, which quote what they were given."""
    otlp_endpoint: AnyHttpUrl | Literal[""] = ""
    """Base URL of an OpenTelemetry collector (OTLP/HTTP, port 4318); "" records nothing."""
    service_name: str = Field(default="agent-app", min_length=1)
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of traces that begin here and are recorded."""
    accept_traceparent: bool = False
    """Go on with the trace that a client names, and let it decide what is recorded."""
    queue_spans: int = Field(default=2048, ge=16, le=100_000)
    """Spans that wait for the collector; more are dropped and counted."""
    export_seconds: float = Field(default=10, gt=0)
    """How long one batch is tried."""
