"""Traces: OpenTelemetry spans over the whole round, written to a local file if asked, else nowhere.

A shell module. No exporter unless configured; nothing leaves the machine. A span never carries a
member's loss, norm, data or key. Its ids stand in each ledger entry as W3C trace and span id.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fedproto.statements import Trace

ENVIRONMENT = "RENMEI_TRACE_FILE"
_PROPAGATOR = TraceContextTextMapPropagator()


class FileExporter(SpanExporter):
    """Append finished spans to a file, one JSON object a line; several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write each span with one write call, so that lines of two processes do not mix."""
        for span in spans:
            os.write(self._handle, (json.dumps(_to_dict(span)) + "\n").encode())
        return SpanExportResult.SUCCESS


def _to_dict(span: ReadableSpan) -> dict[str, object]:
    context = span.get_span_context()
    return {
        "name": span.name,
        "trace_id": f"{context.trace_id:032x}" if context else "",
        "span_id": f"{context.span_id:016x}" if context else "",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "service": span.resource.attributes.get("service.name", ""),
        "attributes": dict(span.attributes or {}),
        "status": span.status.status_code.name,
    }


def start(service: str) -> None:
    """Set up tracing for this process: spans are made, and written if RENMEI_TRACE_FILE says where."""
    provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=True)
    path = os.environ.get(ENVIRONMENT)
    if path:
        provider.add_span_processor(SimpleSpanProcessor(FileExporter(Path(path))))
    trace.set_tracer_provider(provider)


def tracer() -> trace.Tracer:
    """Return the tracer of this process."""
    return trace.get_tracer("renmei")


def current() -> Trace:
    """Return the ids of the current span for a ledger entry; zeros where there is none."""
    context = trace.get_current_span().get_span_context()
    return Trace(trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}")


def traceparent() -> str:
    """Return the W3C header of the current span, empty where there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def parent(traceparent_header: str) -> Context:
    """Return the context that continues a trace from another process."""
    return _PROPAGATOR.extract({"traceparent": traceparent_header})
