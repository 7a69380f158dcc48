"""Traces, as a receiver of them gets them from real processes."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import httpx2
import pytest

from product_gateway import settings
from product_gateway.errors import SettingsError
from tests.support import trace_receiver
from tests.support.deployment import API, Deployment, ended, within
from tests.support.log_lines import serving
from tests.support.merchants import client, headers, open_shops
from tests.support.trace_receiver import Receiver, Span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
ARRIVES_WITHIN = 30


def tell(deployment: Deployment, url: str) -> None:
    """Its processes send their traces there, soon."""
    deployment.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
    deployment.environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"


def only(found: list[Span]) -> Span:
    """The only one."""
    assert len(found) == 1, f"one was wanted: {found}"
    return found[0]


def test_a_method_of_the_clients_own_names_no_span(deployment: Deployment) -> None:
    """Span names have low cardinality, even for unknown methods (OpenTelemetry, HTTP semantic conventions)."""
    with trace_receiver.serve() as told:
        tell(deployment, told.url)
        with serving(deployment, "json") as (url, _):
            assert httpx2.request("BREW", f"{url}{API}/products").status_code == 405
            within(ARRIVES_WITHIN, lambda: told.named("HTTP"))
    span = only(told.named("HTTP"))
    methods = {name: value for name, value in span.attributes.items() if name.startswith("http.request.method")}
    assert methods == {"http.request.method": "_OTHER", "http.request.method_original": "BREW"}


def test_a_request_and_its_sync_are_seen_from_end_to_end(deployment: Deployment) -> None:
    """The client's trace goes on in ours; a sync has its own, with a link to the PUT, each page and each write."""
    with trace_receiver.serve() as told, deployment.sample_service("--records", "30") as service:
        tell(deployment, told.url)
        open_shops(deployment, service, ["m"])
        deployment.environment |= {"PRODUCT_GATEWAY_PAGE_SIZE": "10", "PRODUCT_GATEWAY_MAX_PAGE_SIZE": "10"}
        with deployment.process("worker"), serving(deployment, "json") as (url, log):
            carried = {**headers(deployment, "m"), "traceparent": f"00-{TRACE}-{PARENT}-01"}
            put = httpx2.put(f"{url}{API}/sync/PRODUCT?x=secret", headers=carried)
            assert put.status_code == 400
            put = httpx2.put(f"{url}{API}/sync/PRODUCT", headers=carried)
            sync = put.json()["data"]
            with client(deployment, url, "m") as merchant:
                ended(merchant, sync)
            httpx2.get(f"{url}/health/ready")
            answered = {each["request_id"]: each for each in log.lines() if "status" in each}
        within(ARRIVES_WITHIN, lambda: told.named("sync"))
    refused, accepted = told.named("enqueueSync")
    assert (refused.attributes["http.response.status_code"], refused.failed) == (400, None)
    assert refused.attributes["url.path"] == f"{API}/sync/PRODUCT"
    assert (accepted.trace, accepted.parent, accepted.kind, accepted.failed) == (TRACE, PARENT, "SERVER", None)
    assert accepted.attributes == {
        "http.request.method": "PUT",
        "url.path": f"{API}/sync/PRODUCT",
        "url.scheme": "http",
        "http.response.status_code": 202,
        "product_gateway.request_id": put.headers["X-Request-Id"],
        "product_gateway.operation": "enqueueSync",
        "product_gateway.merchant": "m",
        "product_gateway.sync_id": sync["id"],
    }
    assert [each.name for each in told.below(accepted)] == ["database enqueue"]
    assert answered[put.headers["X-Request-Id"]]["trace_id"] == TRACE

    run = only(told.named("sync"))
    assert (run.parent, run.failed) == ("", None)
    assert run.trace != TRACE
    assert run.links == [(TRACE, accepted.id)]
    assert run.attributes == {
        "product_gateway.sync_id": sync["id"],
        "product_gateway.merchant": "m",
        "product_gateway.entity_type": "PRODUCT",
        "product_gateway.attempt": 1,
        "product_gateway.outcome": "SUCCEEDED",
    }
    inside = told.below(run)
    assert {each.trace for each in inside} == {run.trace}
    pages = [each.attributes for each in inside if each.name == "fetch page"]
    numbers = [(each["product_gateway.page"], each["product_gateway.records"]) for each in pages]
    assert numbers == [(1, 10), (2, 10), (3, 10)]
    assert {each["http.response.status_code"] for each in pages} == {200}
    assert len([each for each in inside if each.name == "database write_page"]) == 3
    assert "database succeed" in [each.name for each in inside]
    assert all(0 <= each.seconds <= run.seconds + 1 for each in inside)

    us = {(each["service.name"], each["service.version"]) for each in told.resources}
    assert us == {("product-gateway", version("product-gateway"))}
    roots = {each.name for each in told.spans if not each.parent}
    assert "getReadiness" not in roots, "probes would fill the receiver"
    assert not [name for name in roots if name.startswith("database")], "idle workers look for syncs all the time"
    bearer = carried["Authorization"].removeprefix("Bearer ")
    assert not [body for body in told.bodies if b"secret" in body or bearer.encode() in body]


