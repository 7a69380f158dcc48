"""Decoding of pages: what is kept of a record, what rejects it, and which pages end the pull."""

import re
import time
import tracemalloc
from typing import Any

import orjson
import pytest

from product_gateway.errors import PullFailed
from product_gateway.model.catalog import LazyPage, Page, Record, Rejection
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sync import records
from product_gateway.telemetry import logs

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
MOST_BYTES = 2**20
WHERE = "Page 7 of /products"


def read(body: Any, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> Page:
    """Decode the page in a body of JSON or raw bytes."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return records.list_schema(entity_type).page(content, WHERE, most_bytes)


def page_of(*items: Any, **pagination: Any) -> dict[str, Any]:
    """The last page, as merchants send it."""
    return {"items": list(items), "pagination": {"moreResults": False, **pagination}}


def item(record_id: Any = "hat", **fields: Any) -> dict[str, Any]:
    """The least that a record must have, and more."""
    return {"id": record_id, "title": "Hat", **fields}


def became(sent: Any, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> Record | Rejection:
    """Return the record or its rejection."""
    page = read(page_of(sent), entity_type, most_bytes)
    (only,) = page.records + page.rejections
    return only


def document(sent: Any, entity_type: EntityType = PRODUCT) -> dict[str, Any]:
    """The document that the catalog keeps of a record."""
    record = became(sent, entity_type)
    assert isinstance(record, Record)
    kept: dict[str, Any] = orjson.loads(record.document)
    return kept


@pytest.mark.parametrize(("number", "total"), [(0, None), (2, None), (3, 3), (1234, 1234)])
def test_the_total_is_taken_where_it_can_be_the_whole(number: int | None, total: int | None) -> None:
    """The contract leaves open whether it counts the page or everything."""
    assert read(page_of(item("a"), item("b"), totalNumber=number)).total == total


def test_of_two_records_with_one_id_the_later_counts() -> None:
    """A page is written in one statement, which can't touch a row twice."""
    page = read(page_of(item(sku="old"), item("b"), item(sku="new"), item("", title="no id")))
    assert {record.id: orjson.loads(record.document).get("sku") for record in page.records} == {
        "hat": "new",
        "b": None,
    }
    assert page.repeated == 1
    assert page.size == 4


def test_known_fields_are_kept_in_the_order_of_the_spec() -> None:
    """Equal records make equal text, so that unchanged ones are found by comparing it."""
    known = {
        "id": "hat",
        "title": "Hat\u0000 ☃",
        "description": "",
        "thumbnail": {"url": "https://cdn.example/hat.jpg", "altText": "A hat"},
        "listPrice": 5000,
        "sku": "H-1",
        "createdAt": "2021-01-01T00:00:00Z",
        "updatedAt": "2021-01-02T00:00:00Z",
        "meta": {"z": None, "a": [1.5, {"deep": True}]},
    }
    assert set(known) == set(
        documents.load(documents.PRODUCT_SERVICE)["components"]["schemas"]["Product"]["properties"]
    )
    record = became({"vendor": "unknown", **dict(reversed(known.items()))})
    assert isinstance(record, Record)
    assert record.document == orjson.dumps({**known, "meta": known["meta"]}).decode()


def test_absent_and_null_fields_are_left_out() -> None:
    """Both mean the same in the contract."""
    nothing = dict.fromkeys(["description", "thumbnail", "listPrice", "sku", "createdAt", "updatedAt", "meta"])
    assert document(item(**nothing)) == item()


@pytest.mark.parametrize(
    ("thumbnail", "kept"),
    [
        ({"url": "u", "altText": None, "width": 3}, {"thumbnail": {"url": "u"}}),
        ({"width": 3}, {}),
        ({"url": None}, {}),
    ],
)
def test_of_a_thumbnail_the_known_fields_are_kept(thumbnail: Any, kept: Any) -> None:
    """Without known fields it is left out."""
    assert document(item(thumbnail=thumbnail)) == {**item(), **kept}


def test_of_a_collection_the_ids_of_its_products_are_kept() -> None:
    """In their order and once each; the products themselves come with their own sync."""
    products = [item("b"), item("a"), item("b", sku="again")]
    record = became(item("men", description="All", products=products, meta={}), COLLECTION)
    assert isinstance(record, Record)
    assert record.product_ids == ("b", "a")
    assert orjson.loads(record.document) == item("men", description="All", meta={}, productCount=2)


@pytest.mark.parametrize("products", [{}, {"products": None}, {"products": []}])
def test_a_collection_without_products_has_a_count_of_zero(products: Any) -> None:
    """The count is always there."""
    assert document(item("men", **products), COLLECTION) == item("men", productCount=0)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2021-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
        ("2021-01-01t00:00:00z", "2021-01-01T00:00:00Z"),
        ("2021-01-01T02:00:00+02:00", "2021-01-01T00:00:00Z"),
        ("2021-01-01T00:00:00", "2021-01-01T00:00:00Z"),
        ("2021-01-01 00:00", "2021-01-01T00:00:00Z"),
        ("20210101T000000-0130", "2021-01-01T01:30:00Z"),
        ("2021-01-01T00:00:00.123456789Z", "2021-01-01T00:00:00.123456Z"),
        ("2021-01-01", "2021-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.5z", "2017-01-01T00:00:00.500000Z"),
        ("2017-01-01T05:29:60+05:30", "2017-01-01T00:00:00Z"),
        ("20161231T235960Z", "2017-01-01T00:00:00Z"),
        ("2021-01-01T24:00:00Z", "2021-01-02T00:00:00Z"),
        ("2021-01-01 24:00", "2021-01-02T00:00:00Z"),
        ("20211231T240000,000+0100", "2021-12-31T23:00:00Z"),
    ],
)
def test_times_are_kept_in_utc(sent: str, kept: str) -> None:
    """One form for all merchants, in which times can be compared."""
    assert document(item(createdAt=sent))["createdAt"] == kept


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "yesterday",
        "2021-02-30T00:00:00Z",
        "1609459200",
        "0001-01-01T00:00:00+02:00",
        "2021\u0000",
        "2021-01-01T12:00:60Z",
        "2021-01-01T23:59:61Z",
        "2021-01-01T24:00:01Z",
        "2021-01-01T24:30:00Z",
        "9999-12-31T24:00:00Z",
        "9999-12-31T23:59:60Z",
    ],
)
def test_an_invalid_time_rejects_the_record(sent: str) -> None:
    """It could not be compared, and leaving it out would hide the fault."""
    outcome = became(item(updatedAt=sent))
    assert isinstance(outcome, Rejection)
    assert (outcome.code, outcome.record_id, outcome.pointer) == ("INVALID_DATE_TIME", "hat", "/updatedAt")


