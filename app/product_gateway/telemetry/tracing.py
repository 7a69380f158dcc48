"""Spans by OpenTelemetry's API. Without a receiver in the settings, its no-op tracer makes none.

A request is a span, and so is a sync; database work and requests to a product service are spans within it.
No span carries a token, a query or text of a product service.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from product_gateway.errors import GatewayError, PullFailed, SettingsError, Unavailable
from product_gateway.settings import Settings
from product_gateway.telemetry import logs

OURS = "product_gateway."  # prefix of attributes that OpenTelemetry's conventions do not define
NOTHING = nullcontext()
METHODS = frozenset(("GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"))

_NO_OP = NoOpTracer()
_tracer: Tracer = _NO_OP
_propagator = TraceContextTextMapPropagator()


@contextmanager
def exporting(settings: Settings) -> Iterator[None]:
    """Send traces while this is entered, if the settings name a receiver. Raises SettingsError."""
    global _tracer
    if settings.traces_endpoint is None:
        yield
        return
    try:
        from product_gateway.telemetry.trace_export import exporting_tracer
    except ModuleNotFoundError:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the package that sends traces is not installed. Run: "
            "pip install 'product-gateway[tracing]'"
        ) from None
    with exporting_tracer(settings.traces_endpoint) as _tracer:
        try:
            yield
        finally:
            _tracer = _NO_OP


def request(
    method: str, scheme: str, path: str, headers: Sequence[tuple[bytes, bytes]]
) -> AbstractContextManager[None]:
    """Start the span of a request, within the client's trace (W3C Trace Context; semantic conventions for HTTP).

    `path` is without query and secrets.
    """
    if _tracer is _NO_OP:
        return NOTHING
    carried = {
        name.decode(): value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")
    }
    known = method in METHODS
    attributes = {"http.request.method": method if known else "_OTHER", "url.scheme": scheme, "url.path": path}
    if not known:
        attributes["http.request.method_original"] = method
    parent = _propagator.extract(carried, Context())
    return _started(method if known else "HTTP", attributes, SpanKind.SERVER, parent)


def answered(status: int) -> None:
    """Note the response's status (0: none was sent) and the ids of the request."""
    ids = logs.context()
    failed = str(status or "no answer") if status == 0 or status >= 500 else None
    set_attributes({"http.response.status_code": status, **_prefixed(ids)}, name=ids.get("operation"), failed=failed)


def traceparent() -> str | None:
    """Return the running request's trace context as a `traceparent` header; None without traces."""
    if _tracer is _NO_OP:
        return None
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def sync(attempt: int, requested_by: str | None) -> AbstractContextManager[None]:
    """Start the span of the running task's sync, as a trace of its own.

    It links to the request with the `traceparent` `requested_by`, and is sampled if that request was.
    """
    if _tracer is _NO_OP:
        return NOTHING
    carrier = {} if requested_by is None else {"traceparent": requested_by}
    request = get_current_span(_propagator.extract(carrier, Context())).get_span_context()
    links = [Link(request)] if request.is_valid else []
    return _started("sync", _prefixed({"attempt": attempt, **logs.context()}), parent=Context(), links=links)


def span(name: str, **attributes: str | int) -> AbstractContextManager[None]:
    return NOTHING if _tracer is _NO_OP else _started(name, _prefixed(attributes))


def db_span(function: Callable[..., object]) -> AbstractContextManager[None]:
    """Start the span of database work, only within another one: idle workers poll all the time."""
    if _tracer is _NO_OP or not get_current_span().get_span_context().is_valid:
        return NOTHING
    name = getattr(function, "__name__", "work")
    return _started(f"database {name}", {"db.operation.name": name}, SpanKind.CLIENT)


def note(*, failed: str | None = None, **attributes: str | int) -> None:
    """Set attributes of our own of the current span, and the code of its failure."""
    set_attributes(_prefixed(attributes), failed=failed)


def set_attributes(attributes: Mapping[str, str | int], *, name: str | None = None, failed: str | None = None) -> None:
    """Set attributes of the current span, its name, and the code of its failure."""
    current = get_current_span()
    current.set_attributes(dict(attributes))
    if name is not None:
        current.update_name(name)
    if failed is not None:
        _fail(current, failed)


def _prefixed(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    return {f"{OURS}{name}": value for name, value in attributes.items() if name != "trace_id"}


@contextmanager
def _started(
    name: str,
    attributes: Mapping[str, str | int],
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Context | None = None,
    links: Sequence[Link] = (),
) -> Iterator[None]:
    started = _tracer.start_as_current_span(
        name, parent, kind, attributes, links, record_exception=False, set_status_on_exception=False
    )
    with started as current:
        logs.bind(trace_id=f"{current.get_span_context().trace_id:032x}")
        try:
            yield
        except Exception as error:
            # An exception's text may hold secrets; its code and class do not. Other GatewayErrors are responses.
            if isinstance(error, PullFailed):
                _fail(current, error.code)
            elif isinstance(error, Unavailable) or not isinstance(error, GatewayError):
                _fail(current, type(error).__name__)
            raise


def _fail(span: Span, code: str) -> None:
    span.set_status(StatusCode.ERROR, code)
    span.set_attribute("error.type", code)
