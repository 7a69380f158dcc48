"""page_types: what is read by types is what is read piece by piece, to the byte."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from product_gateway.errors import PullFailed
from product_gateway.model.catalog import Page
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sync import records
from product_gateway.sync.page_decoder import DecodedPage, PageDecoder
from tests.support.written_pages import ODD_TIMES, PLAIN_TIMES, damaged_pages, pages, pages_with_unusable_values

MOST_BYTES = 2**20
PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION


def by_types(entity_type: EntityType, content: bytes, most_bytes: int = MOST_BYTES) -> DecodedPage | None:
    """None where it is none of the pages that are read so."""
    return records.list_schema(entity_type).decoder.decode(content, most_bytes)


def piece_by_piece(entity_type: EntityType, content: bytes) -> DecodedPage | str:
    """The same page as `records` reads it, or why it does not."""
    try:
        return records.list_schema(entity_type).decode_leniently(content, "Page 1", MOST_BYTES)
    except PullFailed as failed:
        return failed.detail


def check(entity_type: EntityType, content: bytes) -> None:
    """What was read by types, if anything was, is what it has to be."""
    typed = by_types(entity_type, content)
    if typed is not None:
        assert typed == piece_by_piece(entity_type, content)


@settings(max_examples=300, deadline=None)
@given(pages())
def test_what_is_read_by_types_is_what_is_read_piece_by_piece(page: tuple[EntityType, bytes]) -> None:
    """Else a record would count as changed because another one of its page does not fit."""
    check(*page)


@settings(max_examples=300, deadline=None)
@given(damaged_pages())
def test_what_is_damaged_is_read_by_types_as_it_is_piece_by_piece(page: tuple[EntityType, bytes]) -> None:
    """Two libraries read JSON: they must not differ about what is JSON."""
    check(*page)


@settings(max_examples=300, deadline=None)
@given(pages_with_unusable_values())
def test_a_value_that_nobody_can_keep_costs_its_record_at_most(page: tuple[EntityType, bytes, int]) -> None:
    """Whichever way the page is read: by types, piece by piece, or later and in part."""
    entity_type, content, number = page
    check(entity_type, content)
    contract = records.list_schema(entity_type)
    at_once = contract.page(content, "Page 1", MOST_BYTES)
    assert at_once.size == number
    assert all(each.pointer.startswith("/") for each in at_once.rejections)
    later = contract.lazy_page(content, "Page 1", MOST_BYTES)
    assert at_once == (later if isinstance(later, Page) else later.decode(()))


def body(*items: dict[str, Any], **pagination: Any) -> bytes:
    """The last page of a list."""
    return orjson.dumps({"items": items, "pagination": {"moreResults": False, **pagination}})


@pytest.mark.parametrize(
    ("entity_type", "more"),
    [
        (PRODUCT, {}),
        (PRODUCT, {"vendor": {"unknown": [1, None]}, "description": None}),
        (PRODUCT, {"createdAt": "2024-02-29T08:30:00.123Z", "updatedAt": "2024-02-29T08:30:00"}),
        (PRODUCT, {"createdAt": "2024-02-29T08:30:00+02:00", "thumbnail": {"url": "u", "width": 3}}),
        (PRODUCT, {"meta": {"a": [1.5, {"b": [{"c": True}]}]}, "listPrice": 5000, "sku": "☃\n"}),
        (COLLECTION, {"products": [{"id": "b", "title": ""}, {"id": "a", "title": "", "createdAt": "any"}]}),
    ],
)
def test_what_merchants_send_is_read_by_types(entity_type: EntityType, more: dict[str, Any]) -> None:
    """It takes a third of the time; and if nothing were, the tests above would compare nothing."""
    content = body({"id": "hat", "title": "Hat", **more}, totalNumber=1)
    typed = by_types(entity_type, content)
    assert typed is not None
    assert typed == piece_by_piece(entity_type, content)


@pytest.mark.parametrize("time", [*PLAIN_TIMES, *ODD_TIMES])
def test_every_time_is_read_by_types_as_it_is_piece_by_piece(time: str) -> None:
    """One library rounds what is finer than a microsecond, and the other cuts it off."""
    check(PRODUCT, body({"id": "hat", "title": "Hat", "createdAt": time}))


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc3"])
def test_what_is_not_utf_8_is_no_page_even_where_nobody_keeps_it(text: bytes) -> None:
    """What types skip, they do not look at."""
    page = b'{"items":[{"id":"a","title":"A","vendor":"%b"}],"pagination":{"moreResults":false}}' % text
    assert by_types(PRODUCT, page) is None
    assert "is not UTF-8" in str(piece_by_piece(PRODUCT, page))


@pytest.mark.parametrize("entity_type", EntityType)
def test_the_examples_of_the_contract_are_read_by_types(entity_type: EntityType) -> None:
    """They are what people build from."""
    path = records.list_schema(entity_type).path
    answer = documents.load(documents.PRODUCT_SERVICE)["paths"][path]["get"]["responses"]["200"]["content"][
        "application/json"
    ]
    examples = [answer["example"]] if "example" in answer else [each["value"] for each in answer["examples"].values()]
    for each in examples:
        assert by_types(entity_type, orjson.dumps(each)) is not None


def test_a_record_that_is_too_large_is_none_for_types() -> None:
    """A collection's size is that of its document and of its product ids."""
    content = body({"id": "men", "title": "Men", "products": [{"id": "ö", "title": "Ö"}, {"id": "p", "title": "P"}]})
    found = by_types(COLLECTION, content)
    assert found is not None
    size = len(found.records[0].document) + len('["ö","p"]'.encode())
    assert by_types(COLLECTION, content, size) == found
    assert by_types(COLLECTION, content, size - 1) is None


def test_a_number_that_no_float_holds_does_no_harm_where_nobody_keeps_it() -> None:
    """It is JSON (RFC 8259 §6), if none that is kept; so a page is not lost for it."""
    found = by_types(PRODUCT, b'{"items":[{"id":"a","title":"A","weight":1e999}],"pagination":{"moreResults":false}}')
    assert found is not None
    assert found.records[0].document == '{"id":"a","title":"A"}'


@pytest.mark.parametrize("rule", [{"multipleOf": 5}, {"enum": [1, 2]}, {"oneOf": []}])
def test_a_rule_that_no_type_checks_stops_the_start(rule: dict[str, Any]) -> None:
    """Whoever adds it to the contract must hear that records would get past it."""
    document = documents.load(documents.PRODUCT_SERVICE)
    schemas = document["components"]["schemas"]
    product = schemas["Product"]
    priced = {**product["properties"], "listPrice": {**product["properties"]["listPrice"], **rule}}
    changed = {**document, "components": {"schemas": {**schemas, "Product": {**product, "properties": priced}}}}
    with pytest.raises(NotImplementedError, match=next(iter(rule))):
        PageDecoder(changed, "ProductPage", "products", "productCount")
