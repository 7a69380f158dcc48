"""The client of a product service: paging, retries, and the code of each failure."""

import gzip
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from starlette.responses import Response, StreamingResponse

from product_gateway import settings
from product_gateway.errors import PullFailed, PullInterrupted
from product_gateway.http_client.backoff import Backoff
from product_gateway.http_client.client import HttpClient
from product_gateway.model.syncs import EntityType
from product_gateway.sync.product_service import ProductService
from tests.support.scripted_answers import TOKEN, Merchant, as_bytes, failure, item, page_of, pull
from tests.support.serving import serve

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION


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
async def outbound() -> AsyncIterator[HttpClient]:
    """Answers of 1 MiB at the most."""
    async with HttpClient(allow_private_addresses=True, max_bytes=2**20) as client:
        yield client


@pytest.fixture
def service(merchant: Merchant, outbound: HttpClient) -> ProductService:
    """The module under test, called with short waits."""
    return quick(merchant, outbound, lambda _: None)


def quick(merchant: Merchant, outbound: HttpClient, retried: Callable[[str], None]) -> ProductService:
    """Return a service with short waits."""
    url = merchant.url + "/api/"
    return ProductService(outbound, url, TOKEN, 2, attempts=3, wait_initial=0.001, wait_max=0.01, retried=retried)


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


async def test_without_a_token_none_is_sent(merchant: Merchant, outbound: HttpClient) -> None:
    """A product service behind a private network may need none."""
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
    """`moreResults: false` ends the list."""
    merchant.says(page_of(item(), next_cursor="2", moreResults=False))
    assert [page.next_cursor for page in await pull(service)] == [None]


async def test_the_content_type_does_not_matter(service: ProductService, merchant: Merchant) -> None:
    """Plenty of services send JSON as text/plain."""
    merchant.answers = [Response(as_bytes(page_of(item())), media_type="text/plain")]
    assert [page.size for page in await pull(service)] == [1]


async def test_a_page_that_does_not_fit_is_not_asked_for_again(service: ProductService, merchant: Merchant) -> None:
    """A retry would return the same page."""
    merchant.says(page_of(next_cursor="2"), [])
    error = await failure(service)
    assert (error.code, len(merchant.asked)) == ("INVALID_PAGE", 2)
    assert error.detail.startswith("Page 2 of /products ")


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
    """Otherwise the sync would never end."""
    merchant.says(*[page_of(next_cursor=cursor) for cursor in cursors])
    pages = service.pages(PRODUCT, "start")
    assert [(await anext(pages)).next_cursor for _ in cursors[:-1]] == cursors[:-1]
    with pytest.raises(PullFailed, match="already asked for") as caught:
        await anext(pages)
    assert caught.value.code == "INVALID_PAGING"


async def test_ten_empty_pages_in_a_row_end_the_pull(service: ProductService, merchant: Merchant) -> None:
    """A filter on their side may empty a few; ten are a list without an end."""
    few = [page_of(next_cursor=str(number)) for number in range(9)]
    merchant.says(*few, page_of(item(), next_cursor="a"), *[page_of(next_cursor=f"b{number}") for number in range(11)])
    error = await failure(service)
    assert error.code == "INVALID_PAGING"
    assert error.detail.startswith("Page 20 of /products is the 10th in a row without a record")


async def test_no_more_pages_are_read_than_a_sync_may(merchant: Merchant, outbound: HttpClient) -> None:
    """Those that were read before an interruption count."""
    merchant.says(*[page_of(item(), next_cursor=str(number)) for number in range(9)])
    service = ProductService(outbound, merchant.url, TOKEN, 2, max_pages=5)
    with pytest.raises(PullFailed) as caught:
        async for _ in service.pages(PRODUCT, "start", 3):
            pass
    assert caught.value.code == "TOO_MANY_PAGES"
    assert caught.value.detail.startswith("Page 6 of /products is one more than the 5 ")
    assert len(merchant.asked) == 2


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (401, "PRODUCT_SERVICE_UNAUTHORIZED", 1),
        (403, "PRODUCT_SERVICE_UNAUTHORIZED", 1),
        (404, "PRODUCT_SERVICE_ERROR", 1),
        (204, "PRODUCT_SERVICE_ERROR", 1),
        (302, "PRODUCT_SERVICE_ERROR", 1),
        (408, "PRODUCT_SERVICE_ERROR", 3),
        (429, "PRODUCT_SERVICE_RATE_LIMITED", 3),
        (500, "PRODUCT_SERVICE_ERROR", 3),
        (503, "PRODUCT_SERVICE_ERROR", 3),
    ],
)
async def test_only_transient_failures_are_retried(
    service: ProductService, merchant: Merchant, status: int, code: str, attempts: int
) -> None:
    """A wrong token stays wrong, so a retry does not help."""
    merchant.says(status)
    error = await failure(service, COLLECTION)
    assert error.code == code
    assert isinstance(error, PullInterrupted) is (attempts > 1)
    assert f"answered {status}" in error.detail
    assert error.detail.startswith("Page 1 of /collections ")
    assert len(merchant.asked) == attempts


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_page_size_that_is_refused_is_halved(merchant: Merchant, outbound: HttpClient, status: int) -> None:
    """The following pages use the smaller size too."""
    merchant.says(status, status, page_of(item("a"), next_cursor="2"), page_of(item("b")))
    await pull(ProductService(outbound, merchant.url, TOKEN, 250))
    asked = [(request.query_params["page_size"], request.query_params.get("cursor")) for request in merchant.asked]
    assert asked == [("250", None), ("125", None), ("62", None), ("62", "2")]


