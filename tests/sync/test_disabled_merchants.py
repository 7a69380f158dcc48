"""A merchant that may no longer use the gateway: what becomes of its active syncs and of the clients that wait."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from product_gateway.db import events, merchants, syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, SyncStatus
from tests.support.contract import Gateway, error
from tests.support.deployment import API, Deployment, ended, within
from tests.support.paced_service import PacedService
from tests.support.serving import serve

SOON = 15  # seconds, on a busy machine
LONG = 50  # seconds that the clients would wait
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "--disable": ({"disabled": True}, "because its merchant was disabled"),
    "--platform BENTO": ({"platform": Platform.BENTO}, "because its merchant no longer brings its own platform"),
}


@contextmanager
def one_slot(deployment: Deployment) -> Iterator[tuple[Gateway, PacedService]]:
    """A gateway with a worker of one slot, and the merchants `shop` and `other`, whose pages the test hands out."""
    deployment.environment |= {"PRODUCT_GATEWAY_WORKER_CONCURRENCY": "1", "PRODUCT_GATEWAY_PAGE_SIZE": "20"}
    service = PacedService()
    with serve(service) as address, deployment.serving("--with-worker") as url:
        gateway = Gateway(deployment, url)
        for name in ("shop", "other"):
            gateway.add(name, f"{address}/{name}")
        try:
            yield gateway, service
        finally:
            for name in ("shop", "other"):
                service.allow(name)


@contextmanager
def waiting(gateway: Gateway, client: httpx2.Client) -> Iterator[dict[str, "Future[httpx2.Response]"]]:
    """A client for each entity type that waits for a sync of it: one sync in progress, one queued."""

    def wait(sync_id: str) -> httpx2.Response:
        with httpx2.Client(base_url=gateway.url, headers=client.headers, timeout=LONG + SOON) as waiter:
            return waiter.get(f"{API}/syncs/{sync_id}", headers={"Prefer": f"wait={LONG}"})

    with ThreadPoolExecutor(2) as threads:
        first, second = (client.put(f"{API}/sync/{each}").json()["data"]["id"] for each in EntityType)
        found = {each: threads.submit(wait, each) for each in (first, second)}
        within(SOON, lambda: {state(client, first), state(client, second)} == {"IN_PROGRESS", "QUEUED"})
        assert not any(each.done() for each in found.values())
        yield found


def state(client: httpx2.Client, sync_id: str) -> str:
    """The status of a sync."""
    return str(client.get(f"{API}/syncs/{sync_id}").json()["data"]["status"])


def assert_the_slot_is_free(gateway: Gateway, service: PacedService) -> None:
    """The worker has noticed: another merchant's sync runs."""
    service.allow("other")
    with gateway.of("other") as other:
        sync = other.put(f"{API}/sync/PRODUCT").json()["data"]
        assert ended(other, sync, SOON)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("option", CHANGES)
def test_a_merchant_that_is_shut_out_has_no_active_sync_and_nobody_waits_for_one(
    deployment: Deployment, option: str
) -> None:
    """It could not cancel them itself any more: every request of its is answered 403."""
    with one_slot(deployment) as (gateway, service), gateway.of("shop") as client:
        service.allow("shop", 1)
        with waiting(gateway, client) as answers:
            deployment.run("merchant", "update", "shop", *option.split())
            for sync_id, answer in answers.items():
                found = answer.result(SOON).json()["data"]
                assert (found["id"], found["status"]) == (sync_id, "CANCELLED")
        error(client.delete(f"{API}/sync/PRODUCT"), 403)
        assert_the_slot_is_free(gateway, service)
        deployment.run("merchant", "update", "shop", "--enable", "--platform", "BYOP")
        assert client.put(f"{API}/sync/PRODUCT").status_code == 202


def test_whoever_waits_for_a_sync_of_a_merchant_that_is_removed_hears_so(deployment: Deployment) -> None:
    """There is nothing left to wait for, so the wait ends before its time."""
    with one_slot(deployment) as (gateway, service), gateway.of("shop") as client:
        with waiting(gateway, client) as answers:
            deployment.run("merchant", "remove", "shop", "--yes")
            for answer in answers.values():
                error(answer.result(SOON), 404)
        assert_the_slot_is_free(gateway, service)


@pytest.mark.parametrize("option", CHANGES)
def test_what_is_cancelled_with_its_merchant_says_why_and_is_announced(database: Database, option: str) -> None:
    """The merchant's receiver hears of every end of a sync, and the timeline of the monitor of the reason."""
    values, why = CHANGES[option]
    database.call(webhooks.put, "shop", url="https://receiver.example", secret="encrypted")
    active = [database.call(enqueue, "shop", each) for each in EntityType]
    others = database.call(enqueue, "other", EntityType.PRODUCT)
    database.call(merchants.update_merchant, "shop", **values)
    for sync in active:
        assert database.call(syncs.get, "shop", sync.id).status is SyncStatus.CANCELLED
        last = database.call(events.of_sync, "shop", sync.id)[-1]
        assert (last.kind, last.detail) == (SyncStatus.CANCELLED, why)
        (told,) = database.call(webhooks.of_sync, "shop", sync.id)
        assert told.event == "sync.cancelled"
    assert database.call(syncs.get, "other", others.id).status is SyncStatus.QUEUED


def test_a_change_that_shuts_nobody_out_leaves_the_active_syncs(database: Database) -> None:
    """An operator who changes the currency does not expect a sync to end."""
    sync = database.call(enqueue, "shop", EntityType.PRODUCT)
    database.call(merchants.update_merchant, "shop", currency="EUR", disabled=False, platform=Platform.BYOP)
    assert database.call(syncs.get, "shop", sync.id).status is SyncStatus.QUEUED