def nested(depth: int) -> Any:
    """An object that many levels deep."""
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("sent", "code", "record_id", "pointer"),
    [
        ({"title": "Hat"}, "MISSING_FIELD", None, "/id"),
        ({"id": "hat"}, "MISSING_FIELD", "hat", "/title"),
        (item(title=None), "WRONG_TYPE", "hat", "/title"),
        (item(7), "WRONG_TYPE", None, "/id"),
        (item(""), "TOO_SHORT", None, "/id"),
        (item("x" * 256), "TOO_LONG", None, "/id"),
        (item("a\nb"), "INVALID_VALUE", None, "/id"),
        (item(title="x" * 8193), "TOO_LONG", "hat", "/title"),
        (item(createdAt="2" * 65), "TOO_LONG", "hat", "/createdAt"),
        (item(listPrice=-1), "OUT_OF_RANGE", "hat", "/listPrice"),
        (item(listPrice=2**53), "OUT_OF_RANGE", "hat", "/listPrice"),
        (item(listPrice="50"), "WRONG_TYPE", "hat", "/listPrice"),
        (item(listPrice=True), "WRONG_TYPE", "hat", "/listPrice"),
        (item(thumbnail={"url": 7}), "WRONG_TYPE", "hat", "/thumbnail/url"),
        (item(meta=[]), "WRONG_TYPE", "hat", "/meta"),
        (item(meta=nested(1000)), "INVALID_VALUE", "hat", "/meta"),
        ("hat", "WRONG_TYPE", None, ""),
        (None, "WRONG_TYPE", None, ""),
    ],
)
def test_a_record_that_does_not_fit_is_rejected_alone(
    sent: Any, code: str, record_id: str | None, pointer: str
) -> None:
    """The others of its page go on, and the merchant learns where the fault is."""
    dumped = orjson.dumps(sent) if pointer != "/meta" else b'{"id":"hat","title":"Hat","meta":%b}' % meta_of(sent)
    page = read(b'{"items":[%b,{"id":"cap","title":"Cap"}],"pagination":{"moreResults":false}}' % dumped)
    assert [record.id for record in page.records] == ["cap"]
    (rejection,) = page.rejections
    assert (rejection.code, rejection.record_id, rejection.pointer) == (code, record_id, pointer)
    assert 10 < len(rejection.message) <= 250
    assert "xxx" not in rejection.message
    assert page.size == 2