@pytest.mark.parametrize(
    ("sizes", "asked"),
    [
        ([3, 0.4], ["250", "41"]),  # half of the 83 records that would fit
        ([3, 3], ["250", "41", "1"]),  # it does not heed page_size
        ([3, 1.5], ["250", "41", "13"]),
        ([500, 0.9], ["250", "1"]),
    ],
)
async def test_a_page_that_is_too_large_is_asked_for_in_a_size_that_fits(
    merchant: Merchant, outbound: HttpClient, sizes: list[float], asked: list[str]
) -> None:
    """Judged from its Content-Length, in MiB here. Each answer that is thrown away has cost memory and time."""
    merchant.says(*[b" " * int(size * 2**20) for size in sizes if size > 1], page_of(item("a")))
    await pull(ProductService(outbound, merchant.url, TOKEN, 250))
    assert [request.query_params["page_size"] for request in merchant.asked] == asked


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_an_answer_of_unknown_size_is_asked_for_three_times_at_the_most(
    merchant: Merchant, outbound: HttpClient, coding: str
) -> None:
    """A chunked answer is cut off at the limit, and how much more there was is not known."""
    content = bytes(2**20 + 1)

    async def chunks() -> AsyncIterator[bytes]:
        yield gzip.compress(content) if coding == "gzip" else content

    merchant.says(page_of())
    merchant.answers = [StreamingResponse(chunks(), headers={"Content-Encoding": coding}) for _ in range(9)]
    error = await failure(ProductService(outbound, merchant.url, TOKEN, 500))
    assert error.code == "ANSWER_TOO_LARGE"
    assert [request.query_params["page_size"] for request in merchant.asked] == ["500", "22", "1"]


async def test_the_size_of_a_compressed_answer_is_estimated(merchant: Merchant, outbound: HttpClient) -> None:
    """From the share of it that was read when it had passed the limit."""
    content = gzip.compress(random.Random(1).randbytes(2**22))
    merchant.says(page_of())
    merchant.answers = [Response(content, headers={"Content-Encoding": "gzip"}), Response(as_bytes(page_of()))]
    await pull(ProductService(outbound, merchant.url, TOKEN, 400))
    sizes = [int(request.query_params["page_size"]) for request in merchant.asked]
    assert sizes[0] == 400
    assert 45 <= sizes[1] <= 50  # half of a quarter


@pytest.mark.parametrize("status", [400, 413])
async def test_a_refusal_of_even_a_single_record_is_reported(
    merchant: Merchant, outbound: HttpClient, status: int
) -> None:
    """The parts end there, and nothing is tried twice."""
    merchant.says(page_of(item("a"), next_cursor="2"), status)
    error = await failure(ProductService(outbound, merchant.url, TOKEN, 5))
    assert error.code == "PRODUCT_SERVICE_ERROR"
    assert error.detail.startswith(f"Page 2 of /products could not be read: the product service answered {status}, ")
    assert "even when asked for a single record (page_size=1)" in error.detail
    assert [request.query_params["page_size"] for request in merchant.asked] == ["5", "5", "2", "1"]


async def test_a_redirect_is_not_followed(service: ProductService, merchant: Merchant) -> None:
    """The token is for the address that was registered."""
    merchant.answers = [Response(status_code=302, headers={"Location": merchant.url}), Response(b"never asked for")]
    assert "answered 302; redirects are not followed" in (await failure(service)).detail
    assert len(merchant.asked) == 1


