"""A process that stops in the middle of a write: on PostgreSQL it blocks others only briefly."""

import threading
import time

import pytest
from sqlalchemy import Connection

from product_gateway.db import claims, merchants, syncs
from product_gateway.db.database import open_database
from product_gateway.db.engines import postgresql
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import SyncAlreadyActive, Unavailable
from product_gateway.model.catalog import Page
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim, Counts, EntityType, SyncStatus
from tests.support import databases

PRODUCT = EntityType.PRODUCT


def test_a_worker_stopped_in_a_write_does_not_block_cancelling(
    postgresql_server: str, postgresql_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine may sleep for hours with the connection open; the row that it has locked must not sleep with it."""
    monkeypatch.setattr(postgresql, "LONGEST_SILENCE", "1s")
    url = databases.copy_of(postgresql_server, postgresql_template)
    asleep, may_wake = threading.Event(), threading.Event()
    outcome: list[object] = []

    def sleep_in_a_write(connection: Connection, claim: Claim) -> None:
        claims.heartbeat(connection, claim, 1)
        asleep.set()
        may_wake.wait(30)
        claims.record_page(connection, claim, Page((), (), None, None), Counts())

    def worker(claim: Claim) -> None:
        try:
            sleeper.call(sleep_in_a_write, claim)
        except Unavailable as error:
            outcome.append(error)

    with open_database(url) as database, open_database(url) as sleeper:
        database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
        database.call(enqueue, "shop", PRODUCT)
        claim = database.call(claims.claim, "tester", 1.0, 5, 2)
        assert claim is not None
        thread = threading.Thread(target=worker, args=(claim,))
        thread.start()
        try:
            assert asleep.wait(30)
            started = time.monotonic()
            with pytest.raises(SyncAlreadyActive):
                database.call(enqueue, "shop", PRODUCT)
            assert database.call(syncs.cancel, "shop", PRODUCT).status is SyncStatus.CANCELLED
            assert database.call(enqueue, "shop", PRODUCT).status is SyncStatus.QUEUED
            assert time.monotonic() - started < 10
        finally:
            may_wake.set()
            thread.join()
        assert len(outcome) == 1, "what it wrote before it stood still must not count either"