def test_what_fails_is_seen_as_failed(sqlite_deployment: Deployment) -> None:
    """By the code, and without what the other side said."""
    with trace_receiver.serve() as told:
        tell(sqlite_deployment, told.url)
        sqlite_deployment.environment["PRODUCT_GATEWAY_REQUEST_ATTEMPTS"] = "1"
        open_shops(sqlite_deployment, f"{told.url}/nothing", ["m"])  # the receiver answers 501 to a GET
        with serving(sqlite_deployment, "json", "--with-worker") as (url, log):
            with client(sqlite_deployment, url, "m") as merchant:
                sync = merchant.put(f"{API}/sync/PRODUCT").json()["data"]
                assert ended(merchant, sync)["failure"]["code"] == "PRODUCT_SERVICE_ERROR"
            (end,) = (each for each in log.of_sync(sync["id"]) if "FAILED" in each["event"])
        within(ARRIVES_WITHIN, lambda: told.named("sync"))
    run = only(told.named("sync"))
    page = only(told.named("fetch page"))
    assert page.parent == run.id
    assert (run.failed, page.failed) == ("PRODUCT_SERVICE_ERROR", "PRODUCT_SERVICE_ERROR")
    assert page.attributes["http.response.status_code"] == 501
    assert run.attributes["product_gateway.outcome"] == "FAILED"
    assert run.attributes["error.type"] == "PRODUCT_SERVICE_ERROR"
    assert end["trace_id"] == run.trace


def test_a_client_that_does_not_sample_its_trace_is_not_traced(sqlite_deployment: Deployment) -> None:
    """W3C Trace Context, par. 3.2.2.5: the caller has decided. Neither the request nor the database's work is sent."""
    unsampled = "5bf92f3577b34da6a3ce929d0e0e4737"
    with trace_receiver.serve() as told:
        tell(sqlite_deployment, told.url)
        open_shops(sqlite_deployment, "http://127.0.0.1:1", ["m"])
        with serving(sqlite_deployment, "json") as (url, log):
            for trace, flags in ((unsampled, "00"), (unsampled, "02"), (TRACE, "01"), (TRACE, "03")):
                sent = {**headers(sqlite_deployment, "m"), "traceparent": f"00-{trace}-{PARENT}-{flags}"}
                assert httpx2.get(f"{url}{API}/products", headers=sent).status_code == 200
            lines = log.requests(4)
        within(ARRIVES_WITHIN, lambda: len(told.named("listProducts")) >= 2)
    assert {each.trace for each in told.spans} == {TRACE}
    assert [each["trace_id"] for each in lines] == [unsampled, unsampled, TRACE, TRACE], "its log lines can be found"


SAMPLER = "OTEL_TRACES_SAMPLER"


@pytest.mark.parametrize("sampler", ["parentbased_always_on", "parentbased_always_off"])
def test_a_sync_is_traced_if_its_request_was(deployment: Deployment, sampler: str) -> None:
    """Also in another process, and where the sampler decides otherwise for requests without a `traceparent`."""
    unsampled = "5bf92f3577b34da6a3ce929d0e0e4737"
    with trace_receiver.serve() as told, deployment.sample_service("--records", "1") as service:
        tell(deployment, told.url)
        deployment.environment[SAMPLER] = sampler
        open_shops(deployment, service, ["m"])
        with deployment.process("worker"), serving(deployment, "json") as (url, _), client(deployment, url, "m") as m:
            for entity_type, trace, flags in (("PRODUCT", unsampled, "00"), ("COLLECTION", TRACE, "01")):
                carried = {"traceparent": f"00-{trace}-{PARENT}-{flags}"}
                put = m.put(f"{API}/sync/{entity_type}", headers=carried)
                assert ended(m, put.json()["data"])["status"] == "SUCCEEDED"
        within(ARRIVES_WITHIN, lambda: told.named("sync"))
    run = only(told.named("sync"))
    assert run.attributes["product_gateway.entity_type"] == "COLLECTION"
    assert run.links == [(TRACE, only(told.named("enqueueSync")).id)]
    assert {each.trace for each in told.spans if each.name in ("fetch page", "database write_page")} == {run.trace}


NO_PARENTS = [
    "",
    "00-0-0-01",
    f"00-{TRACE}-{PARENT}",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    "\xff" * 200,
]


def test_a_traceparent_that_is_none_begins_a_new_trace(sqlite_deployment: Deployment) -> None:
    """W3C Trace Context, par. 3.2.2: such a header is as none at all."""
    with trace_receiver.serve() as told:
        tell(sqlite_deployment, told.url)
        with serving(sqlite_deployment, "json") as (url, log):
            for header in NO_PARENTS:
                sent = [(b"traceparent", header.encode("latin-1"))]
                assert httpx2.get(f"{url}/x", headers=sent).status_code == 404, header
            lines = log.requests(len(NO_PARENTS))
    spans = told.named("GET")
    assert {each.parent for each in spans} == {""}
    assert [each.trace for each in spans] == [each["trace_id"] for each in lines]
    assert len({each.trace for each in spans} - {TRACE}) == len(NO_PARENTS)