def meta_of(sent: Any) -> bytes:
    """Its `meta` as JSON, also where it is deeper than orjson writes."""
    depth, value = 0, sent["meta"]
    while isinstance(value, dict) and value:
        depth, value = depth + 1, value["a"]
    return b'{"a":' * depth + orjson.dumps(value) + b"}" * depth


@pytest.mark.parametrize(
    ("products", "pointer"),
    [([item("a"), {"id": "b"}], "/products/1/title"), ([7], "/products/0"), ({}, "/products")],
)
def test_a_product_that_does_not_fit_rejects_its_collection(products: Any, pointer: str) -> None:
    """A collection without some of its products would be silently wrong."""
    outcome = became(item("men", products=products), COLLECTION)
    assert isinstance(outcome, Rejection)
    assert (outcome.record_id, outcome.pointer) == ("men", pointer)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"[" * 100_000, "it ends too early"),
        (b"[" * 100_000 + b"]" * 100_000, "at its top: The page is an array; write an object with items"),
        ([], "at its top: "),
        ("text", "at its top: The page is the string `text`; write an object"),
        ({"pagination": {"moreResults": False}}, "at /items: items is missing; write an array of objects"),
        ({"items": {}, "pagination": {"moreResults": False}}, "at /items: items is an object; write an array"),
        ({"items": []}, "at /pagination: pagination is missing; write an object, such as"),
        ({"items": [], "pagination": []}, "at /pagination: pagination is an array; write an object, such as"),
        ({"items": [], "pagination": {}}, "at /pagination/moreResults: pagination.moreResults is missing; write true"),
        (
            b'{"items": [], "pagination": {"moreResults": true, "nextCursor": "a\\ud83d"}}',
            "at /pagination/nextCursor: Character 2 of pagination.nextCursor is \\ud83d, half of a surrogate pair.",
        ),
        (
            page_of(moreResults="no"),
            "at /pagination/moreResults: pagination.moreResults is the string `no`; write true",
        ),
        (page_of(moreResults=True, nextCursor="x" * 2049), "at /pagination/nextCursor: "),
        (page_of(*[0] * 10_001), "at /items: "),
    ],
)
def test_a_page_that_does_not_fit_ends_the_pull(body: Any, fault: str) -> None:
    """An incomplete page could remove records that the merchant still has."""
    with pytest.raises(PullFailed) as caught:
        read(body)
    error = caught.value
    assert error.code == "INVALID_PAGE"
    assert error.detail.startswith(f"{WHERE} ")
    assert re.search(r"\. (Send|Check) [^.]+\.$", error.detail), error.detail
    assert fault in error.detail
    assert len(error.detail) < 500


@pytest.mark.parametrize("number", [None, -1, 2**53, 1e300, 7.5, "1234", True, [], {}])
def test_an_invalid_total_does_not_fail_the_page(number: Any) -> None:
    """It is for progress only; the records are what counts."""
    page = read(page_of(item("a"), totalNumber=number))
    assert (page.total, len(page.records)) == (None, 1)


@pytest.mark.parametrize(("entity_type", "field"), [(PRODUCT, "meta"), (PRODUCT, "description"), (COLLECTION, "meta")])
def test_a_record_that_is_too_large_is_rejected_alone(entity_type: EntityType, field: str) -> None:
    """One record must not fill the database; the message says how large, the pointer where."""
    value = "x" * 1000
    sent = item(**{field: {"x": value} if field == "meta" else value})
    size = len(orjson.dumps(document(sent, entity_type)))
    assert isinstance(became(sent, entity_type, size), Record)
    outcome = became(sent, entity_type, size - 1)
    assert isinstance(outcome, Rejection)
    assert (outcome.code, outcome.record_id, outcome.pointer) == ("TOO_LARGE", "hat", f"/{field}")
    assert f"{size} bytes" in outcome.message
    assert f"{size - 1} are the most" in outcome.message


