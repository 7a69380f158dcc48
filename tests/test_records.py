"""records: what is kept of a record, which are rejected alone, and which pages end the pull."""

from typing import Any

import orjson
import pytest

from product_gateway import records, spec
from product_gateway.errors import PullFailed
from product_gateway.model import EntityType, Page, Record, Rejection

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
MOST_BYTES = 2**20
WHERE = "Page 7 of /products"


def read(body: Any, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> Page:
    """The page in a body: JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return records.contract(entity_type).page(content, WHERE, most_bytes)


def page_of(*items: Any, **pagination: Any) -> dict[str, Any]:
    """The last page, as merchants send it."""
    return {"items": list(items), "pagination": {"moreResults": False, **pagination}}


def item(record_id: Any = "hat", **fields: Any) -> dict[str, Any]:
    """The least that a record must have, and more."""
    return {"id": record_id, "title": "Hat", **fields}


def became(sent: Any, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> Record | Rejection:
    """What becomes of a record."""
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
    assert set(known) == set(spec.load(spec.PRODUCT_SERVICE)["components"]["schemas"]["Product"]["properties"])
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
    """And nothing, where there are none."""
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
    ],
)
def test_times_are_kept_in_utc(sent: str, kept: str) -> None:
    """One form for all merchants, in which times can be compared."""
    assert document(item(createdAt=sent))["createdAt"] == kept


@pytest.mark.parametrize(
    "sent", ["", "yesterday", "2021-02-30T00:00:00Z", "1609459200", "0001-01-01T00:00:00+02:00", "2021\u0000"]
)
def test_a_time_that_is_none_rejects_the_record(sent: str) -> None:
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
    assert 10 < len(rejection.message) <= 200
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
    """A collection with a part missing would be wrong in silence."""
    outcome = became(item("men", products=products), COLLECTION)
    assert isinstance(outcome, Rejection)
    assert (outcome.record_id, outcome.pointer) == ("men", pointer)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "not valid JSON"),
        (b"<html>", "not valid JSON"),
        (b'{"items": [], "pagination": {"moreResults": false, "x": NaN}}', "not valid JSON"),
        (b'{"items": [{"id": "a", "title": "\\ud800"}], "pagination": {"moreResults": false}}', "surrogate"),
        (b'{"items": [{"id": "a", "title": "\xff"}], "pagination": {"moreResults": false}}', "UTF-8"),
        (b"[" * 100_000, "depth limit"),
        ([], "at its top: "),
        ({"pagination": {"moreResults": False}}, "at /items: "),
        ({"items": {}, "pagination": {"moreResults": False}}, "at /items: "),
        ({"items": []}, "at /pagination: "),
        ({"items": [], "pagination": {}}, "at /pagination/moreResults: "),
        (page_of(moreResults="no"), "at /pagination/moreResults: "),
        (page_of(moreResults=True, nextCursor="x" * 2049), "at /pagination/nextCursor: "),
        (page_of(*[0] * 10_001), "at /items: "),
    ],
)
def test_a_page_that_does_not_fit_ends_the_pull(body: Any, fault: str) -> None:
    """Half understood, it could make us remove what the merchant still sells."""
    with pytest.raises(PullFailed) as caught:
        read(body)
    error = caught.value
    assert error.code == "INVALID_PAGE"
    assert error.detail.startswith(f"{WHERE} ")
    assert error.detail.endswith(" Send what the spec describes.")
    assert fault in error.detail
    assert len(error.detail) < 400


@pytest.mark.parametrize("number", [None, -1, 2**53, 1e300, 7.5, "1234", True, [], {}])
def test_a_total_that_makes_no_sense_is_no_reason_to_fail(number: Any) -> None:
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
    men = item("men", products=[item(str(number)) for number in range(100)])
    assert isinstance(became(item(unknown="x" * 1000), most_bytes=100), Record)
    assert isinstance(became(men, COLLECTION, 100), Record)
