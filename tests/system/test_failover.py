"""Failover: the primary dies and the standby is promoted; no process of the gateway restarts."""

import collections
import itertools
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from product_gateway.db import migrate
from product_gateway.db.database import open_database
from tests.support.deployment import API, Deployment, ended, within
from tests.support.merchants import client, open_shops
from tests.support.postgresql_cluster import HOST, USER, primary_and_standby

MERCHANTS = ("m0", "m1", "m2")
RECORDS = 100
SECONDS_WITHOUT_A_PRIMARY = 1.0
SECONDS_TO_RECOVER = 10


@dataclass
class Caller:
    """A client that requests syncs of one merchant through both gateways, and records the responses."""

    merchant: str
    clients: list[httpx2.Client]
    accepted: dict[str, float] = field(default_factory=dict)  # sync -> when
    answers: collections.Counter[int] = field(default_factory=collections.Counter)
    without_retry_after: list[httpx2.Response] = field(default_factory=list)

    def call(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        for gateway in itertools.cycle(self.clients):
            if stop.wait(0.05):
                return
            answer = gateway.put(f"{API}/sync/PRODUCT")
            self.answers[answer.status_code] += 1
            if answer.status_code == 202:
                self.accepted[answer.json()["data"]["id"]] = time.monotonic()
            elif "retry-after" not in answer.headers:
                self.without_retry_after.append(answer)

    def is_in_the_middle_of_one(self) -> bool:
        """Return whether some pages of a sync are written, but not all."""
        running = self.clients[0].get(f"{API}/syncs", params={"status": "IN_PROGRESS"}).json()["data"]
        return any(0 < sync["progress"]["recordsRead"] < RECORDS / 2 for sync in running)

    def first_accepted_after(self, moment: float) -> float | None:
        """Return the time of the first 202 after this moment."""
        return min((each for each in self.accepted.values() if each > moment), default=None)


def test_a_failover_loses_no_sync_and_needs_no_restart(tmp_path: Path) -> None:
    """The standby has every 202, the processes find it by themselves, and no sync runs twice."""
    with ExitStack() as stack:
        primary, standby = stack.enter_context(primary_and_standby())
        hosts = ",".join(f"{HOST}:{each.port}" for each in (primary, standby))
        url = f"postgresql://{USER}@{hosts}/postgres?target_session_attrs=read-write"
        deployment = Deployment(
            tmp_path, url, lease_seconds="2", page_size="20", max_page_size="20", worker_concurrency="3"
        )
        service = stack.enter_context(deployment.sample_service("--records", str(RECORDS), "--delay", "0.1"))
        with open_database(url) as database:
            database.call(migrate.upgrade)
        open_shops(deployment, service, MERCHANTS)
        processes = [stack.enter_context(deployment.process("serve", "--port", "0")) for _ in range(2)]
        urls = [each.url() for each in processes]
        processes += [stack.enter_context(deployment.process("worker")) for _ in range(2)]
        within(20, lambda: all("waiting for syncs" in each.log.read_text() for each in processes[2:]))
        callers = [
            Caller(each, [stack.enter_context(client(deployment, url, each)) for url in urls]) for each in MERCHANTS
        ]

        stop = threading.Event()
        with ThreadPoolExecutor(len(callers)) as threads:
            calls = [threads.submit(each.call, stop) for each in callers]
            try:
                within(20, lambda: all(len(each.accepted) > 1 for each in callers))
                within(20, callers[0].is_in_the_middle_of_one)
                primary.crash()
                time.sleep(SECONDS_WITHOUT_A_PRIMARY)
                standby.promote()
                promoted = time.monotonic()
                within(SECONDS_TO_RECOVER, lambda: all(each.first_accepted_after(promoted) for each in callers))
            finally:
                stop.set()
            for call in calls:
                call.result()

        recovered = [(each.first_accepted_after(promoted) or 0) - promoted for each in callers]
        answers = sum((each.answers for each in callers), collections.Counter[int]())
        assert set(answers) == {202, 429, 503}
        assert [each.text for caller in callers for each in caller.without_retry_after] == []
        for each in callers:
            check_syncs(each)
            check_catalog(each, service)
        assert [each.status() for each in processes] == [None] * 4
        logs = "".join(each.log.read_text() for each in processes)
        assert "Traceback" not in logs
        check_owners(logs)
        taken_over = len(re.findall(r"The sync begins, attempt (?!1\.)\d+\.", logs))
        print(f"recovered after {min(recovered):.2f} to {max(recovered):.2f} s; {dict(answers)}; {taken_over=}")


def check_syncs(caller: Caller) -> None:
    """Every accepted sync exists and ran once: the first created the records, the others found them unchanged."""
    gateway = caller.clients[0]
    for sync in caller.accepted:
        assert ended(gateway, {"id": sync})["status"] == "SUCCEEDED"
    history = gateway.get(f"{API}/syncs", params={"page_size": 100}).raise_for_status().json()
    assert "nextCursor" not in history["meta"]
    first, *others = [ended(gateway, sync) for sync in reversed(history["data"])]
    assert caller.accepted.keys() <= {sync["id"] for sync in (first, *others)}
    nothing = {"created": 0, "updated": 0, "unchanged": 0, "deleted": 0, "rejected": 0}
    assert first["result"] == {**nothing, "created": RECORDS}
    assert [sync["result"] for sync in others] == [{**nothing, "unchanged": RECORDS}] * len(others)
    assert {(sync["status"], sync["progress"]["recordsRead"]) for sync in (first, *others)} == {("SUCCEEDED", RECORDS)}


def check_catalog(caller: Caller, service: str) -> None:
    """Compare record by record."""
    held = caller.clients[1].get(f"{API}/products", params={"page_size": RECORDS}).raise_for_status().json()["data"]
    source = httpx2.get(f"{service}/products", params={"page_size": RECORDS}, headers={"Authorization": "Bearer any"})
    assert held == json.loads(source.text.replace("+00:00", "Z"))["items"]


def check_owners(logs: str) -> None:
    """No two workers made the same attempt, or ended the same sync."""
    attempts: list[Any] = re.findall(r"The sync begins, attempt (\d+)\.\t.*\bsync_id=(\S+)", logs)
    assert len(set(attempts)) == len(attempts) > 0
    successes = re.findall(r"The sync SUCCEEDED after \S+ s\.\t.*\bsync_id=(\S+)", logs)
    assert len(set(successes)) == len(successes) > 0
