"""A product service over real HTTP whose catalogs change and which is not always well."""

import asyncio
import bisect
import collections
import random
import threading
import time
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

import orjson
from starlette.types import Receive, Scope, Send

from product_gateway.model.syncs import EntityType

PATHS = {"products": EntityType.PRODUCT, "collections": EntityType.COLLECTION}
LONGEST_SILENCE = 5.0
Raw = dict[str, Any]


class Mood(StrEnum):
    """How the service answers."""

    WELL = "well"
    FAILING = "failing"
    LIMITING = "limiting"
    HANGING = "hanging"
    CUTTING = "cutting"


class Shop:
    """A merchant's own system: `steady` records that stay for ever, and as many others that come and go.

    So a sync never has to remove half of a catalog, and what a steady record's absence means is clear.
    """

    def __init__(self, name: str, dice: random.Random, steady: int) -> None:
        self.name = name
        self.mood = Mood.WELL
        self.delay = 0.0
        self.changes = 0
        self.requests: collections.Counter[Mood] = collections.Counter()
        self.asked_by_id = 0  # of these
        self._dice = dice
        self._changing = threading.Lock()
        self._steady = {kind: [f"{n:05d}-steady" for n in range(steady)] for kind in EntityType}
        self._fleeting = {kind: [f"{n:05d}-fleeting" for n in range(steady * 2 // 3)] for kind in EntityType}
        self._records = {kind: {each: self._record(kind, each) for each in self._steady[kind]} for kind in EntityType}
        self._in_order = {kind: list(records.values()) for kind, records in self._records.items()}

    def steady(self, kind: EntityType) -> set[str]:
        """The ids that are never removed."""
        return set(self._steady[kind])

    def records(self, kind: EntityType) -> list[Raw]:
        """What there is now, in order of id."""
        return self._in_order[kind]

    def change(self) -> None:
        """Some records come, some go, some are written anew."""
        kind = self._dice.choice(list(EntityType))
        with self._changing:
            self.changes += 1
            changed = dict(self._records[kind])
            for each in self._dice.sample(self._fleeting[kind], 3):
                if changed.pop(each, None) is None:
                    changed[each] = self._record(kind, each)
            for each in self._dice.sample(self._steady[kind], 3):
                changed[each] = self._record(kind, each)
            self._records[kind] = changed
            self._in_order[kind] = [record for _, record in sorted(changed.items())]

    def page(self, kind: EntityType, after: str, size: int) -> Raw:
        """The records behind the id `after`."""
        records = self.records(kind)  # once: it is another list after a change
        start = bisect.bisect_right(records, after, key=lambda record: str(record["id"]))
        rows = records[start : start + size]
        more = start + size < len(records)
        pagination: Raw = {"moreResults": more, "totalNumber": len(records), "cursor": after}
        if more:
            pagination["nextCursor"] = rows[-1]["id"]
        return {"items": rows, "pagination": pagination}

    def some(self, kind: EntityType, ids: list[str]) -> Raw:
        """Those of the records that there are, on one page."""
        rows = [record for each, record in self._records[kind].items() if each in ids]
        return {"items": rows, "pagination": {"moreResults": False, "totalNumber": len(rows), "cursor": ""}}

    def _record(self, kind: EntityType, record_id: str) -> Raw:
        made: Raw = {"id": record_id, "title": f"{record_id}, edition {self.changes}"}
        if kind is EntityType.PRODUCT:
            return {**made, "sku": f"edition {self.changes}", "listPrice": self._dice.randrange(10_000)}
        chosen = self._dice.sample(self._steady[EntityType.PRODUCT], 3)
        return {**made, "description": f"edition {self.changes}", "products": [{"id": p, "title": p} for p in chosen]}


class MoodyService:
    """All shops under one address, as ASGI: /{shop}/products and /{shop}/collections."""

    def __init__(self, shops: list[Shop]) -> None:
        self._shops = {shop.name: shop for shop in shops}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One page, as the shop feels."""
        if scope["type"] != "http":
            return
        _, name, path = scope["path"].split("/")
        query = parse_qs(scope["query_string"].decode())
        shop = self._shops[name]
        mood = shop.mood
        shop.requests[mood] += 1
        shop.asked_by_id += "ids" in query
        await asyncio.sleep(shop.delay)
        silent_until = time.monotonic() + LONGEST_SILENCE
        while shop.mood is Mood.HANGING and time.monotonic() < silent_until:  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.05)
        if "ids" in query:
            page = shop.some(PATHS[path], query["ids"][0].split(","))
        else:
            page = shop.page(PATHS[path], query.get("cursor", [""])[0], int(query["page_size"][0]))
        content = orjson.dumps(page)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        if mood in (Mood.FAILING, Mood.LIMITING):
            status, content = (500, b"{}") if mood is Mood.FAILING else (429, b"{}")
            headers = [
                (b"content-type", b"application/problem+json"),
                (b"content-length", b"2"),
                (b"retry-after", b"1"),
            ]
            await send({"type": "http.response.start", "status": status, "headers": headers})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        if mood is Mood.CUTTING:  # half of what the header says, and then nothing: the server closes the connection
            await send({"type": "http.response.body", "body": content[: len(content) // 2], "more_body": True})
            return
        await send({"type": "http.response.body", "body": content, "more_body": False})
