"""The worker as a service: it runs syncs and delivers webhooks."""

import asyncio
import logging
from uuid import uuid4

from product_gateway.db import merchants, webhooks
from product_gateway.db.database import Database, open_database
from product_gateway.db.wakeups import Wakeups
from product_gateway.errors import SettingsError
from product_gateway.http_client.client import HttpClient, product_service_limits
from product_gateway.merchants.administration import without_query
from product_gateway.services.service import Service
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.sync.worker import Worker
from product_gateway.telemetry.metrics import WORKER, Metrics
from product_gateway.webhooks.dispatcher import AttemptResult, WebhookDispatcher
from product_gateway.webhooks.signing import test_payload

logger = logging.getLogger(__name__)

SECONDS_TO_RELEASE = 1.5  # for current work at shutdown, and as many to release the syncs
MAX_RECEIVER_BYTES = 65536


class WorkerService(Service):
    """A worker with an event loop of its own: a large page does not delay requests. Restarted after an error."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        supervisor: Supervisor,
        wakeups: Wakeups | None = None,
        *,
        announce: bool = False,
    ) -> None:
        super().__init__("worker")
        self._settings = settings
        self._metrics = metrics
        self._supervisor = supervisor
        self._wakeups = wakeups or Wakeups()
        self._announce = announce
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dispatcher: WebhookDispatcher | None = None

    async def settle_webhooks(self) -> None:
        """Make the attempts of webhook messages that are due, and wait for those that run. For any event loop."""
        if self._loop is not None and self._dispatcher is not None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._dispatcher.settle(), self._loop))

    def _run(self) -> None:
        asyncio.run(self._supervise())

    def _request_stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _supervise(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._supervisor.keep(WORKER, self._attempt, stop=self._stop)

    async def _attempt(self, loop: Loop) -> None:
        try:
            await self._work(loop)
        finally:
            self._started.set()  # the services beside a worker that cannot start yet need not wait for it

    async def _work(self, loop: Loop) -> None:
        settings, metrics, supervisor = self._settings, self._metrics, self._supervisor
        # may_create=False: an empty database would be in the way of a restored one
        with loop.idle(), open_database(settings.database, may_create=False) as database:
            to_services = HttpClient(**product_service_limits(settings))
            async with to_services, webhook_client(settings) as to_receivers:
                worker = Worker(settings, database, to_services, metrics, supervisor, self._wakeups)
                dispatcher = WebhookDispatcher(settings, database, to_receivers, metrics, supervisor)
                self._dispatcher = dispatcher
                loop.progressed()
                if self._announce:
                    logger.info("The worker is waiting for syncs.")
                self._started.set()
                expiring = asyncio.create_task(self._expire_on_stop(database))
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(worker.run(self._stop))
                        group.create_task(dispatcher.run(self._stop))
                finally:
                    expiring.cancel()

    async def _expire_on_stop(self, database: Database) -> None:
        """Interrupt database work that hangs at shutdown."""
        await self._stop.wait()
        database.shorten_deadline(SECONDS_TO_RELEASE)


def send_test_message(settings: Settings, database: Database, merchant: str) -> tuple[int | None, str | None, str]:
    """Send a signed test message to the merchant's webhook, and return the status, the error and the URL.

    The URL has no query, which may hold a key. Raises SettingsError if the merchant has no webhook.
    """
    database.call(merchants.get, merchant)
    webhook = database.call(webhooks.find, merchant)
    if webhook is None:
        raise SettingsError(
            f"{merchant} has no webhook. Add one: product-gateway merchant update {merchant} --webhook-url URL"
        )

    async def send() -> AttemptResult:
        async with webhook_client(settings) as outbound:
            metrics = Metrics()
            dispatcher = WebhookDispatcher(settings, database, outbound, metrics, Supervisor(metrics))
            message_id = str(uuid4())
            return await dispatcher.send(webhook, message_id, test_payload(message_id, merchant))

    result = asyncio.run(send())
    return result.status, result.error, without_query(webhook.url)


def webhook_client(settings: Settings) -> HttpClient:
    """Return the HTTP client for webhooks."""
    seconds = settings.webhook_timeout_seconds
    return HttpClient(
        allow_private_addresses=settings.allow_private_addresses,
        connect_timeout=min(settings.connect_timeout_seconds, seconds),
        read_timeout=seconds,
        total_timeout=seconds,
        max_bytes=MAX_RECEIVER_BYTES,
    )
