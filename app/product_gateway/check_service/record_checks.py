"""The records themselves: which a sync would leave out, and what is odd in those that it would keep."""

from collections import Counter
from datetime import datetime
from typing import Any

from product_gateway.check_service.recording_client import Exchange
from product_gateway.check_service.results import CheckResults
from product_gateway.model.catalog import Page, Rejection
from product_gateway.model.syncs import EntityType

MAJOR_UNITS_BELOW = 100  # minor units
ENOUGH_PRICES = 10
TEXTS = ("title", "description", "sku")
TIMES = ("createdAt", "updatedAt")
COMMON_RULES = ("records-fit", "plain-ids", "plain-text", "times")
RECORD_RULES = {EntityType.PRODUCT: (*COMMON_RULES, "prices"), EntityType.COLLECTION: COMMON_RULES}


class RecordChecks:
    """Looks at the records of one list as their pages come. Holds ids and counts, never records."""

    def __init__(self, results: CheckResults, entity_type: EntityType) -> None:
        self._results = results
        self._entity_type = entity_type
        self._rejected: Counter[str] = Counter()
        self._samples: dict[str, tuple[Rejection, str]] = {}
        self._prices: Counter[bool] = Counter()
        self._members: dict[str, str] = {}
        self.looked_at = 0

    def add(self, page: Page, items: list[Any], exchange: Exchange) -> None:
        """A page of records, and as they came."""
        self.looked_at += len(items)
        for rejection in page.rejections:
            self._rejected[rejection.code] += 1
            self._samples.setdefault(rejection.code, (rejection, exchange.curl))
        fit = {each.id for each in page.records}
        for item in items:
            if isinstance(item, dict) and isinstance(item.get("id"), str) and item["id"] in fit:
                self._look_at(item, exchange)

    def finish(self) -> None:
        """What all records together tell."""
        results = self._results
        for code, number in self._rejected.most_common():
            rejection, curl = self._samples[code]
            who = "one without a valid id" if rejection.record_id is None else repr(rejection.record_id)
            seen = f"{code}: {number} of {self.looked_at} records, such as {who}, at {rejection.pointer or 'its top'}: "
            results.failed("records-fit", self._entity_type, seen + rejection.message, curl)
        if self._prices.total() >= ENOUGH_PRICES and not self._prices[False]:
            seen = f"Each of the {self._prices.total()} prices is below {MAJOR_UNITS_BELOW}."
            results.failed("prices", self._entity_type, seen)
        if self.looked_at:
            results.passed(self._entity_type, *RECORD_RULES[self._entity_type])

    def _look_at(self, item: dict[str, Any], exchange: Exchange) -> None:
        record_id = item["id"]
        if "," in record_id or record_id != record_id.strip():
            self._results.failed("plain-ids", self._entity_type, f"The id is {record_id!r}.", exchange.curl)
        for name in TEXTS:
            control = [each for each in item.get(name) or "" if _is_control(each)]
            if control:
                seen = f"The record {record_id!r} has U+{ord(control[0]):04X} in its {name}."
                self._results.failed("plain-text", self._entity_type, seen, exchange.curl)
        self._times(record_id, item, exchange)
        if self._entity_type is EntityType.COLLECTION:
            for member in item.get("products") or ():
                self._members.setdefault(member["id"], record_id)
        elif item.get("listPrice") is not None:
            self._prices[item["listPrice"] < MAJOR_UNITS_BELOW] += 1

    def _times(self, record_id: str, item: dict[str, Any], exchange: Exchange) -> None:
        times = {name: item[name] for name in TIMES if item.get(name)}
        for name, value in times.items():
            if "T" not in value.upper() or not _has_offset(value):
                seen = f"The record {record_id!r} has {name} {value!r}."
                self._results.failed("times", self._entity_type, seen, exchange.curl)
                return
        if len(times) == len(TIMES) and _moment(times["updatedAt"]) < _moment(times["createdAt"]):
            seen = f"The record {record_id!r} was updated {times['updatedAt']}, created {times['createdAt']}."
            self._results.failed("times", self._entity_type, seen, exchange.curl)

    def members_known(self, products: set[str] | None) -> None:
        """Whether the collections' products are among these ids; None where the products were not all read."""
        if products is None:
            self._results.skipped(self._entity_type, "the products were not read to their end", "members-known")
            return
        for member in [each for each in self._members if each not in products]:
            seen = f"The collection {self._members[member]!r} has the product {member!r}, which no page listed."
            self._results.failed("members-known", self._entity_type, seen)
        self._results.passed(self._entity_type, "members-known")


def _has_offset(value: str) -> bool:
    clock = value.upper().partition("T")[2]
    return clock.endswith("Z") or "+" in clock or "-" in clock


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(value.upper())


def _is_control(character: str) -> bool:
    return (character < " " and character not in "\t\r\n") or character == "\x7f"
