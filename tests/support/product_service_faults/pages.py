"""Misbehaviours of the page as a document: what is not JSON, not a page, or not paging."""

from typing import Any

import orjson

from tests.support.product_service_faults.misbehaviour import RECORDS, Call, misbehaviour, page_of, record, records

END = b'"pagination": {"moreResults": false}}'


@misbehaviour(from_page=2)
async def invalid_json(call: Call) -> None:
    """Single quotes."""
    await call.answer(b"{'items': []}")


@misbehaviour(from_page=2)
async def trailing_garbage(call: Call) -> None:
    """A page, and something behind it."""
    await call.answer(orjson.dumps(page_of(records())) + b"<!-- 12 ms -->")


@misbehaviour(from_page=2)
async def deep_nesting(call: Call) -> None:
    """Arrays in arrays, deeper than a parser's stack."""
    await call.answer(b'{"items": ' + b"[" * 50_000 + b"]" * 50_000 + b", " + END)


@misbehaviour(from_page=2)
async def huge_integer(call: Call) -> None:
    """A price of five thousand digits."""
    await call.answer(b'{"items": [{"id": "r05", "title": "new", "listPrice": ' + b"9" * 5000 + b"}], " + END)


@misbehaviour(from_page=2)
async def not_a_number(call: Call) -> None:
    """NaN, which JSON does not have."""
    await call.answer(b'{"items": [{"id": "r05", "title": "new", "listPrice": NaN}], ' + END)


@misbehaviour(from_page=2)
async def invalid_utf8(call: Call) -> None:
    """Latin-1."""
    await call.answer(b'{"items": [{"id": "r05", "title": "caf\xe9"}], ' + END)


@misbehaviour(from_page=2)
async def lone_surrogate(call: Call) -> None:
    """Half of a character."""
    await call.answer(b'{"items": [{"id": "r05", "title": "\\ud83d"}], ' + END)


@misbehaviour(from_page=2)
async def utf_16(call: Call) -> None:
    """JSON in the wrong encoding."""
    await call.answer(orjson.dumps(page_of(records())).decode().encode("utf-16"))


@misbehaviour(from_page=2)
async def json_array(call: Call) -> None:
    """The records without a page around them."""
    await call.answer(records())


@misbehaviour(from_page=2)
async def items_missing(call: Call) -> None:
    """A page without records."""
    await call.answer({"pagination": {"moreResults": False}})


@misbehaviour(from_page=2)
async def items_not_a_list(call: Call) -> None:
    """Records by id."""
    await call.answer({**page_of([]), "items": {each["id"]: each for each in records()}})


@misbehaviour(from_page=2)
async def pagination_missing(call: Call) -> None:
    """Whether there is more, it does not say."""
    await call.answer({"items": records()})


@misbehaviour(from_page=2)
async def too_many_items(call: Call) -> None:
    """A page of more records than any page may have."""
    await call.answer(page_of([{}] * 10_001))


@misbehaviour()
async def more_than_was_asked_for(call: Call) -> None:
    """The whole catalog at once, for any page size."""
    await call.answer(page_of(records()))


@misbehaviour(from_page=2)
async def cursor_loop_of_1(call: Call) -> None:
    """The next page is this page."""
    await call.answer(page_of(records()[5:10], call.cursor))


@misbehaviour()
async def cursor_loop_of_3(call: Call) -> None:
    """Three pages lead in a circle."""
    following = {None: "a", "a": "b", "b": "c", "c": "a"}
    await call.answer(page_of(records()[:5], following[call.cursor]))


@misbehaviour(from_page=2)
async def cursor_missing(call: Call) -> None:
    """More results, but not where."""
    await call.answer({"items": records()[5:10], "pagination": {"moreResults": True}})


@misbehaviour(from_page=2)
async def cursor_with_control_characters(call: Call) -> None:
    """A cursor that cannot be kept or sent back."""
    await call.answer(page_of(records()[5:10], "10\r\nX-Injected: 1\0"))


@misbehaviour(from_page=2)
async def cursor_that_is_a_number(call: Call) -> None:
    """A cursor is text."""
    await call.answer(page_of(records()[5:10], moreResults=True, nextCursor=10))


