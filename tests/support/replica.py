"""A replica of a catalog, kept by the feed of changes over HTTP as a client would: from the cursor alone.

It keeps the bytes of each record, so that it can be compared with a list byte for byte.
"""

import json
from collections.abc import Iterator

import httpx2

from tests.support.deployment import API

_decoder = json.JSONDecoder()


class Replica:
    """The products of the merchant of `client`. `windows` counts the times it was up to date, `restarts` those of 410.

    `records` are in the order of the feed.
    """

    def __init__(self, client: httpx2.Client) -> None:
        self.records: dict[str, str] = {}
        self.generation = 0
        self.windows = self.restarts = self.changes = 0
        self._client = client
        self._cursor: str | None = None

    def follow(self, page_size: int) -> None:
        """Apply all changes up to the newest generation."""
        has_more = True
        while has_more:
            query = {"page_size": str(page_size), **({} if self._cursor is None else {"cursor": self._cursor})}
            answer = self._client.get(f"{API}/changes/PRODUCT", params=query)
            if answer.status_code == 410:
                self._cursor, self.records = None, {}
                self.restarts += 1
                continue
            assert answer.status_code == 200, answer.text
            for raw in items(answer.text):
                self._apply(raw)
            meta = answer.json()["meta"]
            has_more, self._cursor, self.generation = meta["hasMore"], meta["nextCursor"], meta["generation"]
        self.windows += 1

    def _apply(self, raw: str) -> None:
        change = json.loads(raw)
        self.changes += 1
        assert (change["id"] in self.records) == (change["change"] != "CREATED"), change
        if change["change"] == "DELETED":
            del self.records[change["id"]]
        else:
            _, _, document = raw.partition('"product":')
            self.records[change["id"]] = document[:-1]


def listed(client: httpx2.Client, page_size: int) -> tuple[int, list[str]]:
    """Return the generation and the bytes of all products, read page by page."""
    query = {"page_size": str(page_size)}
    found: list[str] = []
    generations = set()
    while True:
        answer = client.get(f"{API}/products", params=query)
        assert answer.status_code == 200, answer.text
        found += items(answer.text)
        meta = answer.json()["meta"]
        generations.add(meta["generation"])
        if "nextCursor" not in meta:
            [generation] = generations
            return generation, found
        query["cursor"] = meta["nextCursor"]


def items(body: str) -> Iterator[str]:
    """Yield the JSON texts of the body's list, exactly as they were sent."""
    at = len('{"data":[')
    assert body.startswith('{"data":['), body[:100]
    while body[at] != "]":
        _, end = _decoder.raw_decode(body, at)
        yield body[at:end]
        at = end + (body[end] == ",")