def test_what_is_not_kept_does_not_make_a_record_too_large() -> None:
    """Fields that we don't know are not refused, and a collection's products are kept as ids."""
    men = item("men", products=[item(str(number), description="x" * 1000) for number in range(10)])
    assert isinstance(became(item(unknown="x" * 1000), most_bytes=100), Record)
    assert isinstance(became(men, COLLECTION, 100), Record)


def test_the_ids_of_a_collections_products_count_as_part_of_it() -> None:
    """A hundred thousand of them may be 25 MB, and each answer for the collection has them all."""
    men = item("men", products=[item("ä" * 100 + str(number)) for number in range(50)])
    kept = became(men, COLLECTION)
    assert isinstance(kept, Record)
    size = len(kept.document.encode()) + len(orjson.dumps(kept.product_ids))
    assert became(men, COLLECTION, size) == kept
    outcome = became(men, COLLECTION, size - 1)
    assert isinstance(outcome, Rejection)
    assert (outcome.code, outcome.record_id, outcome.pointer) == ("TOO_LARGE", "men", "/products")
    assert f"{size} bytes" in outcome.message
    page = read(page_of(men, item("women")), COLLECTION, size - 1)
    assert [each.id for each in page.records] == ["women"]
    assert [each.code for each in page.rejections] == ["TOO_LARGE"]


WORTHLESS = b'{"items":[{"id":"a","title":"A"},%b,{"id":"z","title":"Z"}],"pagination":{"moreResults":false}}'


@pytest.mark.parametrize(
    ("sent", "code", "record_id", "pointer", "says"),
    [
        (rb'{"id":"hat","title":"Hat \ud83d"}', "INVALID_VALUE", "hat", "/title", r"Character 5 of title is \ud83d"),
        (rb'{"id":"hat","title":"\udc00\ud83d"}', "INVALID_VALUE", "hat", "/title", r"Character 1 of title is \udc00"),
        (rb'{"id":"h\ud83d","title":"Hat"}', "INVALID_VALUE", None, "/id", r"Character 2 of id"),
        (rb'{"id":"hat","title":"Hat","meta":{"a":[{"b":"\udfff"}]}}', "INVALID_VALUE", "hat", "/meta/a/0/b", "half"),
        (
            rb'{"id":"hat","title":"Hat","meta":{"\ud800":1}}',
            "INVALID_VALUE",
            "hat",
            r"/meta/\ud800",
            "name of a member",
        ),
        (rb'{"id":"hat","title":"Hat","thumbnail":{"url":"\ud800"}}', "INVALID_VALUE", "hat", "/thumbnail/url", "half"),
        (b'{"id":"hat","title":"Hat","meta":{"n":1e400}}', "OUT_OF_RANGE", "hat", "/meta/n", "the number 1e400, which"),
        (b'{"id":"hat","title":"Hat","meta":{"n":-1e400}}', "OUT_OF_RANGE", "hat", "/meta/n", "-1e400"),
        (
            b'{"id":"hat","title":"Hat","listPrice":1e400}',
            "OUT_OF_RANGE",
            "hat",
            "/listPrice",
            "from 0 to 9007199254740991",
        ),
        (
            b'{"id":"hat","title":"Hat","listPrice":%b}' % (b"9" * 5000),
            "OUT_OF_RANGE",
            "hat",
            "/listPrice",
            "999\u2026",
        ),
        (b'{"id":"hat","title":"Hat","listPrice":9223372036854775808}', "OUT_OF_RANGE", "hat", "/listPrice", "5808;"),
        (
            b'{"id":"hat","title":"Hat","meta":{"n":9223372036854775808}}',
            "OUT_OF_RANGE",
            "hat",
            "/meta/n",
            "into quotes",
        ),
        (b'{"id":"hat","title":"Hat","meta":{"n":-9223372036854775809}}', "OUT_OF_RANGE", "hat", "/meta/n", "quotes"),
        (b'{"id":"hat","title":1e400}', "WRONG_TYPE", "hat", "/title", 'write it in double quotes: "1e400"'),
        (b'{"id":%b,"title":"Hat"}' % (b"9" * 30), "WRONG_TYPE", None, "/id", "write it in double quotes"),
        (b'{"id":"hat","title":%b}' % (b"[" * 3000 + b"]" * 3000), "WRONG_TYPE", "hat", "/title", "an array"),
        (
            b'{"id":"hat","title":"Hat","meta":{"a":%b}}' % (b"[" * 300 + b"]" * 300),
            "INVALID_VALUE",
            "hat",
            "/meta",
            "250",
        ),
        (b"[" * 3000 + b"]" * 3000, "WRONG_TYPE", None, "", "The record is an array"),
        (rb'"\ud83d"', "INVALID_VALUE", None, "", "The record"),
        (b"1e400", "WRONG_TYPE", None, "", "The record is the number 1e400"),
    ],
)
def test_an_unusable_value_rejects_only_its_record(
    sent: bytes, code: str, record_id: str | None, pointer: str, says: str
) -> None:
    """All of it is JSON by RFC 8259. The parser that reads most pages refuses the whole page for it."""
    page = read(WORTHLESS % sent)
    assert [record.id for record in page.records] == ["a", "z"]
    (rejection,) = page.rejections
    assert (rejection.code, rejection.record_id, rejection.pointer) == (code, record_id, pointer)
    assert says in rejection.message
    assert len(orjson.dumps(rejection.message)) <= 500


