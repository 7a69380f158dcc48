"""Sending of traces by OTLP. Imported by `tracing` only where a receiver is configured: the SDK is an extra."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, Tracer, TraceState, set_span_in_context
from opentelemetry.util.types import Attributes
from requests import Response, Session

from product_gateway.telemetry.version import version

logger = logging.getLogger(__name__)

SECONDS_TO_FLUSH = 1.5  # of the ten seconds that a process has to stop
SECONDS_BETWEEN_WARNINGS = 60.0


@contextmanager
def exporting_tracer(endpoint: str) -> Iterator[Tracer]:
    """A tracer whose spans a thread sends to `endpoint`. The exit flushes what is left, for SECONDS_TO_FLUSH."""
    # OpenTelemetry would log every failed batch, and might quote the headers that it sends.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    own = {"service.name": "product-gateway", "service.version": version()}
    resource = Resource.create(own).merge(OTELResourceDetector().detect())  # the operator's own names win
    exporter = LoggingExporter(endpoint)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.sampler = LinkedSampler(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("product_gateway", version())
    finally:
        flush = threading.Thread(target=provider.shutdown, name="last-traces", daemon=True)
        flush.start()
        flush.join(SECONDS_TO_FLUSH)
        exporter.shutdown()  # type: ignore[no-untyped-call]


class LinkedSampler(Sampler):
    """A sampler that treats the one link of a root span as its parent: a sync is sampled if its request was."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Let the operator's sampler (OTEL_TRACES_SAMPLER) decide."""
        if links:
            parent_context = set_span_in_context(NonRecordingSpan(links[0].context), Context())
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"LinkedSampler({self._sampler.get_description()})"


class LoggingExporter(OTLPSpanExporter):
    """OTLP over HTTP. Logs at most once a minute that batches are lost."""

    def __init__(self, endpoint: str) -> None:
        session = Session()
        session.hooks["response"].append(self._keep_status)
        super().__init__(endpoint, session=session)
        self._status: int | None = None
        self._quiet_until = 0.0

    def _keep_status(self, response: Response, *_: Any, **__: Any) -> None:
        self._status = response.status_code

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch. Takes up to 10 s, retries included."""
        self._status = None
        result = super().export(spans)
        now = time.monotonic()
        if result is not SpanExportResult.SUCCESS and now >= self._quiet_until:
            self._quiet_until = now + SECONDS_BETWEEN_WARNINGS
            what = "does not answer" if self._status is None else f"answers {self._status}"
            logger.warning("Traces are lost: their receiver, OTEL_EXPORTER_OTLP_ENDPOINT, %s.", what)
        return result
