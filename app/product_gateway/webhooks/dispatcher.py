"""Tells merchants' webhooks how their syncs ended: signs (Standard Webhooks), sends, tries again. Part of a worker.

At least once: what is to be told was written with the end of the sync, and a delivery is over when its receiver has
said so. Any number of workers share the work; of one merchant, each makes one delivery at a time, so that a receiver
which is slow or gone holds up its own merchant's only.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import orjson
from standardwebhooks import Webhook as Signer

from product_gateway.auth.keys import Secrets
from product_gateway.db import syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.errors import OutboundError, SettingsError, SyncNotFound, Unavailable
from product_gateway.http_client.client import HttpClient, Response, retry_after
from product_gateway.model.syncs import Sync
from product_gateway.model.webhooks import Delivery, Webhook
from product_gateway.openapi.bodies import rfc3339, sync_body
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry import logs, metrics
from product_gateway.telemetry.metrics import DELIVERED, GIVEN_UP, RETRIED, Metrics

logger = logging.getLogger(__name__)

LONGEST_WAIT = 6 * 3600.0
LONGEST_RETRY_AFTER = 24 * 3600.0
JITTER = 0.25
LEASES_PER_TIMEOUT = 2  # an attempt may take one time-out; the rest is for writing down how it went
SECONDS_TO_FINISH = 1.0  # of a stop, before what is under way is handed back
NOT_CALLED = "Webhooks are not called until the database is back"
STOPPED = "The worker was stopped before an answer came."


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt went. `error` is None where the receiver has the message; `status` None where nothing came."""

    status: int | None
    error: str | None
    retry_after: float | None = None