def timed(url: str, times: int) -> float:
    """Return the duration of the slowest of `times` requests, in seconds."""
    slowest = 0.0
    with httpx2.Client(base_url=url) as one:
        for _ in range(times):
            started = time.monotonic()
            assert one.get("/x").status_code == 404
            slowest = max(slowest, time.monotonic() - started)
    return slowest


def test_an_unavailable_receiver_delays_no_request(sqlite_deployment: Deployment) -> None:
    """The receiver hangs, refuses or answers 401. At most one line reports it, and the stop does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as hangs, trace_receiver.serve() as refusing:
        refusing.status = 401
        for url, how in (
            (f"http://127.0.0.1:{hangs.getsockname()[1]}", None),  # its failure is known only after ten seconds
            ("http://127.0.0.1:1", "does not answer"),
            (refusing.url, "answers 401"),
        ):
            tell(sqlite_deployment, url)
            sqlite_deployment.environment["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
            sqlite_deployment.environment["OTEL_EXPORTER_OTLP_HEADERS"] = "api-key=s3cr3t-0f-the-rece1ver,broken"
            sqlite_deployment.environment["PRODUCT_GATEWAY_ACCESS_LOG"] = "false"
            sqlite_deployment.environment["PRODUCT_GATEWAY_LOG_FORMAT"] = "json"
            with sqlite_deployment.process("serve", "--port", "0") as process:
                base = process.url()
                within(20, partial(is_there, base))
                slowest = timed(base, 600)
                said = process.log.read_text
                if how is not None:
                    within(20, partial(is_said, "Traces are lost", said))
                timed(base, 600)
                process.end()
                assert process.status() == 0
            assert slowest < 2, "a request waited for the receiver"
            lines = [each for each in said().splitlines() if '"level":"info"' not in each and "listens on" not in each]
            assert len(lines) <= 1, f"a line a minute is enough: {lines}"
            assert how is None or how in lines[0]
            assert "s3cr3t" not in said()


def is_said(text: str, said: Callable[[], str]) -> bool:
    """Whether the process has said it."""
    return text in said()


def is_there(url: str) -> bool:
    """Whether it answers."""
    try:
        return httpx2.get(f"{url}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


def test_what_is_left_is_sent_at_the_end(sqlite_deployment: Deployment) -> None:
    """An operator who investigates a stop needs the last requests before it."""
    with trace_receiver.serve() as told:
        tell(sqlite_deployment, told.url)
        sqlite_deployment.environment["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
        with serving(sqlite_deployment, "json") as (url, _):
            for _ in range(3):
                httpx2.get(f"{url}/x")
            assert told.spans == []
        assert len(told.named("GET")) == 3


def python(deployment: Deployment, program: str) -> subprocess.CompletedProcess[str]:
    """In the deployment's environment."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=deployment.environment, capture_output=True, text=True, timeout=60)


def test_a_receiver_without_the_package_says_what_to_install(sqlite_deployment: Deployment) -> None:
    """It is an extra."""
    tell(sqlite_deployment, "http://127.0.0.1:1")
    hidden = "import sys\nsys.modules['opentelemetry.sdk'] = None\n"
    done = python(
        sqlite_deployment, f"{hidden}from product_gateway.cli.main import main\nsys.argv[1:] = ['worker']\nmain()"
    )
    assert done.returncode == 1
    assert "pip install 'product-gateway[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "endpoint"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", "http://collector:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://x.example/otlp/", "https://x.example/otlp/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://x.example/in", "https://x.example/in"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "", None),
    ],
)
def test_the_receiver_is_where_opentelemetry_says(
    name: str, value: str, endpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own variables, which other programs of the operator's read too."""
    monkeypatch.setenv(name, value)
    assert settings.load().traces_endpoint == endpoint
    assert settings.unknown_names() == []


@pytest.mark.parametrize("value", ["collector:4317", "http://user:hidden@collector:4318", "http://c/?key=hidden"])
def test_what_is_no_address_of_a_receiver_is_refused_at_the_start(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable's own name, and without a password that may be in it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", value)
    with pytest.raises(SettingsError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT: ") as refused:
        settings.load()
    assert "hidden" not in refused.value.detail


def test_our_prefix_does_not_make_it_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip of the pen that would have no effect."""
    monkeypatch.setenv("PRODUCT_GATEWAY_OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert settings.unknown_names() == ["PRODUCT_GATEWAY_OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert settings.load().traces_endpoint is None


def test_the_receiver_understands_itself() -> None:
    """Two batches, one after the other."""
    told = Receiver()
    told.take(b"")
    assert told.spans == []
