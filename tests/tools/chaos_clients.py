"""The clients of the chaos run: each acts for one merchant and records what it was promised."""

import collections
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx2

from product_gateway.model.syncs import EntityType
from tests.support.deployment import API
from tests.support.flaky_service import PATHS, Shop

FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")
PATIENCE = 30.0
PROMISED = (200, 202, 404, 429, 503)
Answered = tuple[int, dict[str, Any]]


class Customer(threading.Thread):
    """A client of one merchant: PUTs, cancels and reads until told to stop. It is the merchant's only client.

    `accepted` are the syncs of all 202s, `cancelled` those that a DELETE ended, `violations` broken promises.
    """

    def __init__(self, shop: Shop, clients: list[httpx2.Client], dice: random.Random) -> None:
        super().__init__(name=f"customer of {shop.name}")
        self.shop = shop
        self.answers: collections.Counter[str] = collections.Counter()
        self.accepted: dict[str, EntityType] = {}
        self.cancelled: set[str] = set()
        self.ended: dict[str, dict[str, Any]] = {}
        self.violations: list[str] = []
        self.slowest = 0.0
        self.may_be_unexpected: Callable[[], bool] = lambda: False
        self._clients = clients
        self._dice = dice
        self._told_to_stop = threading.Event()
        self._unanswered: dict[EntityType, str] = {}
        self._succeeded: set[EntityType] = set()

    def stop(self) -> None:
        """Stop at the next pause."""
        self._told_to_stop.set()

    def run(self) -> None:
        """Run random actions in turn. An unexpected error here counts as a violation, too."""
        actions = [self.put, self.put, self.read_status, self.read_catalog, self.look_back]
        try:
            while not self._told_to_stop.wait(self._dice.uniform(0.02, 0.1)):
                kind = self._dice.choice(list(EntityType))
                if self._dice.random() < 0.02:
                    self.cancel(kind)
                else:
                    self._dice.choice(actions)(kind)
        except Exception as error:  # noqa: BLE001 - it ends up in the report
            self._violated(f"the client could not go on: {error!r}")

    def put(self, kind: EntityType) -> str | None:
        """PUT, mostly with a key, and repeat after a 503. Return the sync of a 202."""
        key = self._unanswered.pop(kind, None)
        if key is None and self._dice.random() < 0.7:
            key = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
        status, body = self._put(kind, key)
        if status == 503 and key is not None:
            self._unanswered[kind] = key
        if status != 202:
            return None
        sync_id = str(body["data"]["id"])
        if key is not None and self._dice.random() < 0.2:
            again, repeated = self._put(kind, key)
            if again not in (202, 503) or (again == 202 and repeated["data"]["id"] != sync_id):
                self._violated(f"the key of {sync_id} brought {again} {repeated}")
        return sync_id

    def cancel(self, kind: EntityType) -> None:
        """Cancel, and request a new sync at once, as the contract allows."""
        status, body = self.ask("DELETE", f"/sync/{kind}")
        if status != 202:
            return
        self.cancelled.add(body["data"]["id"])
        if body["data"]["status"] != "CANCELLED":
            self._violated(f"a DELETE showed {body['data']}")
        self._unanswered.pop(kind, None)
        status, body = self._put(kind, None)
        if status not in (202, 503):
            self._violated(f"a PUT after a DELETE brought {status} {body}")

    def read_status(self, kind: EntityType) -> int | None:
        """Check the number of records, if a sync has succeeded."""
        status, body = self.ask("GET", f"/sync/{kind}")
        if status == 404 and kind in self._succeeded:
            self._violated(f"{kind} has been synced and GET says 404")
        if status != 200:
            return None
        self._succeeded.add(kind)
        return int(body["data"]["numRecords"])

    def read_catalog(self, kind: EntityType) -> list[dict[str, Any]] | None:
        """Read all records; the permanent ones must exist from the first success on."""
        path = next(path for path, of in PATHS.items() if of is kind)
        complete = kind in self._succeeded
        records: list[dict[str, Any]] = []
        query: dict[str, Any] = {"page_size": 200}
        while True:
            status, body = self.ask("GET", f"/{path}", query)
            if status != 200:
                return None
            records += body["data"]
            if "nextCursor" not in body["meta"]:
                break
            query["cursor"] = body["meta"]["nextCursor"]
        missing = self.shop.steady(kind) - {each["id"] for each in records}
        if complete and missing:
            self._violated(f"{kind}: {len(missing)} records are gone that the shop always had: {sorted(missing)[:3]}")
        for each in records:
            edition = each["sku" if kind is EntityType.PRODUCT else "description"]
            if each["title"] != f"{each['id']}, {edition}":
                self._violated(f"a record is of two editions: {each}")
        return records

    def look_back(self, _: EntityType) -> None:
        """Check that a past sync exists and that an ended one has not changed."""
        if self.accepted:
            self.check(self._dice.choice(list(self.accepted)))

    def check(self, sync_id: str) -> str | None:
        """Return the status, if there is a response."""
        status, body = self.ask("GET", f"/syncs/{sync_id}")
        if status != 200:
            if status != 503:
                self._violated(f"{sync_id} was answered with 202, and now {status}")
            return None
        now = body["data"]
        if now["status"] in FINAL and self.ended.setdefault(sync_id, now) != now:
            self._violated(f"a sync that had ended has changed: {self.ended[sync_id]} -> {now}")
        if sync_id in self.cancelled and now["status"] != "CANCELLED":
            self._violated(f"{sync_id} was cancelled, and is {now['status']}")
        return str(now["status"])

    def ask(
        self, method: str, path: str, query: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> Answered:
        """Send one request to one of the servers; expect only 503 while the database is unavailable.

        While the database raises unexpected errors, 500 is expected, too.
        """
        client = self._dice.choice(self._clients)
        started = time.monotonic()
        answer = client.request(method, API + path, params=query, headers=headers)
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.answers[f"{method} {answer.status_code}"] += 1
        if answer.status_code == 500 and self.may_be_unexpected():
            return 503, {}
        if answer.status_code not in PROMISED:
            self._violated(f"{method} {path}: {answer.status_code} {answer.text}")
        body: dict[str, Any] = answer.json()
        return answer.status_code, body

    def _put(self, kind: EntityType, key: str | None) -> Answered:
        status, body = self.ask("PUT", f"/sync/{kind}", headers=None if key is None else {"Idempotency-Key": key})
        if status == 202:
            self.accepted[body["data"]["id"]] = kind
        return status, body

    def _violated(self, what: str) -> None:
        self.violations.append(f"{self.shop.name}: {what}")