class WebhookDispatcher:
    """Makes up to `webhooks_at_once` deliveries at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        outbound: HttpClient,
        metrics: Metrics,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._outbound = outbound
        self._metrics = metrics
        self._supervisor = supervisor or Supervisor(metrics)
        self._secrets = Secrets(settings)
        self._lease = LEASES_PER_TIMEOUT * settings.webhook_timeout_seconds + SECONDS_TO_FINISH

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then what is under way is finished, or handed back for another worker."""
        running: dict[str, asyncio.Task[None]] = {}
        stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
        try:
            work = partial(self._make_deliveries, running, stopping)
            await self._supervisor.keep(metrics.DELIVERIES, work, stop=stop, away=NOT_CALLED)
            if running:
                await asyncio.wait(running.values(), timeout=SECONDS_TO_FINISH)
        finally:
            stopping.cancel()
            for task in running.values():
                task.cancel()
            await asyncio.gather(stopping, *running.values(), return_exceptions=True)

    async def _make_deliveries(
        self, running: dict[str, asyncio.Task[None]], stopping: asyncio.Task[object], loop: Loop
    ) -> None:
        while not stopping.done():
            for merchant in [merchant for merchant, task in running.items() if task.done()]:
                del running[merchant]
            found = await self._claim(running) if len(running) < self._settings.webhooks_at_once else None
            loop.progressed()
            if found is not None:
                running[found[0].merchant] = asyncio.create_task(self._deliver(*found))
                continue
            with loop.idle():
                wait = self._settings.worker_poll_seconds
                await asyncio.wait({stopping, *running.values()}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)

    async def _claim(self, busy: dict[str, asyncio.Task[None]]) -> tuple[Delivery, Webhook] | None:
        if await self._database.read(webhooks.has_due, tuple(busy)):
            return await self._database.write(webhooks.claim, self._lease, tuple(busy))
        return None

    async def _deliver(self, delivery: Delivery, webhook: Webhook) -> None:
        # For all that is logged on its behalf: it runs in a task of its own.
        logs.bind(sync_id=str(delivery.sync_id), merchant=delivery.merchant, webhook_id=str(delivery.id))
        try:
            outcome = await self._attempt(delivery, webhook)
            await self._record(delivery, webhook, outcome)
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable):
                await self._database.write(webhooks.retry, delivery, None, STOPPED, 0.0)
            raise
        except SyncNotFound:
            logger.info("The sync was removed before its end could be told.")
        except Unavailable as error:  # when the lease has run out, the next attempt is made
            logger.warning("How the delivery went was not written down: %s", error.with_cause)
        except Exception:
            logger.exception("A delivery met an error that nobody expected; the next attempt is made all the same.")

    async def _attempt(self, delivery: Delivery, webhook: Webhook) -> AttemptResult:
        sync = await self._database.read(syncs.get, delivery.merchant, delivery.sync_id)
        try:
            secrets = self._secrets_of(webhook)
            body = payload(delivery.event, sync)
            reply = await self._outbound.send(
                "POST", webhook.url, headers=signature_headers(str(delivery.id), secrets, body), content=body
            )
        except SettingsError as error:
            return AttemptResult(None, f"The webhook's secret cannot be read. {error.detail}")
        except OutboundError as error:
            return AttemptResult(None, error.detail)
        except Exception:
            logger.exception("A message to a webhook met an error that nobody expected.")
            return AttemptResult(None, "The gateway failed to send it. Its log says why.")
        if 200 <= reply.status < 300:
            return AttemptResult(reply.status, None)
        more = " Redirects are not followed: register the address that it leads to." if _redirects(reply) else ""
        return AttemptResult(reply.status, f"The receiver answered {reply.status}.{more}", retry_after(reply))

    def _secrets_of(self, webhook: Webhook) -> list[str]:
        """Return what to sign with, the newest first. Raise SettingsError if the current secret cannot be read."""
        found = [self._secrets.decrypt(webhook.secret, "--webhook-secret-file")]
        if webhook.previous_secret is not None:
            try:
                found.append(self._secrets.decrypt(webhook.previous_secret))
            except SettingsError:
                logger.warning("The previous secret of the webhook cannot be read: signed with the current one alone.")
        for each in found:
            logs.add_secret(each.removeprefix("whsec_"))
        return list(dict.fromkeys(found))

    async def _record(self, delivery: Delivery, webhook: Webhook, outcome: AttemptResult) -> None:
        write, status, error = self._database.write, outcome.status, outcome.error
        wait = retry_delay(delivery.attempts, self._settings.webhook_retry_seconds, outcome.retry_after)
        if error is None and status is not None:
            kind, said = DELIVERED, f"{delivery.event} is delivered, at attempt {delivery.attempts}."
            recorded = await write(webhooks.succeed, delivery, status)
        elif status == 410:
            error = "The receiver answered 410, so the webhook is turned off until it is registered again."
            kind, said = GIVEN_UP, error
            recorded = await write(webhooks.disable_gone, delivery, webhook.url, status, error)
        elif delivery.age_seconds + wait > self._settings.webhook_give_up_hours * 3600:
            kind, said = GIVEN_UP, f"{delivery.event} is given up after attempt {delivery.attempts}. {error}"
            recorded = await write(webhooks.give_up, delivery, status, str(error))
        else:
            kind, said = RETRIED, f"Attempt {delivery.attempts} failed, the next is in {wait:.0f} s. {error}"
            recorded = await write(webhooks.retry, delivery, status, error, wait)
        if not recorded:
            logger.info("Attempt %d came to its end too late: it no longer counts.", delivery.attempts)
            return
        self._metrics.notified(kind)
        logger.log(logging.INFO if kind is DELIVERED else logging.WARNING, "%s", said)


def _redirects(reply: Response) -> bool:
    return 300 <= reply.status < 400 and reply.status != 304


def payload(event: str, sync: Sync) -> bytes:
    """The body (SyncEvent in the spec): the same at each attempt, for a sync that has ended does not change."""
    ended = sync.finished_at or sync.as_of  # a table constraint: what has ended says when
    data = {**sync_body(sync), "merchant": sync.merchant}
    return orjson.dumps({"type": event, "timestamp": rfc3339(ended), "data": data})


def signature_headers(message_id: str, secrets: Sequence[str], body: bytes) -> dict[str, str]:
    """Return the headers of an attempt that is made now, with a signature by each secret (Standard Webhooks)."""
    now = datetime.now(UTC)
    signatures = [Signer(each).sign(message_id, now, body.decode()) for each in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def retry_delay(attempt: int, first: float, told: float | None) -> float:
    """Seconds until the next attempt: twice as long each time and not for all at once, or what the receiver asks for
    (Retry-After) where that is longer.
    """
    backoff = min(LONGEST_WAIT, first * 2.0 ** min(attempt - 1, 30))
    spread = backoff * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - nobody must not guess it
    return max(spread, min(told or 0.0, LONGEST_RETRY_AFTER))
