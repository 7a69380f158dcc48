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
PROMISED = (200, 202, 404, 410, 412, 429, 503)
Raw = dict[str, Any]
Answered = tuple[int, dict[str, Any]]


class Customer(threading.Thread):
    """A client of one merchant: PUTs, cancels, reverts and reads until told to stop. It is the merchant's only client.

    `accepted` are the syncs of all 202s, `cancelled` those that a DELETE ended, `violations` broken promises. `read`
    has the records of each generation that it read, by entity type and generation. With `loses_connections`, processes
    of the servers are killed: a request without a response may have been served, as one with 503.
    """

    def __init__(self, shop: Shop, clients: list[httpx2.Client], dice: random.Random) -> None:
        super().__init__(name=f"customer of {shop.name}")
        self.shop = shop
        self.answers: collections.Counter[str] = collections.Counter()
        self.accepted: dict[str, EntityType] = {}
        self.cancelled: set[str] = set()
        self.ended: dict[str, dict[str, Any]] = {}
        self.violations: list[str] = []
        self.read: dict[tuple[EntityType, int], list[Raw]] = {}
        self.slowest = 0.0
        self.may_be_unexpected: Callable[[], bool] = lambda: False
        self.loses_connections = False
        self._clients = clients
        self._dice = dice
        self._told_to_stop = threading.Event()
        self._unanswered: dict[EntityType, str] = {}
        self._succeeded: set[EntityType] = set()
        self._replicas: dict[EntityType, tuple[str | None, dict[str, Raw]]] = {}

    def stop(self) -> None:
        """Stop at the next pause."""
        self._told_to_stop.set()

    def run(self) -> None:
        """Run random actions in turn. An unexpected error here counts as a violation, too."""
        actions: list[Callable[[EntityType], Any]] = [self.put, self.put, self.read_status, self.read_catalog]
        actions += [self.follow, self.look_back, self.publish]
        try:
            while not self._told_to_stop.wait(self._dice.uniform(0.02, 0.1)):
                kind = self._dice.choice(list(EntityType))
                chance = self._dice.random()
                if chance < 0.02:
                    self.cancel(kind)
                elif chance < 0.08:
                    self.revert(kind)
                elif chance < 0.18:
                    self._put(kind, None, "manual")
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

    def revert(self, kind: EntityType) -> None:
        """Undo a sync, but not the first: shops always have some records."""
        done = [each for each in self.ended.values() if (each["generation"] or 0) > 1 and each["entityType"] == kind]
        if done:
            chosen = self._dice.choice(done[-3:])
            status, body = self.ask("POST", f"/syncs/{chosen['id']}/revert")
            if status == 202:
                self.accepted[body["data"]["id"]] = kind
                if body["data"]["reverts"] != chosen["id"]:
                    self._violated(f"a revert of {chosen['id']} showed {body['data']}")

    def publish(self, kind: EntityType) -> None:
        """Publish or discard what the latest sync has staged. It must be shown from then on."""
        latest = self.ask("GET", f"/sync/{kind}")[1].get("meta", {}).get("sync") or {}
        if latest.get("publication") != "STAGED":
            return
        end, becomes = self._dice.choice([("publish", "PUBLISHED"), ("discard", "DISCARDED")])
        status, body = self.ask("POST", f"/syncs/{latest['id']}/{end}")
        if status == 200 and body["data"]["publication"] != becomes:
            self._violated(f"{end} of {latest['id']} showed {body['data']}")
        if status == 412:
            self._violated(f"the staged result of {latest['id']} could not be ended by {end}: {body}")

    def read_catalog(self, kind: EntityType) -> list[Raw] | None:
        """Read all records: of one generation, and the permanent ones among them from the first success on."""
        path = next(path for path, of in PATHS.items() if of is kind)
        complete = kind in self._succeeded
        records: list[Raw] = []
        generations: set[int] = set()
        query: dict[str, Any] = {"page_size": 200 if self._dice.random() < 0.5 else 60}
        while True:
            status, body = self.ask("GET", f"/{path}", query)
            if status != 200:
                return None
            records += body["data"]
            generations.add(body["meta"]["generation"])
            if "nextCursor" not in body["meta"]:
                break
            query["cursor"] = body["meta"]["nextCursor"]
            time.sleep(self._dice.choice([0, 0.3]))
        missing = self.shop.steady(kind) - {each["id"] for each in records}
        if complete and missing:
            self._violated(f"{kind}: {len(missing)} records are gone that the shop always had: {sorted(missing)[:3]}")
        for each in records:
            edition = each["sku" if kind is EntityType.PRODUCT else "description"]
            if each["title"] != f"{each['id']}, {edition}":
                self._violated(f"a record is of two editions: {each}")
        if len(generations) != 1:
            self._violated(f"a list of {kind} is of the generations {sorted(generations)}")
        self._has_read(kind, generations.pop(), records)
        return records

    def follow(self, kind: EntityType) -> None:
        """Read the next page of the feed into a replica. At its end, the replica is one generation, whole."""
        cursor, replica = self._replicas.pop(kind, (None, {}))
        query: dict[str, Any] = {"page_size": self._dice.choice([20, 200]), **({"cursor": cursor} if cursor else {})}
        status, body = self.ask("GET", f"/changes/{kind}", query)
        if status == 503:
            self._replicas[kind] = (cursor, replica)
        if status != 200:
            return  # 410: start again
        for each in body["data"]:
            if (each["id"] in replica) != (each["change"] != "CREATED"):
                self._violated(f"the change {each['change']} of {each['id']} does not fit the replica")
            if each["change"] == "DELETED":
                replica.pop(each["id"], None)
            else:
                record = each[kind.lower()]
                replica[each["id"]] = {name: value for name, value in record.items() if name != "productIds"}
        if not body["meta"]["hasMore"]:
            self._has_read(kind, body["meta"]["generation"], [record for _, record in sorted(replica.items())])
        self._replicas[kind] = (body["meta"]["nextCursor"], replica)

    def _has_read(self, kind: EntityType, generation: int, records: list[Raw]) -> None:
        if self.read.setdefault((kind, generation), records) != records:
            self._violated(f"generation {generation} of {kind} was read with other records before")

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
        if now["status"] in FINAL:
            was = self.ended.get(sync_id, now)
            if was not in (now, {**now, "publication": "STAGED"}):
                self._violated(f"a sync that had ended has changed: {was} -> {now}")
            self.ended[sync_id] = now
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
        try:
            answer = client.request(method, API + path, params=query, headers=headers)
        except httpx2.TransportError:
            if not self.loses_connections:
                raise
            self.answers[f"{method} lost"] += 1
            return 503, {}
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.answers[f"{method} {answer.status_code}"] += 1
        if answer.status_code == 500 and self.may_be_unexpected():
            return 503, {}
        if answer.status_code not in PROMISED:
            self._violated(f"{method} {path}: {answer.status_code} {answer.text}")
        body: dict[str, Any] = answer.json()
        return answer.status_code, body

    def _put(self, kind: EntityType, key: str | None, publish: str = "automatic") -> Answered:
        headers = None if key is None else {"Idempotency-Key": key}
        status, body = self.ask("PUT", f"/sync/{kind}", {"publish": publish}, headers)
        if status == 202:
            self.accepted[body["data"]["id"]] = kind
        return status, body

    def _violated(self, what: str) -> None:
        self.violations.append(f"{self.shop.name}: {what}")