@pytest.mark.parametrize(
    "value",
    [
        rb'"\ud83d"',
        b"1e400",
        b"9" * 5000,
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 400 + b"1" + b"}" * 400,
        rb'{"\udc00":0}',
    ],
)
@pytest.mark.parametrize("entity_type", EntityType)
def test_an_unknown_field_may_have_any_value(value: bytes, entity_type: EntityType) -> None:
    """Unknown fields are left out, in a record and in its parts."""
    sent = b'{"id":"hat","title":"Hat","vendor":%b,"products":[{"id":"b","title":"B","vendor":%b}]}' % (value, value)
    page = read(WORTHLESS % sent, entity_type)
    assert [record.id for record in page.records] == ["a", "hat", "z"]
    pages = b'{"items":[],"x":%b,"pagination":{"moreResults":false,"totalNumber":%b,"x":%b}}' % (value, value, value)
    assert read(pages, entity_type) == Page((), (), None, None)


def test_a_pointer_is_never_longer_than_the_api_says() -> None:
    """It then leads to the part around the fault."""
    outcome = read(WORTHLESS % (b'{"id":"hat","title":"Hat","meta":{"a":{"%b":1e999}}}' % (b"x" * 2000))).rejections[0]
    assert outcome.pointer == "/meta/a"


@pytest.mark.parametrize("literal", ["1250", "1250.0", "1.25e3", "1.25E+3", "125000e-2", "1250.000"])
@pytest.mark.parametrize("spoil", [b"", rb',{"id":"bad","title":"\ud800"}'])
def test_an_integer_may_be_written_as_a_float(literal: str, spoil: bytes) -> None:
    """Some libraries write all numbers so. Both readers take it, and keep the same."""
    sent = b'{"id":"hat","title":"Hat","listPrice":%b}%b' % (literal.encode(), spoil)
    assert read(WORTHLESS % sent).records[1].document == '{"id":"hat","title":"Hat","listPrice":1250}'


