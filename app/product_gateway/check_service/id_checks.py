"""Records asked for by id: the filter `ids` of a list, and each record's own address."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from product_gateway.check_service.recording_client import CheckFailed, Service
from product_gateway.check_service.results import CheckResults
from product_gateway.check_service.traversal import ListTraversal, ids_of, is_odd
from product_gateway.json_tools import faults
from product_gateway.json_tools.tolerant import NotJSON, loads
from product_gateway.model.syncs import EntityType
from product_gateway.sync.product_service import LONGEST_IDS, MOST_IDS
from product_gateway.sync.records import list_schema

UNKNOWN = "no-such-record-7f3a"
ASKED_FOR_SINGLY = 6
SEVERAL = 5
ID_RULES = (
    *("ids-known", "ids-several", "ids-many", "ids-unknown", "ids-duplicates", "ids-encoded"),
    *("record-by-id", "unknown-id"),
)


class IdChecks:
    """The checks of one list's records by id, with the ids that its first reading brought."""

    def __init__(self, service: Service, results: CheckResults, entity_type: EntityType, first: ListTraversal) -> None:
        self._service = service
        self._results = results
        self._entity_type = entity_type
        fit = list_schema(entity_type).record_id
        self._all = [each for each in first.ids if fit.is_valid(each) and "," not in each]
        self._items = {key: item for key, item in first.items.items() if fit.is_valid(key) and key not in (".", "..")}

    async def run(self) -> None:
        """All of them."""
        if not self._all:
            self._results.skipped(self._entity_type, "no record has an id that can be asked for", *ID_RULES)
            return
        plain = [each for each in self._all if not is_odd(each)]
        odd = [each for each in self._all if is_odd(each)]
        one = (plain or self._all)[-1]  # the first one comes also where nobody looks at ids
        await self._brings("ids-known", [one], {one})
        await self._brings("ids-unknown", [one, UNKNOWN], {one})
        await self._brings("ids-unknown", [UNKNOWN], set())
        await self._brings("ids-duplicates", [one, one], {one})
        some = _spread(self._all, SEVERAL)
        if len(some) > 1:
            await self._brings("ids-several", some, set(some))
            # as the contract's `explode: false` is sent by generated clients
            query = f"?page_size={len(some)}&ids={','.join(quote(each, safe='') for each in some)}"
            await self._brings("ids-several", some, set(some), query)
            many = self._as_many_as_a_sync()
            await self._brings("ids-many", many, set(many))
        else:
            self._results.skipped(self._entity_type, "the list has one record", "ids-several", "ids-many")
        if odd:
            await self._brings("ids-encoded", odd[:SEVERAL], set(odd[:SEVERAL]))
        else:
            self._results.skipped(self._entity_type, "no id has reserved characters", "ids-encoded")
        await self._singly()

    async def _brings(self, code: str, ids: Sequence[str], wanted: set[str], query: str = "") -> None:
        """Asks for the ids, by a query string where there is one, and compares what comes."""
        params: Mapping[str, str] = {} if query else {"ids": ",".join(ids), "page_size": str(len(ids))}
        try:
            answer = await self._service.page(self._entity_type, params, query)
        except CheckFailed as broken:
            self._results.failed(code, self._entity_type, broken.detail, broken.exchange.curl)
            return
        found = ids_of(answer.items)
        more, lacking = [each for each in found if each not in wanted], [each for each in ids if each in wanted]
        lacking = [each for each in lacking if each not in found]
        seen = ""
        if lacking:
            seen = f"Of {len(wanted)} known ids, {len(set(lacking))} bring no record, such as {lacking[0]!r}."
        elif more:
            seen = f"{len(more)} records came that nobody asked for, such as {more[0]!r}."
        elif len(found) != len(set(found)):
            seen = f"{len(found)} records came for {len(wanted)} ids."
        if seen:
            self._results.failed(code, self._entity_type, seen, answer.exchange.curl)
        self._results.passed(self._entity_type, code)

    def _as_many_as_a_sync(self) -> list[str]:
        many: list[str] = []
        length = 0
        for each in self._all[:MOST_IDS]:
            length += len(quote(each)) + 3
            if length > LONGEST_IDS:
                break
            many.append(each)
        return many

    async def _singly(self) -> None:
        odd_first = sorted(self._items, key=is_odd, reverse=True)[:ASKED_FOR_SINGLY]
        for record_id in odd_first:
            answer = await self._service.record(self._entity_type, record_id)
            seen = answer.exchange.summary
            if answer.reply is not None and answer.status == 200:
                seen = _difference(self._items[record_id], answer.reply.content, answer.exchange.content_type)
            if seen:
                words = f"The record {record_id!r}: {seen}"
                self._results.failed("record-by-id", self._entity_type, words, answer.exchange.curl)
        if odd_first:
            self._results.passed(self._entity_type, "record-by-id")
        else:
            self._results.skipped(self._entity_type, "no record can be asked for by its id", "record-by-id")
        answer = await self._service.record(self._entity_type, UNKNOWN)
        if answer.status != 404:
            self._results.failed("unknown-id", self._entity_type, answer.exchange.summary, answer.exchange.curl)
        self._results.passed(self._entity_type, "unknown-id")


def _difference(listed: Any, content: bytes, content_type: str) -> str:
    """What is different in the record from its own address; nothing where it is the same."""
    try:
        single, _ = loads(content)
    except (NotJSON, UnicodeDecodeError):
        return f"the body {faults.why(content, content_type)}"
    if not isinstance(single, dict):
        return "the body is no record."
    names = [name for name in {**listed, **single} if listed.get(name) != single.get(name)]
    return f"{', '.join(names[:5])} differ from the list." if names else ""


def _spread(ids: Sequence[str], number: int) -> list[str]:
    """So many of the ids, from the first to the last."""
    step = max(1, len(ids) // number)
    return list(ids[::step][:number])
