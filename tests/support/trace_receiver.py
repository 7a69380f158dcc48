"""An OTLP receiver on loopback (HTTP, protobuf) that decodes spans."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Span:
    """A received span. Ids are hexadecimal; `parent` is empty for a root span. `links` are traces and ids of spans."""

    name: str
    trace: str
    id: str
    parent: str
    links: list[tuple[str, str]]
    kind: str
    attributes: dict[str, Any]
    failed: str | None
    seconds: float


class Receiver:
    """The received spans, and the receiver's behaviour."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    def take(self, body: bytes) -> None:
        """Store a batch of spans."""
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for of_resource in request.resource_spans:
            self.resources.append(_plain(of_resource.resource.attributes))
            self.spans += [_span(each) for of_scope in of_resource.scope_spans for each in of_scope.spans]

    def named(self, name: str) -> list[Span]:
        """Return the spans with this name, in the order of their ends."""
        return [each for each in self.spans if each.name == name]

    def below(self, parent: Span) -> list[Span]:
        """Return the children of a span."""
        return [each for each in self.spans if each.parent == parent.id]


def _span(sent: Sent) -> Span:
    return Span(
        name=sent.name,
        trace=sent.trace_id.hex(),
        id=sent.span_id.hex(),
        parent=sent.parent_span_id.hex(),
        links=[(each.trace_id.hex(), each.span_id.hex()) for each in sent.links],
        kind=Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
        attributes=_plain(sent.attributes),
        failed=sent.status.message if sent.status.code == Status.STATUS_CODE_ERROR else None,
        seconds=(sent.end_time_unix_nano - sent.start_time_unix_nano) / 1e9,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def serve() -> Iterator[Receiver]:
    """Run the receiver in a thread until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """One batch."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            wanted = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if wanted and receiver.status == 200:
                receiver.take(body)
            self.send_response(receiver.status if wanted else 404)
            content = ExportTraceServiceResponse().SerializeToString()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