def test_a_total_may_be_written_as_a_float() -> None:
    """As every integer."""
    assert read(b'{"items":[],"pagination":{"moreResults":false,"totalNumber":12.0}}').total == 12


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"listPrice": 12.5}, "listPrice is the number 12.5; write minor units as an integer, such as 1250."),
        ({"listPrice": "1250"}, "listPrice is the string `1250`; write 1250 without quotes."),
        ({"listPrice": "12.50"}, "listPrice is the string `12.50`; write minor units as an integer, such as 1250."),
        ({"listPrice": "\u00a312.50"}, "write minor units as an integer without quotes, such as 5000 for 50.00."),
        (
            {"listPrice": ""},
            "listPrice is an empty string; write minor units as an integer without quotes, such as 5000",
        ),
        ({"listPrice": True}, "listPrice is true; write minor units as an integer without quotes, such as 5000 for"),
        ({"listPrice": {"amount": 1}}, "listPrice is an object; write minor units as an integer"),
        ({"listPrice": -1}, "listPrice is the number -1; write a number from 0 to 9007199254740991."),
        ({"listPrice": -0.5}, "listPrice is the number -0.5; write minor units"),
        ({"title": 7}, 'title is the number 7; write it in double quotes: "7".'),
        ({"title": None}, "title is null; write a string in double quotes."),
        ({"title": False}, "title is false; write a string in double quotes."),
        ({"title": {"en": "Hat"}}, "title is an object; write a string in double quotes."),
        ({"title": "x" * 8193}, "title has 8193 characters, and at most 8192 are kept. Shorten it."),
        (
            {"createdAt": 1609459200},
            "the number 1609459200; write an ISO 8601 date and time, such as 2021-01-01T00:00:00Z.",
        ),
        ({"createdAt": 1609459200123}, "such as 2021-01-01T00:00:00Z."),
        (
            {"createdAt": "1609459200"},
            "createdAt is the string `1609459200`, which is not a time; write an ISO 8601 date",
        ),
        (
            {"createdAt": "31/12/2020 23:00"},
            "createdAt is the string `31/12/2020 23:00`, which is not a time; write an",
        ),
        (
            {"thumbnail": "https://a.example/a.jpg"},
            "thumbnail is the string `https://a.example/a.jpg`; write an object",
        ),
        ({"thumbnail": {"url": 7}}, "thumbnail.url is the number 7; write it in double quotes"),
        ({"meta": "a"}, 'meta is the string `a`; write an object, such as {"vendor": "a"}.'),
        (
            {"meta": []},
            'meta is an array; write an object, such as {"vendor": "a"}, or null where there is none.',
        ),
        ({"thumbnail": False}, 'a.jpg"}, or null where there is none.'),
        ({"thumbnail": ""}, "thumbnail is an empty string; write an object"),
        ({"description": False}, "description is false; write a string in double quotes, or null where there is none."),
        ({"listPrice": ""}, "such as 5000 for 50.00, or null where there is none."),
        ({"createdAt": ""}, "createdAt is an empty string, which is not a time; write an ISO 8601 date and time, such"),
        ({"createdAt": ""}, "such as 2021-01-01T00:00:00Z, or null where there is none."),
        ({"createdAt": "0000-00-00 00:00:00"}, "such as 2021-01-01T00:00:00Z, or null where there is none."),
        ({"createdAt": False}, "such as 2021-01-01T00:00:00Z, or null where there is none."),
        ({"id": False}, "id is false; write a string in double quotes."),
        ({"id": 7}, 'id is the number 7; write it in double quotes: "7".'),
        ({"id": ""}, "id is empty. Write at least one character."),
        ({"id": "a\nb"}, "id has a control character, U+000A, as character 2. Leave it out."),
    ],
)
def test_a_rejection_says_what_was_found_and_what_to_write_instead(fields: Any, says: str) -> None:
    """The merchant's developer sees it, and may know neither the contract nor JSON Schema."""
    outcome = became({**item(), **fields})
    assert isinstance(outcome, Rejection)
    assert says in outcome.message


@pytest.mark.parametrize(
    ("products", "says"),
    [
        (["a"], "products.0 is the string `a`; write an object with at least an id and a title"),
        ({"a": 1}, "products is an object; write an array of objects"),
        ([{"id": "a"}], "products.0.title is missing; write a string in double quotes."),
    ],
)
def test_a_rejected_collection_says_which_of_its_products_is_at_fault(products: Any, says: str) -> None:
    """Ids alone are a common mistake."""
    outcome = became(item("men", products=products), COLLECTION)
    assert isinstance(outcome, Rejection)
    assert says in outcome.message


def test_a_message_has_no_secret_and_no_more_than_the_beginning_of_a_value() -> None:
    """A service may send the gateway's token back, and the merchant's clients read the messages."""
    logs.add_secret("s3cret-token-of-the-merchant")
    outcome = became(item(listPrice=f"{'x' * 30} s3cret-token-of-the-merchant {'y' * 1000}"))
    assert isinstance(outcome, Rejection)
    assert "s3c" not in outcome.message
    assert len(outcome.message) < 250


@pytest.mark.parametrize("front", ["\ufeff", "\ufeff\ufeff", "\n\ufeff", "\ufeff\n\ufeff \r\n", "\n\t "])
@pytest.mark.parametrize("title", ["A", 7])
def test_byte_order_marks_are_ignored(front: str, title: Any) -> None:
    """RFC 8259 allows that. Each file of a program that was saved with one puts one in front."""
    page = read(front.encode() + orjson.dumps(page_of(item("a"), item("b", title=title))))
    assert len(page.records) + len(page.rejections) == 2
    lazy = records.list_schema(PRODUCT).lazy_page(front.encode() + orjson.dumps(page_of(item("a"))), WHERE, MOST_BYTES)
    assert isinstance(lazy, LazyPage)


