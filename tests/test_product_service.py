"""product_service: pages, what is kept of a record, and every way in which a pull can fail."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response

from product_gateway import spec
from product_gateway.model import EntityType, Page, PullFailed, PullInterrupted, Record, Rejection
from product_gateway.outbound import Outbound
from product_gateway.product_service import ProductService
from serving import serve

TOKEN = "s3cret-t0ken"
PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
Send = Callable[[Any, Any, Any], Any]


class Merchant:
    """A product service that says what the test tells it to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Response] = []
        self.asked: list[Request] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI: the answers in their order, the last one for ever."""
        if scope["type"] == "http":
            self.asked.append(Request(scope))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await answer(scope, receive, send)

    def says(self, *answers: Any) -> None:
        """Bodies (as JSON, or as they are in bytes), or statuses with an empty body."""
        self.asked.clear()
        self.answers = [
            Response(status_code=answer) if isinstance(answer, int) else Response(as_bytes(answer))
            for answer in answers
        ]


def as_bytes(body: Any) -> bytes:
    """The body as JSON, unless it is bytes already."""
    return body if isinstance(body, bytes) else orjson.dumps(body)


def page_of(*items: Any, next_cursor: str | None = None, **pagination: Any) -> dict[str, Any]:
    """A page as merchants send it."""
    more = {"moreResults": next_cursor is not None, "nextCursor": next_cursor}
    return {"items": list(items), "pagination": {**more, **pagination}}


def item(record_id: Any = "hat", **fields: Any) -> dict[str, Any]:
    """The least that a record must have, and more."""
    return {"id": record_id, "title": "Hat", **fields}


@pytest.fixture(scope="module")
def served() -> Iterator[Merchant]:
    """One server for the whole file."""
    merchant = Merchant()
    with serve(merchant) as url:
        merchant.url = url
        yield merchant


@pytest.fixture
def merchant(served: Merchant) -> Merchant:
    """The server, with an empty catalog."""
    served.says(page_of())
    return served


@pytest.fixture
async def service(merchant: Merchant) -> AsyncIterator[ProductService]:
    """The module under test, called with short waits."""
    async with Outbound(allow_private_addresses=True, max_bytes=2**20, read_timeout=1) as outbound:
        yield ProductService(outbound, merchant.url + "/api/", TOKEN, 2, attempts=3, wait_initial=0.001, wait_max=0.01)


async def pull(service: ProductService, entity_type: EntityType = PRODUCT, cursor: str | None = None) -> list[Page]:
    """All pages."""
    return [page async for page in service.pages(entity_type, cursor)]


async def failure(service: ProductService, entity_type: EntityType = PRODUCT) -> PullFailed:
    """How the pull ends."""
    with pytest.raises(PullFailed) as caught:
        await pull(service, entity_type)
    assert TOKEN not in repr(caught.value)
    return caught.value


async def only(service: ProductService, entity_type: EntityType = PRODUCT) -> Record | Rejection:
    """What became of the only record."""
    (page,) = await pull(service, entity_type)
    (outcome,) = page.records + page.rejections
    return outcome


async def document(service: ProductService, entity_type: EntityType = PRODUCT) -> dict[str, Any]:
    """The document of the only record."""
    record = await only(service, entity_type)
    assert isinstance(record, Record)
    kept: dict[str, Any] = orjson.loads(record.document)
    return kept


async def test_pages_follow_each_other_until_there_are_no_more(service: ProductService, merchant: Merchant) -> None:
    """The contract's paging."""
    merchant.says(page_of(item("a"), item("b"), next_cursor="2"), page_of(item("c"), next_cursor="3"), page_of())
    pages = await pull(service)
    assert [[record.id for record in page.records] for page in pages] == [["a", "b"], ["c"], []]
    assert [page.next_cursor for page in pages] == ["2", "3", None]
    assert [dict(request.query_params) for request in merchant.asked] == [
        {"page_size": "2"},
        {"page_size": "2", "cursor": "2"},
        {"page_size": "2", "cursor": "3"},
    ]


