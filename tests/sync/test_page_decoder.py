"""The page decoder returns the same as the lenient decoder, or None."""

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


def fast(entity_type: EntityType, content: bytes, most_bytes: int = MOST_BYTES) -> DecodedPage | None:
    """Decode with the page decoder; None if it refuses the page."""
    return records.list_schema(entity_type).decoder.decode(content, most_bytes)


def lenient(entity_type: EntityType, content: bytes) -> DecodedPage | str:
    """Decode leniently; return the reason if the page is invalid."""
    try:
        return records.list_schema(entity_type).decode_leniently(content, "Page 1", MOST_BYTES)
    except PullFailed as failed:
        return failed.detail


def check(entity_type: EntityType, content: bytes) -> None:
    """Require that the page decoder returns the same as the lenient decoder, or None."""
    typed = fast(entity_type, content)
    if typed is not None:
        assert typed == lenient(entity_type, content)


@settings(max_examples=150, deadline=None)
@given(pages())
def test_both_decoders_agree_on_valid_pages(page: tuple[EntityType, bytes]) -> None:
    """Otherwise a record would count as changed because another one of its page is invalid."""
    check(*page)


@settings(max_examples=150, deadline=None)
@given(damaged_pages())
def test_both_decoders_agree_on_damaged_pages(page: tuple[EntityType, bytes]) -> None:
    """Two libraries read JSON: they must not differ about what is JSON."""
    check(*page)


@settings(max_examples=150, deadline=None)
@given(pages_with_unusable_values())
def test_an_unusable_value_costs_at_most_its_record(page: tuple[EntityType, bytes, int]) -> None:
    """This holds for the page decoder, the lenient decoder and lazy pages."""
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
def test_usual_pages_take_the_page_decoder(entity_type: EntityType, more: dict[str, Any]) -> None:
    """It takes a third of the time. Without such pages, the tests above would compare nothing."""
    content = body({"id": "hat", "title": "Hat", **more}, totalNumber=1)
    typed = fast(entity_type, content)
    assert typed is not None
    assert typed == lenient(entity_type, content)


@pytest.mark.parametrize("time", [*PLAIN_TIMES, *ODD_TIMES])
def test_both_decoders_agree_on_every_time(time: str) -> None:
    """One library rounds what is finer than a microsecond, and the other cuts it off."""
    check(PRODUCT, body({"id": "hat", "title": "Hat", "createdAt": time}))


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc3"])
def test_invalid_utf_8_is_refused_also_in_unknown_fields(text: bytes) -> None:
    """msgspec does not check what it skips."""
    page = b'{"items":[{"id":"a","title":"A","vendor":"%b"}],"pagination":{"moreResults":false}}' % text
    assert fast(PRODUCT, page) is None
    assert "is not UTF-8" in str(lenient(PRODUCT, page))


@pytest.mark.parametrize("entity_type", EntityType)
def test_the_examples_of_the_spec_take_the_page_decoder(entity_type: EntityType) -> None:
    """They are what people build from."""
    path = records.list_schema(entity_type).path
    answer = documents.load(documents.PRODUCT_SERVICE)["paths"][path]["get"]["responses"]["200"]["content"][
        "application/json"
    ]
    examples = [answer["example"]] if "example" in answer else [each["value"] for each in answer["examples"].values()]
    for each in examples:
        assert fast(entity_type, orjson.dumps(each)) is not None


def test_the_page_decoder_refuses_a_record_that_is_too_large() -> None:
    """A collection's size is that of its document and of its product ids."""
    content = body({"id": "men", "title": "Men", "products": [{"id": "ö", "title": "Ö"}, {"id": "p", "title": "P"}]})
    found = fast(COLLECTION, content)
    assert found is not None
    size = len(found.records[0].document) + len('["ö","p"]'.encode())
    assert fast(COLLECTION, content, size) == found
    assert fast(COLLECTION, content, size - 1) is None


def test_an_unusable_number_in_an_unknown_field_is_accepted() -> None:
    """It is JSON (RFC 8259 §6), if none that is kept; so a page is not lost for it."""
    found = fast(PRODUCT, b'{"items":[{"id":"a","title":"A","weight":1e999}],"pagination":{"moreResults":false}}')
    assert found is not None
    assert found.records[0].document == '{"id":"a","title":"A"}'


@pytest.mark.parametrize("rule", [{"multipleOf": 5}, {"enum": [1, 2]}, {"oneOf": []}])
def test_an_unsupported_keyword_of_the_spec_is_refused(rule: dict[str, Any]) -> None:
    """Otherwise records would bypass a new rule of the spec."""
    document = documents.load(documents.PRODUCT_SERVICE)
    schemas = document["components"]["schemas"]
    product = schemas["Product"]
    priced = {**product["properties"], "listPrice": {**product["properties"]["listPrice"], **rule}}
    changed = {**document, "components": {"schemas": {**schemas, "Product": {**product, "properties": priced}}}}
    with pytest.raises(NotImplementedError, match=next(iter(rule))):
        PageDecoder(changed, "ProductPage", "products", "productCount")
