"""Misbehaviours of a single record: the others of its page are as they should be."""

from typing import Any

import orjson

from tests.support.product_service_faults.misbehaviour import Call, misbehaviour, page_of, record, records

SPOILT = 7  # the record that is wrong


def with_one(spoilt: Any) -> list[Any]:
    """All records, one of which is this."""
    return [spoilt if number == SPOILT else each for number, each in enumerate(records())]


@misbehaviour()
async def id_that_is_a_number(call: Call) -> None:
    """Ids are text."""
    await call.page(with_one({"id": 7, "title": "new"}))


@misbehaviour()
async def one_record_twice_and_once_invalid(call: Call) -> None:
    """One after the other: the first does not fit, and the second does."""
    await call.page([*with_one({"id": "r07", "title": 7})[:8], *records()[7:]])


@misbehaviour()
async def id_empty(call: Call) -> None:
    """An id without a character."""
    await call.page(with_one({"id": "", "title": "new"}))


@misbehaviour()
async def id_too_long(call: Call) -> None:
    """An id of three hundred characters."""
    await call.page(with_one({"id": "x" * 300, "title": "new"}))


@misbehaviour()
async def id_with_nul(call: Call) -> None:
    """An id that PostgreSQL cannot keep."""
    await call.page(with_one({"id": "r\0", "title": "new"}))


@misbehaviour()
async def record_too_large(call: Call) -> None:
    """A record larger than the catalog keeps."""
    await call.page(with_one(record(SPOILT, meta={"x": "y" * 20_000})))


@misbehaviour()
async def record_nested_too_deeply(call: Call) -> None:
    """A record deeper than JSON is written."""
    page = orjson.dumps(page_of(with_one(record(SPOILT, meta="DEEP"))))
    await call.answer(page.replace(b'"DEEP"', b'{"a":' * 400 + b"1" + b"}" * 400))


@misbehaviour()
async def nul_in_a_title(call: Call) -> None:
    """A character that PostgreSQL cannot keep as text: allowed in JSON."""
    await call.page(with_one(record(SPOILT, "new\0")))


@misbehaviour()
async def record_that_is_null(call: Call) -> None:
    """Nothing, where a record should be."""
    await call.page(with_one(None))
