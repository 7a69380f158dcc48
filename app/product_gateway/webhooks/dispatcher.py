"""The webhook dispatcher: claims deliveries, sends signed messages and records each attempt. Runs in every worker.

Delivery is at least once: the transaction that ends a sync enqueues the delivery, and a 2xx response ends it. A worker
makes one delivery per merchant at a time, so a slow receiver delays only its own merchant.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial

from product_gateway.auth.encryption import Secrets
from product_gateway.db import syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.errors import OutboundError, SettingsError, SyncNotFound, Unavailable
from product_gateway.http_client.backoff import exponential_delay
from product_gateway.http_client.client import HttpClient, retry_after
from product_gateway.model.webhooks import Delivery, Webhook
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry import logs, metrics
from product_gateway.telemetry.metrics import DELIVERED, GIVEN_UP, RETRIED, Metrics
from product_gateway.webhooks.signing import payload, signature_headers, stale_payload

logger = logging.getLogger(__name__)

LEASES_PER_TIMEOUT = 2  # an attempt takes at most one time-out; the rest is for recording its result
SECONDS_TO_FINISH = 1.0  # for running attempts after a stop; then they are handed back
JITTER = (0.75, 1.25)
LONGEST_WAIT = 6 * 3600.0
LONGEST_RETRY_AFTER = 24 * 3600.0
STOPPED = "The worker was stopped before an answer came."


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The result of one attempt. `status` is None without a response, `error` is None after a success."""

    status: int | None
    error: str | None
    retry_after: float | None = None


