"""The sandbox's process: gateway, worker and product service, with all data in a temporary folder."""

import contextlib
import dataclasses
import functools
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import ASGIApp

from product_gateway import demo, gc_tuning, settings
from product_gateway.api.app import create_app
from product_gateway.auth import keys
from product_gateway.db import freshness, merchants, migrate, sandbox_clock
from product_gateway.db.database import Database, open_database
from product_gateway.db.wakeups import Wakeups
from product_gateway.model.merchants import Platform
from product_gateway.sandbox.clock import Clock, ClockMiddleware
from product_gateway.sandbox.database_control import DatabaseControl
from product_gateway.sandbox.middleware import API, SandboxMiddleware
from product_gateway.sandbox.scenarios import Scenarios
from product_gateway.services import http_server, sockets
from product_gateway.services.service import stop_signals
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry import logs
from product_gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from product_gateway.sandbox.tolerance import Tolerance

MERCHANT, OTHER_MERCHANT, BENTO_MERCHANT = "sandbox-shop", "other-shop", "bento-shop"
MERCHANTS = {MERCHANT: Platform.BYOP, OTHER_MERCHANT: Platform.BYOP, BENTO_MERCHANT: Platform.BENTO}
TOKEN_LIFETIME = timedelta(days=1)
READ_SCOPES = ["sync:read", "catalog:read"]
PAGE_SIZE = 6  # several pages per sync, so that clients see progress
RELAY = "/webhook-relay"


@dataclass(frozen=True)
class Options:
    """How a sandbox is to run. `webhook` is the URL of the first merchant's webhook; `max_ages` are of its catalogs."""

    host: str = "127.0.0.1"
    port: int = 0
    sync_seconds: float = 1.0
    slow_seconds: float = 5.0
    latency: float = 0.0
    fault_percent: float = 0.0
    tolerance: "Tolerance | None" = None
    webhook: str | None = None
    max_ages: tuple[str, ...] = ()
    access_log: bool = False


def run(announce: Callable[[str], None], options: Options, *, until_eof: bool) -> None:
    """Run until SIGTERM, SIGHUP, SIGINT or, with `until_eof`, the end of standard input. Raises SettingsError.

    Announces one line of JSON when the gateway accepts requests.
    """
    # Block the signals in all threads to come: only sigwait below receives them.
    stops = stop_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    logs.configure("INFO" if options.access_log else "ERROR")
    with running(lambda description: announce(orjson.dumps(description).decode()), options):
        gc_tuning.freeze_startup_objects()
        if until_eof:
            threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
        signal.sigwait(stops)


@contextlib.contextmanager
def running(announce: Callable[[dict[str, Any]], None], options: Options) -> Iterator[None]:
    """Run gateway, worker and product service in threads. Raises SettingsError.

    Announces the description when the gateway accepts requests.
    """
    scenarios, metrics, wakeups = Scenarios(), Metrics(), Wakeups()
    supervisor = Supervisor(metrics)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="product-gateway-sandbox-")))
        made, clock = _settings(folder, options), Clock()
        stack.enter_context(sandbox_clock.shifted(made.database, lambda: clock.offset))
        gateway, service = sockets.bind(options.host, options.port), sockets.bind("127.0.0.1", 0)
        database = stack.enter_context(open_database(made.database))
        service_url = sockets.url_of(service)
        _fill(made, database, service_url, options)
        secret = _register_webhook(made, database, options, service_url + RELAY)
        database_control = DatabaseControl(database)
        app: ASGIApp = SandboxMiddleware(
            create_app(made, metrics, supervisor, wakeups=wakeups, now=clock.time),
            scenarios,
            database_control,
            merchant_claim=made.jwt_merchant_claim,
            latency=options.latency,
            fault_percent=options.fault_percent,
            access_log=options.access_log,
        )
        if options.tolerance:
            from product_gateway.sandbox.tolerance import ToleranceMiddleware

            app = ToleranceMiddleware(app, options.tolerance)
        app = controlled = ClockMiddleware(
            app, clock, made, database, functools.partial(_tokens, made), access_log=options.access_log
        )
        proxies, base_path = made.trusted_proxies, made.public_base_path
        stack.enter_context(http_server.HTTPServer(app, gateway, trusted_proxies=proxies, base_path=base_path))
        announce(_description(made, sockets.url_of(gateway), service_url, secret))
        # The gateway accepts requests from here on. Import what runs syncs only now, for a faster start.
        from product_gateway.sample import catalog_file
        from product_gateway.sandbox.product_service import ScenarioService
        from product_gateway.services import worker

        product_service: ASGIApp = ScenarioService(
            catalog_file.read(catalog_file.SAMPLE),
            scenarios,
            database_control.expire_lease,
            token=demo.SAMPLE_SERVICE_TOKEN,
            page_size=made.page_size,
            seconds=options.sync_seconds,
            slow_seconds=options.slow_seconds,
        )
        if options.tolerance and options.webhook and secret:
            from product_gateway.sandbox.webhook_relay import WebhookRelay

            product_service = WebhookRelay(product_service, RELAY, options.webhook, secret, options.tolerance)
        stack.enter_context(http_server.HTTPServer(product_service, service))
        workers = stack.enter_context(worker.WorkerService(made, metrics, supervisor, wakeups))
        controlled.deliver = workers.settle_webhooks
        yield


