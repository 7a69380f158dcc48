"""Alerts and their remedies: a queue without a worker, stuck syncs, failing syncs, and stale catalogs."""

from datetime import datetime, timedelta
from typing import Any

from product_gateway.db.monitor import FailureStreak, Overview, SyncRow
from product_gateway.model.catalog import StaleCatalog
from product_gateway.model.syncs import Sync, SyncStatus
from product_gateway.openapi.bodies import rfc3339
from product_gateway.operations.monitor import remedies
from product_gateway.operations.monitor.remedies import Advice

SECONDS_UNTIL_SOMEBODY_SHOULD_HAVE_COME = 30
SECONDS_THAT_ARE_LONG_TO_WAIT = 600
WORKER = "product-gateway worker"


def alerts(found: Overview) -> list[dict[str, Any]]:
    """The most urgent first: what holds up everybody, then what is stuck, then what failed last."""
    concerning_one = (*map(_stuck, found.stuck), *map(_failing, found.failing))
    return [*_queue(found), *concerning_one, *(_stale(each, found.as_of) for each in found.stale)]


def ago(seconds: float) -> str:
    """A length of time as people say it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "d" else 1):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def _queue(found: Overview) -> list[dict[str, Any]]:
    waiting = [each for each in found.groups if each.status is SyncStatus.QUEUED]
    running = sum(each.count for each in found.groups if each.status is SyncStatus.IN_PROGRESS) - len(found.stuck)
    number, oldest = sum(each.count for each in waiting), max((each.oldest_seconds for each in waiting), default=0)
    headline = f"{'1 sync waits' if number == 1 else f'{number} syncs wait'}, the oldest for {ago(oldest)}"
    if running <= 0 and oldest > SECONDS_UNTIL_SOMEBODY_SHOULD_HAVE_COME:
        headline += ", and nothing runs"
        what_to_do = "Start a worker, or look into the log of the one that should be running."
        advice = Advice("no worker takes them up", what_to_do, WORKER)
    elif oldest > SECONDS_THAT_ARE_LONG_TO_WAIT:
        what_to_do = "Start another worker, or let each run more at the same time (WORKER_CONCURRENCY)."
        advice = Advice("there are more syncs than the workers can run", what_to_do, WORKER)
    else:
        return []
    return [_alert("QUEUE_WAITS", found.as_of - timedelta(seconds=oldest), headline, advice)]


def _stuck(run: SyncRow) -> dict[str, Any]:
    sync = run.sync
    heard = run.heartbeat_at or run.lease_expires_at or sync.queued_at
    silent = (sync.as_of - heard).total_seconds()
    advice = Advice(
        f"its worker ({run.lease_owner or 'unknown'}) died or hangs, and no other one takes over",
        "Another worker goes on behind the last page as soon as there is one with room: start one.",
        WORKER,
    )
    headline = f"{sync.entity_type} is stuck: its worker has been silent for {ago(silent)}"
    return _alert("SYNC_STUCK", heard, headline, advice, sync)


def _failing(failing: FailureStreak) -> dict[str, Any]:
    sync = failing.last
    ended = sync.finished_at or sync.queued_at
    times = "" if failing.times == 1 else f" for the {_ordinal(failing.times)} time in a row,"
    headline = f"{sync.entity_type} failed{times} {ago((sync.as_of - ended).total_seconds())} ago"
    alert = _alert("SYNC_FAILED", failing.since, headline, remedies.about(sync), sync)
    return {**alert, "times": failing.times, "runsAgain": failing.runs_again}


def _stale(catalog: StaleCatalog, as_of: datetime) -> dict[str, Any]:
    """A catalog that was not published in time, with the reason: what became of its latest sync."""
    at = catalog.published_at
    published = "was never published" if at is None else f"was published {ago((as_of - at).total_seconds())} ago"
    headline = f"{catalog.entity_type} is stale: it {published}, and its max age is {ago(catalog.max_age)}"
    alert = _alert("CATALOG_STALE", catalog.stale_after, headline, remedies.of_stale(catalog), catalog.latest)
    is_active = catalog.latest is not None and catalog.latest.is_active
    return {**alert, "merchant": catalog.merchant, "entityType": catalog.entity_type.value, "runsAgain": is_active}


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _alert(kind: str, since: datetime, headline: str, advice: Advice, sync: Sync | None = None) -> dict[str, Any]:
    return {
        "kind": kind,
        "merchant": sync and sync.merchant,
        "entityType": sync and sync.entity_type.value,
        "syncId": sync and str(sync.id),
        "since": rfc3339(since),
        "times": 1,
        "headline": headline,
        "words": advice.words,
        "whatToDo": advice.what_to_do,
        "command": advice.command,
        "runsAgain": False,
    }
