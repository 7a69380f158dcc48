"""What the monitor knows, as openapi/operations.yaml has it. The pages are written from the same."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from product_gateway.db import events
from product_gateway.db.monitor import Overview, SyncDetail, SyncRow
from product_gateway.model.syncs import CatalogSize, SyncEvent, SyncStatus
from product_gateway.model.webhooks import Delivery, DeliveryStatus
from product_gateway.openapi import bodies
from product_gateway.openapi.bodies import rfc3339
from product_gateway.operations.monitor import remedies
from product_gateway.operations.monitor.alerts import alerts

Body = dict[str, Any]
LONGEST_WORDS = 2000

WORDS = {
    events.QUEUED: "Requested",
    events.CLAIMED: "Attempt {number}: claimed by {detail}",
    events.PAGE: "Page {detail} is stored, {number} records read",
    events.REPEATED: "Requests to the product service retried: {number}, after {detail}",
    events.LEASE_LOST: "The worker {detail} sent no heartbeat: its lease expired",
    events.HANDED_BACK: "Handed back by its worker, which was stopped; another one goes on",
    events.RELEASED: "Released because other merchants wait; it goes on behind its last page when it is its turn",
    events.MASS_DELETION_ALLOWED: "The next successful sync may remove any number of records: allowed {detail}",
    events.PUBLISHED: "Published {detail}",
    events.DISCARDED: "Discarded {detail}",
    events.REVERTED: "Its revert was requested {detail}",
    SyncStatus.SUCCEEDED: "Succeeded",
    SyncStatus.FAILED: "Failed. {detail}",
    SyncStatus.CANCELLED: "Cancelled {detail}",
}


def sync_body(run: SyncRow) -> Body:
    """A sync, and who runs it."""
    sync = run.sync
    seconds = _seconds(run)
    speed = sync.records_read / seconds if seconds and sync.records_read else None
    in_progress = sync.status is SyncStatus.IN_PROGRESS
    known = in_progress and sync.records_total is not None and bool(sync.records_read) and not run.is_stuck
    return {
        **bodies.sync_body(sync),
        "merchant": sync.merchant,
        "lostWorkers": run.lost_workers,
        "seconds": None if seconds is None else round(seconds, 1),
        "recordsPerSecond": None if speed is None else round(speed, 1),
        "estimatedEnd": rfc3339(sync.as_of + timedelta(seconds=sync.seconds_left)) if known else None,
        "leaseOwner": run.lease_owner,
        "lastHeartbeatAt": run.heartbeat_at and rfc3339(run.heartbeat_at),
        "isStuck": run.is_stuck,
        "failure": _failure(run),
    }


def overview_body(found: Overview) -> Body:
    by_status = {status: [each for each in found.groups if each.status is status] for status in SyncStatus}
    waiting = by_status[SyncStatus.QUEUED]
    return {
        "attention": alerts(found),
        "failing": found.failing_in_all,
        "stale": found.stale_in_all,
        "queue": {
            "waiting": sum(each.count for each in waiting),
            "oldestSeconds": round(max(each.oldest_seconds for each in waiting), 1) if waiting else None,
            "inProgress": sum(each.count for each in by_status[SyncStatus.IN_PROGRESS]),
            "stuck": len(found.stuck),
        },
        "active": [sync_body(each) for each in found.active],
        "workers": _workers(found.active),
        "freshness": [
            {
                "merchant": each.merchant,
                "entityType": each.entity_type.value,
                "updatedAt": rfc3339(each.updated_at),
                "records": each.records,
            }
            for each in found.stalest
        ],
    }


def detail_body(found: SyncDetail, limit: CatalogSize) -> Body:
    """Return a sync with its details and the sizes of its merchant's catalog, which may have up to `limit`."""
    return {
        "sync": sync_body(found.run),
        "timeline": [*map(_event, found.events), *map(_delivery, found.deliveries)],
        "series": list(_series(found.events)),
        "problems": [bodies.problem_group(each) for each in found.problems],
        "catalog": [
            {
                "entityType": entity_type.value,
                "records": size.records,
                "maxRecords": limit.records,
                "bytes": size.bytes,
                "maxBytes": limit.bytes,
            }
            for entity_type, size in found.catalog.items()
        ],
    }


def _workers(active: Iterable[SyncRow]) -> list[Body]:
    """Return the workers that hold active syncs, the one with the oldest heartbeat first."""
    held: dict[str, list[datetime]] = {}
    for each in active:
        if each.lease_owner is not None and each.heartbeat_at is not None:
            held.setdefault(each.lease_owner, []).append(each.heartbeat_at)
    found = sorted((max(heartbeats), owner, len(heartbeats)) for owner, heartbeats in held.items())
    return [{"worker": owner, "syncs": syncs, "lastHeartbeatAt": rfc3339(at)} for at, owner, syncs in found]


def _failure(run: SyncRow) -> Body | None:
    if run.sync.failure_code is None:
        return None
    found = remedies.about(run.sync)
    return {
        "code": run.sync.failure_code,
        "words": found.words,
        "whatToDo": found.what_to_do,
        "command": found.command,
        "detail": run.sync.failure_detail or "",
    }


def _seconds(run: SyncRow) -> float | None:
    sync = run.sync
    if sync.started_at is None:
        return None
    return max(0.0, ((sync.finished_at or sync.as_of) - sync.started_at).total_seconds())


def _event(event: SyncEvent) -> Body:
    words = WORDS.get(event.kind, "{detail}").format(number=event.number, detail=event.detail or "").rstrip()
    return {"at": rfc3339(event.at), "kind": event.kind, "number": event.number, "words": words or event.kind}


def _delivery(delivery: Delivery) -> Body:
    """How far the merchant's webhook is with being told of the end."""
    attempts = f"{delivery.attempts} {'attempt' if delivery.attempts == 1 else 'attempts'}"
    words = {
        DeliveryStatus.PENDING: f"The merchant's webhook is to be told ({delivery.event}); {attempts} so far",
        DeliveryStatus.DELIVERED: f"The merchant's webhook was told ({delivery.event}), in {attempts}",
        DeliveryStatus.GIVEN_UP: f"The merchant's webhook could not be told ({delivery.event}), in {attempts}",
    }[delivery.status]
    error = "" if delivery.status is DeliveryStatus.DELIVERED or not delivery.last_error else f": {delivery.last_error}"
    at = delivery.finished_at or delivery.last_attempt_at or delivery.created_at
    return {
        "at": rfc3339(at),
        "kind": f"WEBHOOK_{delivery.status}",
        "number": delivery.attempts,
        "words": f"{words}{error}"[:LONGEST_WORDS],
    }


def _series(found: Iterable[SyncEvent]) -> Iterable[Body]:
    """The speed between two pages, and from the beginning of an attempt to its first."""
    told = [each for each in found if each.kind in (events.CLAIMED, events.PAGE)]
    read = 0
    for before, after in pairwise(told):
        if before.kind == events.PAGE:
            read = before.number or 0
        seconds = (after.at - before.at).total_seconds()
        if after.kind == events.PAGE and seconds > 0:
            speed = max(0, (after.number or 0) - read) / seconds
            yield {"at": rfc3339(after.at), "recordsPerSecond": round(speed, 1)}
