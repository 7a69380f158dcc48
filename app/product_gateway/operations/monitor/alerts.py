"""Alerts and their remedies: a queue without a worker, stuck syncs, and merchants whose syncs fail."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from product_gateway.db.monitor import FailureStreak, Overview, SyncRow
from product_gateway.model.syncs import SyncStatus
from product_gateway.openapi.bodies import rfc3339
from product_gateway.operations.monitor import remedies

SECONDS_UNTIL_SOMEBODY_SHOULD_HAVE_COME = 30
SECONDS_THAT_ARE_LONG_TO_WAIT = 600


def attention(found: Overview) -> list[dict[str, Any]]:
    """The most urgent first: what holds up everybody, then what is stuck, then what failed last."""
    return [*_queue(found), *(_stuck(each) for each in found.stuck), *(_failing(each) for each in found.failing)]


def ago(seconds: float) -> str:
    """A length of time as people say it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "d" else 1):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def _queue(found: Overview) -> Iterator[dict[str, Any]]:
    waiting = [each for each in found.groups if each.status is SyncStatus.QUEUED]
    running = sum(each.count for each in found.groups if each.status is SyncStatus.IN_PROGRESS) - len(found.stuck)
    if not waiting:
        return
    number, oldest = sum(each.count for each in waiting), max(each.oldest_seconds for each in waiting)
    syncs = "1 sync waits" if number == 1 else f"{number} syncs wait"
    since = found.as_of - timedelta(seconds=oldest)
    if running <= 0 and oldest > SECONDS_UNTIL_SOMEBODY_SHOULD_HAVE_COME:
        yield _item(
            "QUEUE_WAITS",
            since,
            f"{syncs}, the oldest for {ago(oldest)}, and nothing runs",
            words="no worker takes them up",
            what_to_do="Start a worker, or look into the log of the one that should be running.",
            command="product-gateway worker",
        )
    elif oldest > SECONDS_THAT_ARE_LONG_TO_WAIT:
        yield _item(
            "QUEUE_WAITS",
            since,
            f"{syncs}, the oldest for {ago(oldest)}",
            words="there are more syncs than the workers can run",
            what_to_do="Start another worker, or let each run more at the same time (WORKER_CONCURRENCY).",
            command="product-gateway worker",
        )


def _stuck(run: SyncRow) -> dict[str, Any]:
    sync = run.sync
    heard = run.heartbeat_at or run.lease_expires_at or sync.queued_at
    silent = (sync.as_of - heard).total_seconds()
    return _item(
        "SYNC_STUCK",
        heard,
        f"{sync.entity_type} is stuck: its worker has been silent for {ago(silent)}",
        merchant=sync.merchant,
        entity_type=sync.entity_type.value,
        sync_id=str(sync.id),
        words=f"its worker ({run.lease_owner or 'unknown'}) died or hangs, and no other one takes over",
        what_to_do="Another worker goes on behind the last page as soon as there is one with room: start one.",
        command="product-gateway worker",
    )


def _failing(failing: FailureStreak) -> dict[str, Any]:
    sync = failing.last
    found = remedies.about(sync)
    ended = sync.finished_at or sync.queued_at
    times = "" if failing.times == 1 else f" for the {_ordinal(failing.times)} time in a row,"
    return _item(
        "SYNC_FAILED",
        failing.since,
        f"{sync.entity_type} failed{times} {ago((sync.as_of - ended).total_seconds())} ago",
        merchant=sync.merchant,
        entity_type=sync.entity_type.value,
        sync_id=str(sync.id),
        times=failing.times,
        words=found.words,
        what_to_do=found.what_to_do,
        command=found.command,
        runs_again=failing.runs_again,
    )


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _item(
    kind: str,
    since: datetime,
    headline: str,
    *,
    words: str,
    what_to_do: str,
    command: str | None = None,
    merchant: str | None = None,
    entity_type: str | None = None,
    sync_id: str | None = None,
    times: int = 1,
    runs_again: bool = False,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "merchant": merchant,
        "entityType": entity_type,
        "syncId": sync_id,
        "since": rfc3339(since),
        "times": times,
        "headline": headline,
        "words": words,
        "whatToDo": what_to_do,
        "command": command,
        "runsAgain": runs_again,
    }
