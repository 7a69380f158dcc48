"""Checks of the records: those that a sync would reject, and oddities in the others."""

import re
from collections import Counter
from typing import Any

from product_gateway.check_service.recording_client import Exchange
from product_gateway.check_service.results import ListResults
from product_gateway.model.catalog import Page, Rejection
from product_gateway.model.syncs import EntityType
from product_gateway.sync.records import time_in_utc

MAJOR_UNITS_BELOW = 100  # minor units
ENOUGH_PRICES = 10
TEXTS = ("title", "description", "sku")
TIMES = ("createdAt", "updatedAt")
_OFFSET = re.compile(r"[T ].*(?:Z|[+-][0-9:]+)$", re.IGNORECASE)


class RecordChecks:
    """The checks of a list's records, page by page. Keeps ids and counts, not records."""

    def __init__(self, results: ListResults) -> None:
        self._results = results
        self._rejected: Counter[str] = Counter()
        self._samples: dict[str, tuple[Rejection, Exchange]] = {}
        self._prices: Counter[bool] = Counter()
        self._collection_of: dict[str, str] = {}  # by product id
        self._size = 0

    def add(self, page: Page, items: list[Any], exchange: Exchange) -> None:
        """Check the records of a page. `items` are the records as they were sent."""
        self._size += len(items)
        for rejection in page.rejections:
            self._rejected[rejection.code] += 1
            self._samples.setdefault(rejection.code, (rejection, exchange))
        fit = {each.id for each in page.records} - {each.record_id for each in page.rejections}  # not sent twice
        for item in items:
            if isinstance(item, dict) and isinstance(item.get("id"), str) and item["id"] in fit:
                self._check(item, exchange)

    def finish(self) -> None:
        """Check the records as a whole, after the last page."""
        for code, number in self._rejected.most_common():
            rejection, exchange = self._samples[code]
            who = "one without a valid id" if rejection.record_id is None else repr(rejection.record_id)
            where = rejection.pointer or "its top"
            seen = f"{code}: {number} of {self._size} records, such as {who}, at {where}: {rejection.message}"
            self._results.failed("records-fit", seen, exchange)
        if self._prices.total() >= ENOUGH_PRICES and not self._prices[False]:
            seen = f"Each of the {self._prices.total()} prices is below {MAJOR_UNITS_BELOW}."
            self._results.failed("prices", seen)
        if self._size:
            self._results.passed("records-fit", "plain-ids", "plain-text", "times")
            if self._results.subject is EntityType.PRODUCT:
                self._results.passed("prices")

    def check_members(self, products: set[str] | None) -> None:
        """Check that the collections' products are among these ids. None: not all products were read."""
        if products is None:
            self._results.not_checked("the products were not read to their end", "members-known")
            return
        for product, collection in self._collection_of.items():
            if product not in products:
                seen = f"The collection {collection!r} has the product {product!r}, which no page listed."
                self._results.failed("members-known", seen)
        self._results.passed("members-known")

    def _check(self, item: dict[str, Any], exchange: Exchange) -> None:
        record_id = item["id"]
        if "," in record_id or record_id != record_id.strip():
            self._results.failed("plain-ids", f"The id is {record_id!r}.", exchange)
        for name in TEXTS:
            control = [each for each in item.get(name) or "" if _is_control(each)]
            if control:
                seen = f"The record {record_id!r} has U+{ord(control[0]):04X} in its {name}."
                self._results.failed("plain-text", seen, exchange)
        self._check_times(record_id, item, exchange)
        if self._results.subject is EntityType.COLLECTION:
            for member in item.get("products") or ():
                self._collection_of.setdefault(member["id"], record_id)
        elif item.get("listPrice") is not None:
            self._prices[item["listPrice"] < MAJOR_UNITS_BELOW] += 1

    def _check_times(self, record_id: str, item: dict[str, Any], exchange: Exchange) -> None:
        times = {name: item[name] for name in TIMES if item.get(name)}
        parsed = {name: time_in_utc(value) for name, value in times.items()}
        for name, value in times.items():
            if not _OFFSET.search(value):
                self._results.failed("times", f"The record {record_id!r} has {name} {times[name]!r}.", exchange)
                return
        if len(times) == len(TIMES) and parsed["updatedAt"] < parsed["createdAt"]:
            seen = f"The record {record_id!r} was updated {times['updatedAt']}, created {times['createdAt']}."
            self._results.failed("times", seen, exchange)


def _is_control(character: str) -> bool:
    return (character < " " and character not in "\t\r\n") or character == "\x7f"