@misbehaviour()
async def own_cursor_that_is_a_number(call: Call) -> None:
    """The place of this page in the list, which the gateway does not need."""
    await call.page(cursor=int(call.cursor or 0))


@misbehaviour()
async def own_cursor_with_half_a_character(call: Call) -> None:
    """Cut in the middle of a surrogate pair."""
    start = int(call.cursor or 0)
    more = start + call.page_size < RECORDS
    page = page_of(records()[start : start + call.page_size], str(start + call.page_size) if more else None, cursor="?")
    await call.answer(orjson.dumps(page).replace(b'"?"', b'"\\ud83d"'))


@misbehaviour()
async def last_cursor_that_is_false(call: Call) -> None:
    """As PHP has it for "there is none"."""
    end = int(call.cursor or 0) + call.page_size
    if end < RECORDS:
        await call.page()
    else:
        await call.page(nextCursor=False)


@misbehaviour(from_page=2)
async def endless_empty_pages(call: Call) -> None:
    """More results, always, and never a record."""
    await call.answer(page_of([], f"next-{call.number}"))


@misbehaviour()
async def some_empty_pages(call: Call) -> None:
    """Pages that a filter left empty, between others: allowed."""
    place = int(call.cursor or 0)
    items = [] if place % 3 else [record(number) for number in range(place, min(place + 3, RECORDS))]
    await call.answer(page_of(items, str(place + 1) if place < RECORDS else None))


@misbehaviour()
async def endless_full_pages(call: Call) -> None:
    """The same records again and again, each page with a new cursor."""
    await call.answer(page_of(records()[:5], f"next-{call.number}"))


@misbehaviour()
async def endless_pages_without_ids(call: Call) -> None:
    """The same records without ids again and again."""
    await call.answer(page_of([{"title": f"{number}"} for number in range(5)], f"next-{call.number}"))


@misbehaviour()
async def some_repeated_pages(call: Call) -> None:
    """A service whose list shifts while it is read: five pages have nothing new, then it goes on."""
    place = int(call.cursor or 0)
    page = 0 if place < 6 else place - 5
    start = page * 5
    await call.answer(page_of(records()[start : start + 5], str(place + 1) if start + 5 < RECORDS else None))


@misbehaviour()
async def empty_first_page(call: Call) -> None:
    """Nothing, and no more."""
    await call.answer(page_of([]))


@misbehaviour()
async def total_too_small(call: Call) -> None:
    """Counts fewer records than it sends."""
    await call.page(totalNumber=6)


@misbehaviour()
async def total_too_large(call: Call) -> None:
    """Counts more records than it sends."""
    await call.page(totalNumber=10**9)


@misbehaviour()
async def total_negative(call: Call) -> None:
    """Counts fewer than none."""
    await call.page(totalNumber=-1)


@misbehaviour()
async def total_that_is_text(call: Call) -> None:
    """Counts in words."""
    await call.page(totalNumber="12")


@misbehaviour()
async def same_records_on_two_pages(call: Call) -> None:
    """Pages that overlap, as when a record was put in before them meanwhile."""
    place = int(call.cursor or 0)
    titles = dict.fromkeys(range(place, min(place + 5, RECORDS)), f"from {place}")
    items = [record(number, title) for number, title in titles.items()]
    await call.answer(page_of(items, str(place + 3) if place + 5 < RECORDS else None))


@misbehaviour()
async def record_removed_while_paging(call: Call) -> None:
    """A record of a page already sent is deleted, so that the next page starts one record too late."""
    if "ids" in call.query:
        await call.answer(page_of([each for each in records()[1:] if each["id"] in call.query["ids"].split(",")]))
    else:
        await call.page(records() if call.cursor is None else records()[1:])


@misbehaviour()
async def record_removed_while_paging_and_no_ids(call: Call) -> None:
    """The same, and who asks for the record that was skipped is refused."""
    await (call.answer(b"", 400) if "ids" in call.query else record_removed_while_paging(call))


@misbehaviour(from_page=2)
async def another_shape_on_page_2(call: Call) -> None:
    """Records of another API, from the second page on."""
    items: list[Any] = [{"product_id": number, "name": "new"} for number in range(5)]
    await call.answer(page_of(items))
