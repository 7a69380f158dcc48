"""check-service and services that never answer: one finding about the service, and nothing about its lists."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from product_gateway import settings
from product_gateway.check_service.reports import console
from product_gateway.check_service.results import CheckResults, Result
from product_gateway.check_service.rules import Severity
from product_gateway.check_service.runner import Plan, check
from product_gateway.settings import Settings
from tests.support.tls import self_signed

TOKEN = "the-merchants-t0ken"


@contextmanager
def listener(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Accept connections and close them without an answer. Yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with suppress(OSError), connection:
                        if tls:
                            tls.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.fixture
def refused() -> str:
    """The URL of a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Settings with few attempts and short waits."""
    return settings.load(data_dir=tmp_path, allow_private_addresses=True, request_attempts=2, retry_wait_seconds=0.01)


def only_finding(url: str, made: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Assert that the report has one finding, `reachable`. Return what was seen, and the report."""
    plan = Plan(url, TOKEN)
    results = check(plan, made)
    (outcome,) = (each for severity in Severity for each in results.failures(severity))
    assert (outcome.rule.code, outcome.subject, outcome.count) == ("reachable", None, 1)
    others = [each for each in results.outcomes() if each is not outcome]
    assert len(others) > 50
    assert {(each.result, each.reason) for each in others} == {(Result.NOT_REACHED, "the service could not be reached")}
    assert console.status(results) == 1
    (finding,) = outcome.findings
    return finding.seen, printed(results, url, capsys)


def printed(results: CheckResults, url: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the console report."""
    capsys.readouterr()
    console.show(results, url, None)
    return capsys.readouterr().out


def test_a_refused_connection_is_one_error(refused: str, made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The second list is not requested: it would fail for the same reason."""
    seen, report = only_finding(refused, made, capsys)
    assert seen == "The connection to 127.0.0.1 was refused."
    assert report.count(seen) == report.count("ERROR ") == 1
    assert "Requests made: 2." in report
    assert "products, not reached: the service could not be reached: all other checks" in report
    assert "errors: 1, warnings: 0, advice: 0." in report
    assert "read 0 records" not in report


def test_an_unknown_host_is_one_error(made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 6761 §6.4: no host name ends in .invalid."""
    seen, _ = only_finding("https://shop.invalid", made, capsys)
    assert "shop.invalid" in seen


def test_an_untrusted_certificate_is_one_error(
    tmp_path: Path, made: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is the certificate, which a merchant can replace."""
    with listener(self_signed(tmp_path)) as port:
        seen, _ = only_finding(f"https://127.0.0.1:{port}", made, capsys)
    assert "certificate" in seen


def test_a_service_that_closes_every_connection_is_one_error(
    made: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with listener() as port:
        only_finding(f"http://127.0.0.1:{port}", made, capsys)


def test_a_private_address_names_the_option_before_the_setting(
    tmp_path: Path, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A merchant who runs the command need not know the settings of a gateway."""
    strict = settings.load(data_dir=tmp_path, allow_private_addresses=False)
    seen, _ = only_finding(refused.replace("http:", "https:"), strict, capsys)
    option, setting = seen.index("--allow-private-addresses"), seen.index("PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES")
    assert option < setting