@pytest.mark.parametrize(
    "pagination",
    [
        b'"cursor": 0',
        b'"cursor": false',
        b'"cursor": {}',
        b'"cursor": ["a"]',
        b'"cursor": "\\ud83d"',
        b'"cursor": "a\\u0000"',
        b'"cursor": 1e999',
        b'"cursor": %d' % 10**30,
        b'"cursor": "%b"' % (b"x" * 3000),
        b'"nextCursor": false',
        b'"nextCursor": 0',
        b'"nextCursor": {}',
        b'"nextCursor": 1e999',
        b'"nextCursor": "\\ud83d"',
        b'"nextCursor": "%b"' % (b"x" * 3000),
    ],
    ids=lambda pagination: pagination[:24],
)
@pytest.mark.parametrize("title", [b'"A"', b"7"])
def test_a_cursor_that_is_not_used_does_not_fail_the_page(pagination: bytes, title: bytes) -> None:
    """The records are what counts: a sync needs the nextCursor of each page but the last."""
    items = b'{"id": "a", "title": "A"}, {"id": "b", "title": %b}' % title
    page = read(b'{"items": [%b], "pagination": {"moreResults": false, %b}}' % (items, pagination))
    assert (page.next_cursor, len(page.records) + len(page.rejections)) == (None, 2)


PAGE = b'{"items": [], "pagination": {"moreResults": false}}'
NOT_JSON = [
    (b"", "is empty."),
    (b" \n", "is empty."),
    (b"<html>", "is HTML or XML, not JSON."),
    (b"Service unavailable", "is not JSON."),
    (b'{"items":[]', "it ends too early."),
    (b"{'items': []}", "a text is in single quotes."),
    (
        b"<br />\n<b>Notice</b>: x in y.php<br />\n" + PAGE,
        "has other text in front of its JSON, which begins at byte 40.",
    ),
    (b"\nWarning: x in y.php on line 3\n" + PAGE, "has other text in front of its JSON"),
    (b")]}',\n" + PAGE, "has other text in front of its JSON, which begins at byte 7. The"),
    (b"for(;;);" + PAGE, "has other text in front of its JSON, which begins at byte 9."),
    (b"callback(" + PAGE + b");", "has other text in front of its JSON"),
    (b"/* cached */ " + PAGE, "has other text in front of its JSON"),
    (b"\xc2\xa0" + PAGE, "has other text in front of its JSON, which begins at byte 3."),
    (b"\x0c" + PAGE, "has other text in front of its JSON"),
    (b"<!DOCTYPE html><script>a = " + PAGE + b"</script>", "is HTML or XML, not JSON."),
    (PAGE + b"\x0c", "`\\x0c` follows its end."),
    (b'{\x0b"items":[]}', "stands where a value or a comma should."),
    (b'{"items":[{"id":"a","t":"it\\\'s"}]}', "an escape that JSON does not have."),
    (b'{"items":[{"id":"a","n":12n}]}', "at /items/0: a number has a letter behind it."),
    (b'{"items":[{"id":"a","n":12.5f}]}', "at /items/0: a number has a letter behind it."),
    (b'{"items":[{"id":"a","n":12,50}]}', "at /items/0: a number has a comma in it."),
    (b'{"items":[{"id":"a","n":NULL}]}', "at /items/0: it has NULL, which JSON does not have."),
    (b'{"items":[{"id":"a","n":nan}]}', "at /items/0: it has nan, which JSON does not have."),
    (b'{"items":[],"pagination":{"moreResults":FALSE}}', "at /pagination: it has FALSE, which JSON does not have."),
    (b'{"items"=>[]}', "at /items: a name has an arrow behind it."),
    (b'{"items":[],}', "a comma stands before a closing bracket."),
    (b'{"items":[]} {"items":[]}', "`{` follows its end."),
    (b'{"items":[{"id":"a"},{"id":"b","n":Infinity}]}', "at /items/1: it has Infinity, which JSON does not have."),
    (b'{"items":[{"id":"a"},{"id":"b","n":-Infinity}]}', "at /items/1: it has -Infinity"),
    (b'{"items":[{"id":"a"},{"id":"b",}]}', "at /items/1: a comma stands before a closing bracket."),
    (b'{"items":[{"id":"a"},{"id":"b","n":01}]}', "at /items/1: a number has a leading zero."),
    (b'{"items":[{"id":"a"},{"id":"b","n":True}]}', "at /items/1: it has True"),
    (b'{"items":[{"id":"a","t":"x\ty"}]}', "at /items/0: a string has a tab (U+0009) in it."),
    (b'{"items":[{"id":"a","t":"\\x41"}]}', "at /items/0: a string has an escape that JSON does not have."),
    (b'{"items":[{"id":"a"},{"t":"caf\xe9"}]}', "at /items/1: byte 31 is 0xE9"),
    ('{"items":[]}'.encode("utf-16"), "is text in UTF-16, not in UTF-8."),
    ('{"items":[]}'.encode("utf-16-be"), "is text in UTF-16 or UTF-32, not in UTF-8."),
    (b"\x1f\x8b\x08\x00", "is compressed."),
    (b'{"items":[' + b"[" * 3000 + b"}" * 3000 + b"]}", "is not valid JSON"),
]