async def test_a_request_is_retried_and_the_pull_continues(service: ProductService, merchant: Merchant) -> None:
    """A brief outage must not end an hour's pull."""
    merchant.says(page_of(item("a"), next_cursor="2"), 503, 429, page_of(item("b")))
    assert [record.id for page in await pull(service) for record in page.records] == ["a", "b"]
    assert [request.query_params.get("cursor") for request in merchant.asked] == [None, "2", "2", "2"]


async def test_each_retry_is_reported_with_the_status_before_it(merchant: Merchant, outbound: HttpClient) -> None:
    """The sync's timeline shows them to the operator."""
    merchant.says(503, 429, page_of(item("a")))
    statuses: list[str] = []
    await pull(quick(merchant, outbound, statuses.append))
    assert statuses == ["503", "429"]


@pytest.mark.parametrize(
    ("value", "at_least"),
    [("1", 1), ("1.5", 1.5), ("0", 0), ("-1", 0), ("soon", 0), ("Fri, 01 Jan 2021 00:00:00 GMT", 0), ("NOW+2", 1)],
)
async def test_the_wait_that_the_service_asks_for_is_kept(
    service: ProductService, merchant: Merchant, value: str, at_least: float
) -> None:
    """In seconds or as a date; sooner would only be refused again. What is neither counts for nothing."""
    if value == "NOW+2":  # a date has whole seconds
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    merchant.answers = [Response(status_code=503, headers={"Retry-After": value}), Response(as_bytes(page_of()))]
    started = time.monotonic()
    await pull(service)
    assert at_least <= time.monotonic() - started < at_least + 4  # a busy machine is slow


async def test_a_rate_limit_without_retry_after_is_waited_for(service: ProductService, merchant: Merchant) -> None:
    """Platforms use headers of their own."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}
    merchant.answers = [Response(status_code=429, headers=headers), Response(as_bytes(page_of()))]
    started = time.monotonic()
    await pull(service)
    assert time.monotonic() - started >= 1


async def test_by_default_a_request_is_made_again_for_half_a_minute() -> None:
    """Restarting the service takes as long, and a rate limit is often counted by the minute."""
    made = settings.load()
    backoff = Backoff(made.request_attempts, made.retry_wait_seconds)
    waits = [backoff.wait(attempt, None, 0.0) for attempt in range(1, made.request_attempts + 1)]
    assert waits.pop() is None
    assert 31 <= sum(wait or 0.0 for wait in waits) <= 31 * 1.25


def test_waits_end_with_what_one_request_may_wait_in_all() -> None:
    """A service that always asks for the longest wait must not keep a sync for ever."""
    backoff = Backoff(100, 1)
    assert backoff.wait(1, 300, 0) == 300
    assert backoff.wait(2, 300, 300) == 300
    assert backoff.wait(3, 300, 600) is None
    assert backoff.wait(1, 301, 0) is None
    assert backoff.wait(3, None, 600) is None


@pytest.mark.parametrize("value", ["301", "9" * 400, "Fri, 01 Jan 2100 00:00:00 GMT"])
async def test_a_wait_of_more_than_five_minutes_ends_the_pull(
    service: ProductService, merchant: Merchant, value: str
) -> None:
    """A sync that the merchant starts later is more useful than one that waits for a day."""
    merchant.answers = [Response(status_code=429, headers={"Retry-After": value})]
    error = await failure(service)
    assert error.code == "PRODUCT_SERVICE_RATE_LIMITED"
    assert "could not be read now: the product service answered 429, and to come back in " in error.detail
    assert len(merchant.asked) == 1


async def test_an_unreachable_service_is_told_as_such(outbound: HttpClient) -> None:
    """Nothing listens on port 1."""
    error = await failure(ProductService(outbound, "http://127.0.0.1:1", TOKEN, 2, attempts=2, wait_initial=0.001))
    assert isinstance(error, PullInterrupted)
    assert error.code == "PRODUCT_SERVICE_UNREACHABLE"
    assert "The connection to 127.0.0.1 was refused." in error.detail


async def test_a_private_address_is_told_as_such(merchant: Merchant) -> None:
    """No request is sent, and none is retried."""
    async with HttpClient(allow_private_addresses=False) as outbound:
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
    assert [request.query_params["page_size"] for request in merchant.asked] == ["2", "1"]


async def test_a_token_that_cannot_be_sent_is_told_without_it(merchant: Merchant, outbound: HttpClient) -> None:
    """A line feed at the end is the usual mistake."""
    error = await failure(ProductService(outbound, merchant.url, TOKEN + "\n", 2))
    assert error.code == "PRODUCT_SERVICE_UNAUTHORIZED"
    assert merchant.asked == []
