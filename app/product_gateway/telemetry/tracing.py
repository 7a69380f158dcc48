"""Traces, where the settings name a receiver; without one nothing of OpenTelemetry is even imported.

A request is a span, and so is a sync; what the database and a merchant's product service do for them are spans within.
None of them carries a token, a query or anything that a merchant's product service said.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from product_gateway.errors import SettingsError
from product_gateway.settings import Settings
from product_gateway.telemetry import logs

if TYPE_CHECKING:
    from product_gateway.telemetry.otel import Spans

OURS = "product_gateway."  # in front of the names of attributes that OpenTelemetry's conventions don't have

NOTHING = nullcontext()
_spans: "Spans | None" = None


@contextmanager
def exporting(settings: Settings) -> Iterator[None]:
    """Traces are sent while this is entered, where the settings say where to. Raises SettingsError."""
    global _spans
    endpoint = settings.traces_endpoint
    if endpoint is None:
        yield
        return
    try:
        from product_gateway.telemetry.otel import Spans
    except ModuleNotFoundError:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT says where traces go, but what sends them is not installed: "
            "pip install 'product-gateway[tracing]'"
        ) from None
    _spans = spans = Spans(endpoint)
    try:
        yield
    finally:
        _spans = None
        spans.end()


def request(
    method: str, scheme: str, path: str, headers: Sequence[tuple[bytes, bytes]]
) -> AbstractContextManager[None]:
    """The span of a request to us, which goes on with its client's trace (W3C Trace Context). `path` is one that may
    be shown: without its query, and without secrets."""
    return NOTHING if _spans is None else _spans.request(method, scheme, path, headers)


def answered(status: int) -> None:
    """The request's answer, and what has become known about it meanwhile."""
    about = logs.context()
    failed = str(status or "no answer") if status == 0 or status >= 500 else None
    set_attributes({"http.response.status_code": status, **_ours(about)}, name=about.get("operation"), failed=failed)


def sync(attempt: int) -> AbstractContextManager[None]:
    """The span of the sync that the running task is about."""
    return span("sync", attempt=attempt, **logs.context())


def span(name: str, **attributes: str | int) -> AbstractContextManager[None]:
    """A span within the running task's."""
    return NOTHING if _spans is None else _spans.span(name, _ours(attributes))


def db_span(function: Callable[..., object]) -> AbstractContextManager[None]:
    """The span of what the database does, within another only: idle workers look for syncs all the time."""
    return NOTHING if _spans is None else _spans.work(getattr(function, "__name__", "work"))


def fetched(records: int) -> None:
    """So many records came."""
    set_attributes({f"{OURS}records": records})


def ended(outcome: str, *, failed: str | None = None) -> None:
    """How the sync ended, with the code of its failure."""
    set_attributes({f"{OURS}outcome": outcome}, failed=failed)


def set_attributes(attributes: Mapping[str, str | int], *, name: str | None = None, failed: str | None = None) -> None:
    """More about the span that the running task is in: attributes, another name, the code of its failure."""
    if _spans is not None:
        _spans.note(attributes, name, failed)


def _ours(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    return {f"{OURS}{name}": value for name, value in attributes.items() if name != "trace_id"}