@pytest.mark.parametrize(("body", "says"), NOT_JSON)
def test_invalid_json_is_explained_to_the_merchant(body: bytes, says: str) -> None:
    """With the Content-Type, the first bytes and the record; never in the words of a parser."""
    with pytest.raises(PullFailed) as caught:
        records.list_schema(PRODUCT).page(body, WHERE, MOST_BYTES, "text/html; charset=utf-8")
    detail = caught.value.detail
    assert caught.value.code == "INVALID_PAGE"
    assert says in detail
    assert "The Content-Type is `text/html; charset=utf-8`" in detail
    assert ("and the body begins with `" in detail) == bool(body.strip())
    assert detail.isprintable()
    assert len(detail) < 500
    for words in ("line 1 column", "Expecting", "char ", "delimiter", "utf-8' codec"):
        assert words not in detail


def test_what_a_body_begins_with_has_no_secret() -> None:
    """A service may echo the token in an error page; the merchant's clients can read why a sync failed."""
    logs.add_secret("s3cret-token-of-the-merchant")
    with pytest.raises(PullFailed) as caught:
        read(b"No such token: " + b"x" * 40 + b"s3cret-token-of-the-merchant and more")
    assert "s3c" not in caught.value.detail


MANY = 2_500_000
LAST = b'}],"pagination":{"moreResults":false}}'


@pytest.mark.parametrize(
    "body",
    [
        b" " * MANY + b"x",
        b"\xef\xbb\xbf" * MANY + b"x",
        b'{"items":' + b"[" * MANY,
        b'{"items":' + b"[" * MANY + b"]" * MANY + b"}",
        b'{"items":[{"title":"\\ud83d","x":[' + b"[]," * MANY + b"0]" + LAST,
        b'{"items":[{"title":"t","n":1' + b"0" * MANY + LAST,
        b"x" + b"{ " * MANY,
        b'{"items":[{"title":"' + b'\\"' * MANY,
        b'{"a":1' + b',"items":[]' * (MANY // 10) + b"x",
    ],
    ids=lambda body: body[:12],
)
def test_no_body_takes_long_or_much_memory(body: bytes) -> None:
    """A hostile service must not stop the syncs of others, which share the event loop and the memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        page: Any = read(body)
    except PullFailed as failed:
        page = failed.code
    seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert page == "INVALID_PAGE" or len(page.rejections) == 1
    assert peak < 12 * len(body) + 50_000_000
    assert seconds < 10  # tracing takes most of it


def test_too_many_objects_are_told_as_such() -> None:
    """Where a page has nothing unusable, their number does not matter."""
    objects = b"{}," * 2_000_001
    items = b'{"id":"a","title":"A","x":[%b0]},{"id":"b","title":"%%b"}' % objects
    page = read(b'{"items":[%b],"pagination":{"moreResults":false}}' % items.replace(b"%b", b"B"))
    assert len(page.records) == 2
    with pytest.raises(PullFailed, match="has unusable values and more than 2,000,000 objects and arrays") as caught:
        read(b'{"items":[%b],"pagination":{"moreResults":false}}' % items.replace(b"%b", b"\\ud83d"))
    assert "Send fewer records in a page" in caught.value.detail
