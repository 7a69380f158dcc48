"""Checks of records by id: the filter `ids` of a list, and each record's own URL."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from urllib.parse import quote

from product_gateway.check_service.recording_client import CheckFailed, Service
from product_gateway.check_service.results import ListResults
from product_gateway.check_service.traversal import ListTraversal, ids_of, is_odd
from product_gateway.json_tools import faults
from product_gateway.json_tools.tolerant import NotJSON, loads
from product_gateway.sync.product_service import LONGEST_IDS, MOST_IDS
from product_gateway.sync.records import list_schema

UNKNOWN = "no-such-record-7f3a"
SINGLE_RECORDS = 6
SEVERAL = 5
ID_RULES = (
    *("ids-known", "ids-several", "ids-many", "ids-unknown", "ids-duplicates", "ids-encoded"),
    *("record-by-id", "unknown-id"),
)


class IdChecks:
    """The checks of one list's records by id, with the ids of a traversal."""

    def __init__(self, service: Service, results: ListResults, first: ListTraversal) -> None:
        self._service = service
        self._results = results
        self._entity_type = results.subject
        is_valid = list_schema(self._entity_type).record_id.is_valid
        self._all = [each for each in first.ids if is_valid(each) and "," not in each]
        self._items = {key: item for key, item in first.items.items() if is_valid(key) and key not in (".", "..")}

    async def run(self) -> None:
        """Run all checks, one after the other."""
        if not self._all:
            self._results.not_checked("no record has an id that can be asked for", *ID_RULES)
            return
        plain = [each for each in self._all if not is_odd(each)]
        odd = [each for each in self._all if is_odd(each)]
        one = (plain or self._all)[-1]  # a service that ignores `ids` may well answer the first one
        await self._filter("ids-known", [one], {one})
        await self._filter("ids-unknown", [one, UNKNOWN], {one})
        await self._filter("ids-unknown", [UNKNOWN], set())
        await self._filter("ids-duplicates", [one, one], {one})
        some = self._all[:: max(1, len(self._all) // SEVERAL)][:SEVERAL]
        if len(some) > 1:
            await self._filter("ids-several", some, set(some))
            # Unencoded commas, as generated clients send the contract's `explode: false`.
            query = f"?page_size={len(some)}&ids={','.join(quote(each, safe='') for each in some)}"
            await self._filter("ids-several", some, set(some), query)
            lengths = accumulate(len(quote(each)) + 3 for each in self._all[:MOST_IDS])
            many = self._all[: sum(length <= LONGEST_IDS for length in lengths)]
            await self._filter("ids-many", many, set(many))
        else:
            self._results.not_checked("the list has one record", "ids-several", "ids-many")
        if odd:
            await self._filter("ids-encoded", odd[:SEVERAL], set(odd[:SEVERAL]))
        else:
            self._results.not_checked("no id has reserved characters", "ids-encoded")
        await self._single_records()

    async def _filter(self, code: str, ids: Sequence[str], wanted: set[str], query: str = "") -> None:
        """Request the ids, with a ready query string if given, and compare the records with the wanted ones."""
        params = {} if query else {"ids": ",".join(ids), "page_size": len(ids)}
        with self._results.rule(code):
            answer = await self._service.page(self._entity_type, params, query)
            found = ids_of(answer.items)
            extra = [each for each in found if each not in wanted]
            missing = [each for each in ids if each in wanted and each not in found]
            if missing:
                seen = f"Of {len(wanted)} known ids, {len(set(missing))} bring no record, such as {missing[0]!r}."
            elif extra:
                seen = f"{len(extra)} records came that were not asked for, such as {extra[0]!r}."
            elif len(found) != len(set(found)):
                seen = f"{len(found)} records came for {len(wanted)} ids."
            else:
                return
            raise CheckFailed(code, seen, answer.exchange)

    async def _single_records(self) -> None:
        odd_first = sorted(self._items, key=is_odd, reverse=True)[:SINGLE_RECORDS]
        for record_id in odd_first:
            answer = await self._service.record(self._entity_type, record_id)
            seen = answer.exchange.summary
            if answer.reply is not None and answer.reply.status == 200:
                seen = _difference(self._items[record_id], answer.reply.content, answer.exchange.content_type)
            if seen:
                self._results.failed("record-by-id", f"The record {record_id!r}: {seen}", answer.exchange)
        if odd_first:
            self._results.passed("record-by-id")
        else:
            self._results.not_checked("no record can be asked for by its id", "record-by-id")
        answer = await self._service.record(self._entity_type, UNKNOWN)
        if answer.exchange.status != 404:
            self._results.failed("unknown-id", answer.exchange.summary, answer.exchange)
        self._results.passed("unknown-id")


def _difference(listed: Any, content: bytes, content_type: str) -> str:
    """Describe how the record from its own URL differs from the listed one; "" if it does not."""
    try:
        single, _ = loads(content)
    except (NotJSON, UnicodeDecodeError):
        return f"the body {faults.why(content, content_type)}"
    if not isinstance(single, dict):
        return "the body is no record."
    names = [name for name in {**listed, **single} if listed.get(name) != single.get(name)]
    return f"{', '.join(names[:5])} differ from the list." if names else ""
