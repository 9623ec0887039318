"""OpenTelemetry over OTLP/HTTP; imported only where the configuration names a collector.

A collector that is slow or away costs spans, which are counted, and never time: what is recorded
waits in a bounded queue for a thread of its own.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent_app import __version__
from agent_app.config import Telemetry
from agent_app.observability import metrics, tracing

BATCH_SPANS = 256
BATCH_SECONDS = 2.0
CLOSE_SECONDS = 3.0

_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
}
_propagator = TraceContextTextMapPropagator()


class _Recorded(tracing.Span):
    """A span of OpenTelemetry's."""

    def __init__(self, span: trace.Span, context: Context) -> None:
        self.inner = span
        self._context = context

    @property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, context=self._context)
        return carrier

    def name(self, name: str) -> None:
        self.inner.update_name(name)

    def set(self, attributes: tracing.Attributes) -> None:
        self.inner.set_attributes(dict(attributes))

    def event(self, name: str, attributes: tracing.Attributes | None = None) -> None:
        self.inner.add_event(name, dict(attributes or {}))

    def fail(self, kind: str) -> None:
        self.inner.set_status(trace.StatusCode.ERROR)
        self.inner.set_attribute("error.type", kind)

    def end(self) -> None:
        self.inner.end()


class _Losses(SpanExporter):
    """Counts what an exporter could not hand over."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            metrics.SPANS_DROPPED.labels("collector").inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _BoundedQueue(BatchSpanProcessor):
    """Drops, and counts, what the queue has no room for."""

    def __init__(self, exporter: _Losses, most: int) -> None:
        super().__init__(
            exporter,
            max_queue_size=most,
            max_export_batch_size=min(BATCH_SPANS, most),
            schedule_delay_millis=BATCH_SECONDS * 1000,
        )
        self._losses = exporter
        self._most = most
        self._given = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._given - self._losses.taken >= self._most:
            metrics.SPANS_DROPPED.labels("queue_full").inc()
            return
        self._given += 1
        super().on_end(span)


class OtlpTracer:
    """Records spans and sends them to a collector.

    Args:
        telemetry: Where, as what, and how many.
        headers: For the collector, such as its authorization.
        ca_file: CA of an https collector, "" for the system's.
        instance: This process among all of the service.
    """

    def __init__(
        self, telemetry: Telemetry, headers: dict[str, str], ca_file: str, instance: str
    ) -> None:
        exporter = OTLPSpanExporter(
            endpoint=f"{str(telemetry.otlp_endpoint).rstrip('/')}/v1/traces",
            headers=headers,
            timeout=telemetry.export_seconds,
            certificate_file=ca_file or None,
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(telemetry.sample_ratio)),
            resource=Resource.create(
                {
                    "service.name": telemetry.service_name,
                    "service.version": __version__,
                    "service.instance.id": instance,
                }
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_BoundedQueue(_Losses(exporter), telemetry.queue_spans))
        self._tracer = self._provider.get_tracer("agent_app", __version__)

    def begin(
        self,
        name: str,
        kind: tracing.Kind,
        attributes: tracing.Attributes,
        carrier: Mapping[str, str] | None,
    ) -> tracing.Span:
        """Begin a span."""
        parent = _propagator.extract(dict(carrier)) if carrier else None
        begun = self._tracer.start_span(
            name, context=parent, kind=_KINDS[kind], attributes=dict(attributes)
        )
        return _Recorded(begun, trace.set_span_in_context(begun))

    @contextmanager
    def current(self, span: tracing.Span) -> Iterator[None]:
        """Make a span current."""
        assert isinstance(span, _Recorded)
        with trace.use_span(
            span.inner, end_on_exit=False, record_exception=False, set_status_on_exception=False
        ):
            yield

    def trace_id(self) -> str:
        """Return the current trace's ID."""
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else ""

    async def close(self) -> None:
        """Send what waits, but do not wait on a collector that is away."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_SECONDS)
