"""OpenTelemetry, for `tracing`, which imports this room where a receiver of traces is configured."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from requests import Response, Session

from product_gateway.errors import GatewayError, PullFailed, Unavailable
from product_gateway.telemetry import logs

logger = logging.getLogger(__name__)

SECONDS_TO_FLUSH = 1.5  # of the ten that a process has for its end
SECONDS_BETWEEN_COMPLAINTS = 60.0
CARRIED = (b"traceparent", b"tracestate")


METHODS = frozenset(("GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"))


class Spans:
    """Makes spans, and sends them from a thread of its own: nobody waits for a receiver, whatever becomes of it."""

    def __init__(self, endpoint: str) -> None:
        # What goes wrong in there we say ourselves: it would with every batch, and might quote the headers it sends.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        us = {"service.name": "product-gateway", "service.version": version("product-gateway")}
        resource = Resource.create(us).merge(OTELResourceDetector().detect())  # the operator's own names win
        self._exporter = LoggingExporter(endpoint)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("product_gateway", version("product-gateway"))
        self._propagator = TraceContextTextMapPropagator()

    def end(self) -> None:
        """Sends what is left; gives up after a while."""
        sending = threading.Thread(target=self._provider.shutdown, name="last-traces", daemon=True)
        sending.start()
        sending.join(SECONDS_TO_FLUSH)
        self._exporter.shutdown()

    def request(
        self, method: str, scheme: str, path: str, headers: Sequence[tuple[bytes, bytes]]
    ) -> AbstractContextManager[None]:
        """The conventions for HTTP servers: opentelemetry.io/docs/specs/semconv/http/http-spans."""
        carried = {name.decode(): value.decode("latin-1") for name, value in headers if name in CARRIED}
        known = method in METHODS
        attributes = {"http.request.method": method if known else "_OTHER", "url.scheme": scheme, "url.path": path}
        if not known:
            attributes["http.request.method_original"] = method
        return self._begun(
            method if known else "HTTP", attributes, SpanKind.SERVER, self._propagator.extract(carried, Context())
        )

    def span(self, name: str, attributes: Mapping[str, str | int]) -> AbstractContextManager[None]:
        """Within the current one, if there is one."""
        return self._begun(name, attributes)

    def work(self, name: str) -> AbstractContextManager[None]:
        """Within the current one only."""
        if not get_current_span().get_span_context().is_valid:
            return nullcontext()
        return self._begun(f"database {name}", {"db.operation.name": name}, SpanKind.CLIENT)

    def note(self, attributes: Mapping[str, str | int], name: str | None, failed: str | None) -> None:
        """About the current one."""
        current = get_current_span()
        current.set_attributes(dict(attributes))
        if name is not None:
            current.update_name(name)
        if failed is not None:
            _fail(current, failed)

    @contextmanager
    def _begun(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        kind: SpanKind = SpanKind.INTERNAL,
        context: Context | None = None,
    ) -> Iterator[None]:
        begun = self._tracer.start_as_current_span(
            name, context, kind, attributes, record_exception=False, set_status_on_exception=False
        )
        with begun as current:
            logs.bind(trace_id=f"{current.get_span_context().trace_id:032x}")
            try:
                yield
            except Exception as error:
                # The text of an exception may hold anything; a code and a class don't. Most of ours are answers.
                if isinstance(error, PullFailed):
                    _fail(current, error.code)
                elif isinstance(error, Unavailable) or not isinstance(error, GatewayError):
                    _fail(current, type(error).__name__)
                raise


def _fail(span: Span, code: str) -> None:
    span.set_status(StatusCode.ERROR, code)
    span.set_attribute("error.type", code)


class LoggingExporter(SpanExporter):
    """OTLP over HTTP; says once a minute that what it sends does not arrive."""

    def __init__(self, endpoint: str) -> None:
        session = Session()
        session.hooks["response"].append(self._note)
        self._exporter = OTLPSpanExporter(endpoint, session=session)
        self._status: int | None = None
        self._quiet_until = 0.0

    def _note(self, response: Response, *_: Any, **__: Any) -> None:
        self._status = response.status_code

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Takes up to 10 s, with its new attempts."""
        self._status = None
        result = self._exporter.export(spans)
        now = time.monotonic()
        if result is not SpanExportResult.SUCCESS and now >= self._quiet_until:
            self._quiet_until = now + SECONDS_BETWEEN_COMPLAINTS
            what = "does not answer" if self._status is None else f"answers {self._status}"
            logger.warning("Traces are lost: their receiver, OTEL_EXPORTER_OTLP_ENDPOINT, %s.", what)
        return result

    def shutdown(self) -> None:
        """Lets go of the receiver."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