@pytest.mark.parametrize(("entity_type", "path"), [(PRODUCT, "/api/products"), (COLLECTION, "/api/collections")])
async def test_the_list_of_the_entity_type_is_asked_with_the_token(
    service: ProductService, merchant: Merchant, entity_type: EntityType, path: str
) -> None:
    """Beneath the registered address, whether or not that ends in a slash."""
    await pull(service, entity_type)
    assert [request.url.path for request in merchant.asked] == [path]
    assert merchant.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_without_a_token_none_is_sent(merchant: Merchant) -> None:
    """A product service behind a private network may need none."""
    async with Outbound(allow_private_addresses=True) as outbound:
        await pull(ProductService(outbound, merchant.url, None, 2))
    assert "authorization" not in merchant.asked[0].headers


async def test_a_pull_goes_on_from_a_cursor_as_it_is(service: ProductService, merchant: Merchant) -> None:
    """A sync that was interrupted starts where it stopped; cursors are opaque."""
    await pull(service, cursor="a+b/c=&d #é")
    assert merchant.asked[0].query_params["cursor"] == "a+b/c=&d #é"


async def test_a_page_is_fetched_only_when_it_is_asked_for(service: ProductService, merchant: Merchant) -> None:
    """The last page is written before the next one is read."""
    merchant.says(page_of(next_cursor="2"), page_of())
    async with aclosing(service.pages(PRODUCT, None)) as pages:
        await anext(pages)
        assert len(merchant.asked) == 1


async def test_a_next_cursor_after_the_last_page_is_not_followed(service: ProductService, merchant: Merchant) -> None:
    """`moreResults: false` ends, whatever else is there."""
    merchant.says(page_of(item(), next_cursor="2", moreResults=False))
    assert [page.next_cursor for page in await pull(service)] == [None]


@pytest.mark.parametrize(("number", "total"), [(None, None), (0, None), (2, None), (3, 3), (1234, 1234)])
async def test_the_total_is_taken_where_it_can_be_the_whole(
    service: ProductService, merchant: Merchant, number: int | None, total: int | None
) -> None:
    """The contract leaves open whether it counts the page or everything."""
    merchant.says(page_of(item("a"), item("b"), totalNumber=number))
    assert [page.total for page in await pull(service)] == [total]


async def test_of_two_records_with_one_id_the_later_counts(service: ProductService, merchant: Merchant) -> None:
    """A page is written in one statement, which can't touch a row twice."""
    merchant.says(page_of(item(sku="old"), item("b"), item(sku="new"), item("", title="no id")))
    (page,) = await pull(service)
    assert {record.id: orjson.loads(record.document).get("sku") for record in page.records} == {
        "hat": "new",
        "b": None,
    }
    assert page.repeated == 1
    assert page.size == 4


async def test_known_fields_are_kept_in_the_order_of_the_spec(service: ProductService, merchant: Merchant) -> None:
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
    merchant.says(page_of({"vendor": "unknown", **dict(reversed(known.items()))}))
    record = await only(service)
    assert isinstance(record, Record)
    assert record.document == orjson.dumps({**known, "meta": known["meta"]}).decode()


async def test_absent_and_null_fields_are_left_out(service: ProductService, merchant: Merchant) -> None:
    """Both mean the same in the contract."""
    nothing = dict.fromkeys(["description", "thumbnail", "listPrice", "sku", "createdAt", "updatedAt", "meta"])
    merchant.says(page_of(item(**nothing)))
    assert await document(service) == item()


@pytest.mark.parametrize(
    ("thumbnail", "kept"),
    [
        ({"url": "u", "altText": None, "width": 3}, {"thumbnail": {"url": "u"}}),
        ({"width": 3}, {}),
        ({"url": None}, {}),
    ],
)
async def test_of_a_thumbnail_the_known_fields_are_kept(
    service: ProductService, merchant: Merchant, thumbnail: Any, kept: Any
) -> None:
    """And nothing, where there are none."""
    merchant.says(page_of(item(thumbnail=thumbnail)))
    assert await document(service) == {**item(), **kept}


async def test_of_a_collection_the_ids_of_its_products_are_kept(service: ProductService, merchant: Merchant) -> None:
    """In their order and once each; the products themselves come with their own sync."""
    products = [item("b"), item("a"), item("b", sku="again")]
    merchant.says(page_of(item("men", description="All", products=products, meta={})))
    record = await only(service, COLLECTION)
    assert isinstance(record, Record)
    assert record.product_ids == ("b", "a")
    assert orjson.loads(record.document) == item("men", description="All", meta={}, productCount=2)


