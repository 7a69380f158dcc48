"""Starts the gateway, a worker and the product service, says where they are, and leaves nothing behind."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from product_gateway import demo, gc_tuning, settings
from product_gateway.api.app import create_app
from product_gateway.auth import keys
from product_gateway.db import merchants, migrate
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from product_gateway.sandbox.database_control import DatabaseControl
from product_gateway.sandbox.middleware import API, FaultInjection, SandboxMiddleware
from product_gateway.sandbox.scenarios import Scenarios
from product_gateway.services import processes
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry import logs
from product_gateway.telemetry.metrics import Metrics

MERCHANT, OTHER, WITHOUT = "sandbox-shop", "other-shop", "bento-shop"
TOKEN_LIFETIME = timedelta(days=1)
READING = ["sync:read", "catalog:read"]
PAGE_SIZE = 6  # records: so that there is progress to see
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Options:
    """What the command was told."""

    host: str
    port: int
    sync_seconds: float
    slow_seconds: float
    latency: float
    fault_percent: float
    until_eof: bool
    verbose: bool


def run(asked: Options, say: Callable[[str], None]) -> None:
    """Until SIGTERM, Ctrl-C or the end of standard input, where that is asked for. Raises SettingsError."""
    # For the threads that are still to come, too: the signal waits until somebody asks for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    logs.configure("INFO" if asked.verbose else "ERROR")
    scripts, metrics = Scenarios(), Metrics()
    supervisor = Supervisor(metrics)
    with contextlib.ExitStack() as stack:
        made = _settings(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="product-gateway-sandbox-"))))
        gateway, service = processes.bind(asked.host, asked.port), processes.bind("127.0.0.1", 0)
        database = stack.enter_context(open_database(made.database))
        _fill(made, database, processes.url_of(service))
        backstage = DatabaseControl(database)
        layer = SandboxMiddleware(
            create_app(made, metrics, supervisor),
            scripts,
            backstage,
            merchant_claim=made.jwt_merchant_claim,
            weather=FaultInjection(asked.latency, asked.fault_percent),
            access_log=asked.verbose,
        )
        stack.enter_context(processes.http_server_thread(layer, gateway, proxies=processes.Proxies.of_gateway(made)))
        say(orjson.dumps(_description(made, processes.url_of(gateway), processes.url_of(service))).decode())
        # Syncs can be asked for from here on. What runs them is loaded only now: nobody has to wait for that.
        from product_gateway.sample import catalog_file
        from product_gateway.sandbox.product_service import ScriptedService

        scripted = ScriptedService(
            catalog_file.read(catalog_file.SAMPLE),
            scripts,
            backstage.lose,
            token=demo.SAMPLE_SERVICE_TOKEN,
            page_size=made.page_size,
            seconds=asked.sync_seconds,
            slow_seconds=asked.slow_seconds,
        )
        stack.enter_context(processes.http_server_thread(scripted, service))
        stack.enter_context(processes.worker_thread(made, metrics, supervisor))
        gc_tuning.freeze_startup_objects()
        if asked.until_eof:
            threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
        signal.sigwait(STOPS)


def _settings(folder: Path) -> Settings:
    """Whatever the environment says, for tests fare alike everywhere."""
    return settings.load(
        data_dir=folder,
        database_url=None,
        jwt_public_key_file=None,
        jwks_url=None,
        secret_key_file=None,
        allow_private_addresses=True,
        page_size=PAGE_SIZE,
        worker_poll_seconds=0.05,
        worker_concurrency=32,
        retry_wait_seconds=0.05,
    )


def _fill(made: Settings, database: Database, service: str) -> None:
    database.call(migrate.create)
    for name in (MERCHANT, OTHER):
        demo.register(made, database, name, f"{service}/{name}")
    database.call(merchants.add, WITHOUT, Platform.BENTO)


def _description(made: Settings, gateway: str, service: str) -> dict[str, Any]:
    def token(merchant: str, scopes: list[str] = list(keys.SCOPES), lifetime: timedelta = TOKEN_LIFETIME) -> str:  # noqa: B006
        return keys.issue_token(made, merchant, scopes, lifetime)

    return {
        "baseUrl": gateway,
        "apiPrefix": API.rstrip("/"),
        "tokens": {
            "byop": token(MERCHANT),
            "otherByop": token(OTHER),
            "notByop": token(WITHOUT),
            "readOnly": token(MERCHANT, READING),
            "expired": token(MERCHANT, lifetime=-TOKEN_LIFETIME),
        },
        "merchants": [
            {"name": MERCHANT, "platform": Platform.BYOP},
            {"name": OTHER, "platform": Platform.BYOP},
            {"name": WITHOUT, "platform": Platform.BENTO},
        ],
        "productServiceUrl": f"{service}/{MERCHANT}",
        "productServiceToken": demo.SAMPLE_SERVICE_TOKEN,
        "pid": os.getpid(),
    }


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError, ValueError):
        for _ in sys.stdin:
            pass
    os.kill(os.getpid(), signal.SIGTERM)