def _settings(folder: Path, options: Options) -> Settings:
    """Return settings that ignore the environment where it would change the sandbox's behaviour."""
    return settings.load(
        data_dir=folder,
        database_url=None,
        jwt_public_key_file=None,
        jwks_url=None,
        secret_key_file=None,
        allow_private_addresses=True,
        page_size=PAGE_SIZE,
        max_page_size=PAGE_SIZE,
        worker_poll_seconds=0.05,
        worker_concurrency=32,
        retry_wait_seconds=0.05,
        **({"webhook_retry_seconds": 0.5} if options.tolerance else {}),  # a held message comes again soon
    )


def _fill(made: Settings, database: Database, service: str, options: Options) -> None:
    database.call(migrate.create)
    for name in (MERCHANT, OTHER_MERCHANT):
        demo.register(made, database, name, f"{service}/{name}")
    database.call(merchants.add, BENTO_MERCHANT, Platform.BENTO)
    if options.max_ages:
        from product_gateway.merchants import administration

        database.call(freshness.put, MERCHANT, administration.max_ages(options.max_ages))


def _register_webhook(made: Settings, database: Database, options: Options, relay: str) -> str | None:
    """Register the webhook of the first merchant, or the relay in front of it, and return its secret."""
    from product_gateway.merchants import administration

    change = administration.webhook(made, options.webhook, None)
    if change is None:
        return None
    if options.tolerance:
        change = dataclasses.replace(change, values={"url": relay})
    return administration.set_webhook(database, MERCHANT, change)


def _description(made: Settings, gateway: str, service: str, webhook_secret: str | None) -> dict[str, Any]:
    return {
        "baseUrl": gateway,
        "apiPrefix": API.rstrip("/"),
        "tokens": _tokens(made, timedelta()),
        "merchants": [{"name": name, "platform": platform} for name, platform in MERCHANTS.items()],
        "productServiceUrl": f"{service}/{MERCHANT}",
        "productServiceToken": demo.SAMPLE_SERVICE_TOKEN,
        **({"webhookSecret": webhook_secret} if webhook_secret else {}),
        "pid": os.getpid(),
    }


def _tokens(made: Settings, advanced: timedelta) -> dict[str, str]:
    """Return tokens that are valid for a day by a clock that was advanced."""
    issue, all_scopes = functools.partial(keys.issue_token, made), list(keys.SCOPES)
    return {
        "byop": issue(MERCHANT, all_scopes, advanced + TOKEN_LIFETIME),
        "otherByop": issue(OTHER_MERCHANT, all_scopes, advanced + TOKEN_LIFETIME),
        "notByop": issue(BENTO_MERCHANT, all_scopes, advanced + TOKEN_LIFETIME),
        "readOnly": issue(MERCHANT, READ_SCOPES, advanced + TOKEN_LIFETIME),
        "expired": issue(MERCHANT, all_scopes, -TOKEN_LIFETIME),
    }


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError, ValueError):
        for _ in sys.stdin:
            pass
    os.kill(os.getpid(), signal.SIGTERM)