@pytest.mark.parametrize("products", [{}, {"products": None}, {"products": []}])
async def test_a_collection_without_products_has_a_count_of_zero(
    service: ProductService, merchant: Merchant, products: Any
) -> None:
    """The count is always there."""
    merchant.says(page_of(item("men", **products)))
    assert await document(service, COLLECTION) == item("men", productCount=0)


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
async def test_times_are_kept_in_utc(service: ProductService, merchant: Merchant, sent: str, kept: str) -> None:
    """One form for all merchants, in which times can be compared."""
    merchant.says(page_of(item(createdAt=sent)))
    assert (await document(service))["createdAt"] == kept


@pytest.mark.parametrize(
    "sent", ["", "yesterday", "2021-02-30T00:00:00Z", "1609459200", "0001-01-01T00:00:00+02:00", "2021\u0000"]
)
async def test_a_time_that_is_none_rejects_the_record(service: ProductService, merchant: Merchant, sent: str) -> None:
    """It could not be compared, and leaving it out would hide the fault."""
    merchant.says(page_of(item(updatedAt=sent)))
    outcome = await only(service)
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
async def test_a_record_that_does_not_fit_is_rejected_alone(
    service: ProductService, merchant: Merchant, sent: Any, code: str, record_id: str | None, pointer: str
) -> None:
    """The others of its page go on, and the merchant learns where the fault is."""
    dumped = orjson.dumps(sent) if pointer != "/meta" else b'{"id":"hat","title":"Hat","meta":%b}' % meta_of(sent)
    merchant.says(b'{"items":[%b,{"id":"cap","title":"Cap"}],"pagination":{"moreResults":false}}' % dumped)
    (page,) = await pull(service)
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
async def test_a_product_that_does_not_fit_rejects_its_collection(
    service: ProductService, merchant: Merchant, products: Any, pointer: str
) -> None:
    """A collection with a part missing would be wrong in silence."""
    merchant.says(page_of(item("men", products=products)))
    outcome = await only(service, COLLECTION)
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
        (page_of(next_cursor="x" * 2049), "at /pagination/nextCursor: "),
        (page_of(totalNumber=-1), "at /pagination/totalNumber: "),
        (page_of(*[0] * 10_001), "at /items: "),
    ],
)
async def test_a_page_that_does_not_fit_ends_the_pull(
    service: ProductService, merchant: Merchant, body: Any, fault: str
) -> None:
    """Half understood, it could make us remove what the merchant still sells."""
    merchant.says(body)
    error = await failure(service)
    assert error.code == "INVALID_PAGE"
    assert error.detail.startswith("Page 1 of /products ")
    assert fault in error.detail
    assert len(error.detail) < 400
    assert len(merchant.asked) == 1


async def test_the_content_type_does_not_matter(service: ProductService, merchant: Merchant) -> None:
    """Plenty of services send JSON as text/plain."""
    merchant.answers = [Response(as_bytes(page_of(item())), media_type="text/plain")]
    assert await document(service) == item()


@pytest.mark.parametrize("next_cursor", [None, ""])
async def test_more_results_need_a_next_cursor(
    service: ProductService, merchant: Merchant, next_cursor: str | None
) -> None:
    """Going on without one would start again from the first page."""
    merchant.says(page_of(next_cursor="2"), page_of(item(), moreResults=True, nextCursor=next_cursor))
    error = await failure(service)
    assert error.code == "INVALID_PAGING"
    assert error.detail.startswith("Page 2 of /products ")