@dataclass(eq=False)
class WebhookDispatcher:
    """A dispatcher that makes up to `webhooks_at_once` deliveries at a time."""

    settings: Settings
    database: Database
    outbound: HttpClient
    metrics: Metrics
    supervisor: Supervisor

    def __post_init__(self) -> None:
        self._secrets = Secrets(self.settings)
        self._lease = LEASES_PER_TIMEOUT * self.settings.webhook_timeout_seconds + SECONDS_TO_FINISH
        self._running: dict[str, asyncio.Task[None]] = {}  # by merchant
        self._claiming = asyncio.Lock()  # `settle` may claim at the same time

    async def run(self, stop: asyncio.Event) -> None:
        """Make deliveries until `stop` is set. Then finish the running ones, or hand them back."""
        stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
        try:
            work, away = partial(self._deliver_loop, stopping), "Webhooks are not called until the database is back"
            await self.supervisor.keep(metrics.DELIVERIES, work, stop=stop, away=away)
            if self._running:
                await asyncio.wait(self._running.values(), timeout=SECONDS_TO_FINISH)
        finally:
            tasks = (stopping, *self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver_loop(self, stopping: asyncio.Task[object], loop: Loop) -> None:
        while not stopping.done():
            has_begun = await self._begin_next()
            loop.progressed()
            if has_begun:
                continue
            with loop.idle():
                awaited = {stopping, *self._running.values()}
                wait = self.settings.worker_poll_seconds
                await asyncio.wait(awaited, timeout=wait, return_when=asyncio.FIRST_COMPLETED)

    async def settle(self) -> None:
        """Make all attempts that are due, and wait for those that run. For a clock that jumps, as in the sandbox."""
        while await self._begin_next() or self._running:
            if self._running:
                await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)

    async def _begin_next(self) -> bool:
        """Claim a message that is due and begin its attempt. Return False if none is due, or no slot is free."""
        async with self._claiming:
            self._running = {merchant: task for merchant, task in self._running.items() if not task.done()}
            claimed = await self._claim_next() if len(self._running) < self.settings.webhooks_at_once else None
            if claimed is not None:
                delivery, webhook = claimed
                self._running[delivery.merchant] = asyncio.create_task(self._deliver(delivery, webhook))
            return claimed is not None

    async def _claim_next(self) -> tuple[Delivery, Webhook] | None:
        busy = tuple(self._running)
        if await self.database.read(webhooks.has_due, busy):
            return await self.database.write(webhooks.claim, self._lease, busy)
        return None

    async def _deliver(self, delivery: Delivery, webhook: Webhook) -> None:
        # These values appear in every log line of this task.
        about = {"entity_type": delivery.entity_type} if delivery.sync_id is None else {"sync_id": delivery.sync_id}
        logs.bind(merchant=delivery.merchant, webhook_id=str(delivery.id), **{k: str(v) for k, v in about.items()})
        try:
            await self._record(delivery, webhook, await self._attempt(delivery, webhook))
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable):
                await self.database.write(webhooks.retry, delivery, None, STOPPED, 0.0)
            raise
        except SyncNotFound:
            logger.info("The sync was removed before the webhook was told of its end.")
        except Unavailable as error:
            logger.warning("The attempt was not recorded. It is repeated when its lease expires: %s", error.with_cause)
        except Exception:
            logger.exception("A delivery met an unexpected error. It is repeated when its lease expires.")

    async def _attempt(self, delivery: Delivery, webhook: Webhook) -> AttemptResult:
        if delivery.sync_id is None:
            return await self.send(webhook, str(delivery.id), stale_payload(delivery))
        sync = await self.database.read(syncs.get, delivery.merchant, delivery.sync_id)
        return await self.send(webhook, str(delivery.id), payload(delivery, sync))

    async def send(self, webhook: Webhook, message_id: str, body: bytes) -> AttemptResult:
        """Sign the message and send it once. Records nothing."""
        try:
            headers = signature_headers(message_id, self._secrets_of(webhook), body)
            response = await self.outbound.send("POST", webhook.url, headers=headers, content=body)
        except SettingsError as error:
            return AttemptResult(None, f"The webhook's secret cannot be read. {error.detail}")
        except OutboundError as error:
            return AttemptResult(None, error.detail)
        except Exception:
            logger.exception("A message to a webhook met an unexpected error.")
            return AttemptResult(None, "The gateway failed to send it. Its log says why.")
        status = response.status
        if 200 <= status < 300:
            return AttemptResult(status, None)
        is_redirect = 300 <= status < 400 and status != 304
        more = " Redirects are not followed: register the address that it leads to." if is_redirect else ""
        return AttemptResult(status, f"The receiver answered {status}.{more}", retry_after(response))

    def _secrets_of(self, webhook: Webhook) -> list[str]:
        """Return the secrets to sign with, newest first. Raise SettingsError if the current one cannot be read."""
        secrets = [self._secrets.decrypt(webhook.secret, "--webhook-secret-file")]
        if webhook.previous_secret is not None:
            try:
                secrets.append(self._secrets.decrypt(webhook.previous_secret))
            except SettingsError:
                logger.warning("The webhook's previous secret cannot be read. Only the current one signs.")
        for secret in secrets:
            logs.add_secret(secret.removeprefix("whsec_"))
        return list(dict.fromkeys(secrets))

    async def _record(self, delivery: Delivery, webhook: Webhook, result: AttemptResult) -> None:
        write, status, error = self.database.write, result.status, result.error
        wait = retry_delay(delivery.attempts, self.settings.webhook_retry_seconds, result.retry_after)
        if error is None and status is not None:
            kind, message = DELIVERED, f"{delivery.event} is delivered, at attempt {delivery.attempts}."
            recorded = await write(webhooks.succeed, delivery, status)
        elif status == 410:
            error = "The receiver answered 410, so the webhook is turned off until it is registered again."
            kind, message = GIVEN_UP, error
            recorded = await write(webhooks.disable_gone, delivery, webhook.url, status, error)
        elif delivery.age_seconds + wait > self.settings.webhook_give_up_hours * 3600:
            kind, message = GIVEN_UP, f"{delivery.event} is given up after attempt {delivery.attempts}. {error}"
            recorded = await write(webhooks.give_up, delivery, status, str(error))
        else:
            kind, message = RETRIED, f"Attempt {delivery.attempts} failed, the next is in {wait:.0f} s. {error}"
            recorded = await write(webhooks.retry, delivery, status, error, wait)
        if not recorded:
            logger.info("The result of attempt %d came after its lease had expired, and is ignored.", delivery.attempts)
            return
        self.metrics.webhook_attempts.labels(kind).inc()
        logger.log(logging.INFO if kind is DELIVERED else logging.WARNING, "%s", message)


def retry_delay(attempt: int, first: float, retry_after: float | None) -> float:
    """Return the seconds until the next attempt: exponential, or Retry-After where the receiver asks for longer."""
    delay = exponential_delay(attempt, first, LONGEST_WAIT, jitter=JITTER)
    return max(delay, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