@pytest.mark.parametrize("cursors", [["2", "2"], ["2", "3", "2"], ["start"], ["2", "start"]])
async def test_a_cursor_that_was_asked_for_before_ends_the_pull(
    service: ProductService, merchant: Merchant, cursors: list[str]
) -> None:
    """Otherwise the sync would go round in circles for ever."""
    merchant.says(*[page_of(next_cursor=cursor) for cursor in cursors])
    pages = service.pages(PRODUCT, "start")
    assert [(await anext(pages)).next_cursor for _ in cursors[:-1]] == cursors[:-1]
    with pytest.raises(PullFailed, match="already asked for") as caught:
        await anext(pages)
    assert caught.value.code == "INVALID_PAGING"


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (401, "PRODUCT_SERVICE_UNAUTHORIZED", 1),
        (403, "PRODUCT_SERVICE_UNAUTHORIZED", 1),
        (400, "PRODUCT_SERVICE_ERROR", 1),
        (404, "PRODUCT_SERVICE_ERROR", 1),
        (204, "PRODUCT_SERVICE_ERROR", 1),
        (302, "PRODUCT_SERVICE_ERROR", 1),
        (408, "PRODUCT_SERVICE_ERROR", 3),
        (429, "PRODUCT_SERVICE_RATE_LIMITED", 3),
        (500, "PRODUCT_SERVICE_ERROR", 3),
        (503, "PRODUCT_SERVICE_ERROR", 3),
    ],
)
async def test_only_what_may_pass_is_tried_again(
    service: ProductService, merchant: Merchant, status: int, code: str, attempts: int
) -> None:
    """A wrong token stays wrong."""
    merchant.says(status)
    error = await failure(service, COLLECTION)
    assert error.code == code
    assert isinstance(error, PullInterrupted) is (attempts > 1)
    assert f"answered {status}" in error.detail
    assert error.detail.startswith("Page 1 of /collections ")
    assert len(merchant.asked) == attempts


async def test_a_redirect_is_not_followed(service: ProductService, merchant: Merchant) -> None:
    """The token is for the address that was registered."""
    merchant.answers = [Response(status_code=302, headers={"Location": merchant.url}), Response(b"never asked for")]
    assert "answered 302; redirects are not followed" in (await failure(service)).detail
    assert len(merchant.asked) == 1


async def test_a_request_is_tried_again_and_the_pull_goes_on(service: ProductService, merchant: Merchant) -> None:
    """One bad moment must not cost an hour's pull."""
    merchant.says(page_of(item("a"), next_cursor="2"), 503, 429, page_of(item("b")))
    assert [record.id for page in await pull(service) for record in page.records] == ["a", "b"]
    assert [request.query_params.get("cursor") for request in merchant.asked] == [None, "2", "2", "2"]


@pytest.mark.parametrize(("value", "waits"), [("1", True), ("Fri, 01 Jan 2100 00:00:00 GMT", False), ("-1", False)])
async def test_the_wait_that_the_service_asks_for_is_kept(merchant: Merchant, value: str, waits: bool) -> None:
    """Within our own limit; sooner would only be refused again."""
    merchant.answers = [
        Response(status_code=429, headers={"Retry-After": value}),
        Response(as_bytes(page_of())),
    ]
    async with Outbound(allow_private_addresses=True) as outbound:
        service = ProductService(outbound, merchant.url, TOKEN, 2, wait_initial=0.001, wait_max=0.3)
        started = time.monotonic()
        await pull(service)
    assert (time.monotonic() - started >= 0.3) is waits


async def test_an_unreachable_service_is_told_as_such() -> None:
    """Nothing listens on port 1."""
    async with Outbound(allow_private_addresses=True) as outbound:
        url = "http://127.0.0.1:1"
        error = await failure(ProductService(outbound, url, TOKEN, 2, attempts=2, wait_initial=0.001))
    assert isinstance(error, PullInterrupted)
    assert error.code == "PRODUCT_SERVICE_UNREACHABLE"
    assert "The connection to 127.0.0.1 was refused." in error.detail


async def test_a_private_address_is_told_as_such(merchant: Merchant) -> None:
    """Asked for nothing, and not tried again."""
    async with Outbound(allow_private_addresses=False) as outbound:
        url = merchant.url.replace("http:", "https:")
        error = await failure(ProductService(outbound, url, TOKEN, 2))
    assert error.code == "ADDRESS_NOT_ALLOWED"
    assert merchant.asked == []


async def test_a_page_that_is_too_large_is_told_as_such(service: ProductService, merchant: Merchant) -> None:
    """A worker's memory is shared by all merchants."""
    merchant.says(b" " * (2**20 + 1))
    error = await failure(service)
    assert error.code == "ANSWER_TOO_LARGE"
    assert "1 MiB" in error.detail
    assert len(merchant.asked) == 1


async def test_a_token_that_cannot_be_sent_is_told_without_it(merchant: Merchant) -> None:
    """A line feed at the end is the usual slip."""
    async with Outbound(allow_private_addresses=True) as outbound:
        error = await failure(ProductService(outbound, merchant.url, TOKEN + "\n", 2))
    assert error.code == "PRODUCT_SERVICE_UNAUTHORIZED"
    assert merchant.asked == []
