"""Bounds of responses: a page's budget, and the unread bytes of all clients."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest
from sqlalchemy import Connection

from product_gateway import settings
from product_gateway.api.app import create_app
from product_gateway.auth import keys
from product_gateway.db import catalog_write, claims, generations, merchants, syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.db.page_budget import MAX_PAGE_BYTES, fitting
from product_gateway.errors import Overloaded
from product_gateway.http.limits import Limits, UnsentBytes
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.services import http_server, sockets
from product_gateway.telemetry.metrics import Metrics
from tests.support.contract import Gateway, error
from tests.support.deployment import API, Deployment, Process, within
from tests.support.load import Footprint, written

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
MEGABYTE = 1024 * 1024
BESIDE_THE_RECORDS = 4096
"""Bytes of a response beside its records."""


def record(record_id: str, size: int, *product_ids: str) -> Record:
    """A record of about `size` bytes."""
    document: dict[str, Any] = {"id": record_id, "title": "Large", "meta": {"filler": "x" * size}}
    more = {"productCount": len(product_ids)} if product_ids or record_id.startswith("n") else {}
    return Record(record_id, orjson.dumps(document | more).decode(), product_ids)


def fill(url: str, entity_type: EntityType, records: Sequence[Record], merchant: str = "shop") -> None:
    """Put the records into the merchant's catalog, by a sync."""
    with open_database(url) as database:
        write(database, entity_type, records, merchant)


def write(database: Database, entity_type: EntityType, records: Sequence[Record], merchant: str = "shop") -> None:
    """The same with an open database."""
    database.call(enqueue, merchant, entity_type)
    claim = database.call(claims.claim, "tester", 60.0, 5, 2)
    assert claim is not None
    for start in range(0, len(records), 20):
        page = Page(tuple(records[start : start + 20]), (), "more", None)
        database.call(catalog_write.write_page, claim, page, 60.0)
    database.call(generations.succeed, claim)


@pytest.fixture
def process(deployment: Deployment) -> Iterator[Process]:
    """A gateway's process."""
    with deployment.process("serve", "--port", "0") as process:
        yield process


@pytest.fixture
def served(deployment: Deployment, process: Process) -> Gateway:
    """A gateway with the merchant `shop`."""
    served = Gateway(deployment, process.url())
    served.add("shop")
    return served


def fill_products(served: Gateway, records: Sequence[Record], entity_type: EntityType = PRODUCT) -> None:
    """Put records into the catalog of `shop`."""
    fill(served.deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"], entity_type, records)


def read_all(client: httpx2.Client, path: str, member: str | None = None) -> tuple[list[str], list[int]]:
    """Follow a list from page to page; return the records' ids and the sizes of the responses."""
    ids: list[str] = []
    sizes: list[int] = []
    query = {"page_size": "500"}

    def ask() -> httpx2.Response | None:
        answer = client.get(f"{API}/{path}", params=query)
        return None if answer.status_code == 503 else answer.raise_for_status()  # a busy machine exceeds the deadline

    while True:
        answer = within(60, ask)
        body = orjson.loads(answer.content)
        records = body["data"] if member is None else body["data"][member]
        assert records, "a page without a record would let a client ask forever"
        ids += [each["id"] for each in records]
        sizes.append(len(answer.content))
        if "nextCursor" not in body["meta"]:
            return ids, sizes
        query["cursor"] = body["meta"]["nextCursor"]


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        ([], 10, 0),
        ([11], 10, 1),
        ([11, 1], 10, 1),
        ([1, 11], 10, 1),
        ([5, 5, 1], 10, 2),
        ([5, 5], 10, 2),
        ([0, 0, 0], 0, 3),
        ([3, 3], -5, 1),
    ],
)
def test_a_page_has_the_records_that_fit_and_at_least_one(sizes: list[int], most: int, expected: int) -> None:
    """A record larger than the budget must be readable too, by itself."""
    assert fitting(sizes, most) == expected


def test_pages_stay_within_their_budget_and_lose_no_record(served: Gateway) -> None:
    """The budget holds for each page size, so a page needs bounded memory."""
    products = [record(f"p{n:03}", MEGABYTE) for n in range(40)]
    products[7:7] = [record("p006b", 9 * MEGABYTE)]  # from a time when larger records were allowed
    products += [record(f"q{n:03}", 300) for n in range(700)]
    expected = [each.id for each in products]
    fill_products(served, products)
    members = [*reversed(expected[:30]), "gone", *expected[30:60]]
    collection = record("men", 5 * MEGABYTE, *members)
    fill_products(served, [collection, *(record(f"n{n:02}", MEGABYTE) for n in range(20))], COLLECTION)
    largest = max(MAX_PAGE_BYTES, 9 * MEGABYTE) + BESIDE_THE_RECORDS
    with served.of("shop") as client:
        ids, sizes = read_all(client, "products")
        assert ids == expected
        assert max(sizes) < largest
        assert sorted(sizes)[-2] <= MAX_PAGE_BYTES + BESIDE_THE_RECORDS
        assert len(sizes) <= 10, f"pages must not be smaller than they need to be: {sizes}"
        ids, sizes = read_all(client, "collections")
        assert ids == ["men", *(f"n{n:02}" for n in range(20))]
        assert max(sizes) <= MAX_PAGE_BYTES + BESIDE_THE_RECORDS
        ids, sizes = read_all(client, "collections/men", "products")
        assert ids == [each for each in members if each != "gone"]
        assert sorted(sizes)[-2] <= MAX_PAGE_BYTES + BESIDE_THE_RECORDS
        one = client.get(f"{API}/collections/men", params={"page_size": 1}).json()["data"]
        assert (one["productIds"], one["productCount"], one["title"]) == (members, 61, "Large")


def test_stored_records_are_returned_unchanged(served: Gateway) -> None:
    """Pages are joined as text: the records' content must not matter."""
    odd = ['"', "\\", "}", "],", "\n", "é", "🧵", "\u2028", "</script>", ',"x":{}']
    products = [Record(f"p{n}", orjson.dumps({"id": f"p{n}", "title": each}).decode()) for n, each in enumerate(odd)]
    fill_products(served, products)
    document = {"id": "c", "title": "}", "productCount": len(odd)}
    ids = tuple(each.id for each in products)
    empty = Record("e", orjson.dumps({"id": "e", "title": "E", "productCount": 0}).decode())
    fill_products(served, [Record("c", orjson.dumps(document).decode(), ids), empty], COLLECTION)
    expected = [{"id": f"p{n}", "title": each} for n, each in enumerate(odd)]
    with served.of("shop") as client:
        assert client.get(f"{API}/products").json() == {"data": expected, "meta": {"generation": 1}}
        assert client.get(f"{API}/products/p3").json() == {"data": expected[3], "meta": {"generation": 1}}
        found = client.get(f"{API}/collections/c").json()["data"]
        assert found == {**document, "productIds": list(ids), "products": expected}
        bare = client.get(f"{API}/collections/e").json()["data"]
        assert bare == {"id": "e", "title": "E", "productCount": 0, "productIds": [], "products": []}


def test_pages_of_a_history_with_long_details_stay_within_their_budget(database: Database) -> None:
    """A failure's detail may have 8,000 characters, and a character four bytes."""
    asked: list[str] = []

    def fail_syncs(connection: Connection) -> None:
        for _ in range(300):
            asked.append(str(enqueue(connection, "shop", PRODUCT).id))
            claim = claims.claim(connection, "tester", 60.0, 5, 2)
            assert claim is not None
            claims.fail(connection, claim, "INVALID_PAGE", "🧵" * 9000)

    database.call(fail_syncs)
    found: list[str] = []
    before = None
    pages = 0
    while before is not None or pages == 0:
        page, before = database.call(syncs.history, "shop", None, None, before, 500)
        assert sum(len((each.failure_detail or "").encode()) for each in page) < MAX_PAGE_BYTES
        found += [str(each.id) for each in page]
        pages += 1
    assert pages == 2
    assert found == asked[::-1]


def test_memory_for_a_page_of_large_records_does_not_depend_on_the_page_size(served: Gateway, process: Process) -> None:
    """The page is cut in the database: records beyond it are not read."""
    fill_products(served, [record(f"p{n:03}", MEGABYTE) for n in range(160)])
    with served.of("shop") as client:
        client.get(f"{API}/products", params={"page_size": 1}).raise_for_status()
        before = Footprint.of(process.pid).rss
        for _ in range(5):
            client.get(f"{API}/products", params={"page_size": 500}).raise_for_status()
    assert peak_rss(process) < before + 96 * MEGABYTE


def peak_rss(process: Process) -> int:
    """Return the peak memory of the process in bytes (Linux only)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def ask_without_reading(url: str, request: bytes) -> socket.socket:
    """Send a request on a new connection that takes in little, and wait for the first bytes of the response."""
    address = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect((address.hostname, address.port))
    client.sendall(request)
    client.recv(64, socket.MSG_PEEK)
    return client


def test_large_responses_are_refused_while_too_many_bytes_are_unread(database_url: str, tmp_path: Path) -> None:
    """Large responses get 503 and others are served. Clients that read or disconnect make room."""
    made = settings.load(data_dir=tmp_path, database_url=database_url)
    metrics = Metrics()
    listening = sockets.bind("127.0.0.1", 0)
    url = sockets.url_of(listening)
    limits = Limits(unsent_bytes=24 * MEGABYTE)
    served = Gateway(Deployment(tmp_path, database_url), url)
    served.deployment.environment["PRODUCT_GATEWAY_DATA_DIR"] = str(tmp_path)
    with open_database(database_url) as database:
        database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
        write(database, PRODUCT, [record(f"p{n:03}", MEGABYTE) for n in range(9)])
    token = keys.issue_token(made, "shop", list(keys.SCOPES), timedelta(hours=1))
    request = written(f"{API}/products?page_size=500", token)
    with (
        http_server.HTTPServer(create_app(made, metrics), listening, limits),
        served.client(token) as client,
        contextlib.ExitStack() as stack,  # its clients go first: a server waits for those that are still there
    ):
        heads = []
        for _ in range(40):
            away = stack.enter_context(ask_without_reading(url, request))
            heads.append(away.recv(12, socket.MSG_PEEK))
            if heads[-1] == b"HTTP/1.1 503":
                break
        assert heads[:3] == [b"HTTP/1.1 200"] * 3, "one large response must never be too much"
        assert heads[-1] == b"HTTP/1.1 503", f"{len(heads)} responses are not read, and nothing is refused"
        refused = client.get(f"{API}/products?page_size=500")
        assert "have not taken" in error(refused, 503)
        assert refused.headers["Retry-After"] == "1"
        assert client.get(f"{API}/syncs").status_code == 200
        assert client.get(f"{API}/products?page_size=500", headers={"Authorization": ""}).status_code == 401
        assert client.head(f"{API}/products?page_size=500").status_code == 200
        assert client.get("/health/ready").status_code == 200
        refusals = metrics.registry.get_sample_value("product_gateway_requests_refused_total", {"reason": "overload"})
        assert refusals == 2
        stack.close()
        within(20, lambda: client.get(f"{API}/products?page_size=500").status_code == 200)
        for _ in range(10):  # who reads leaves room for the next, also on a connection that stays open
            another = stack.enter_context(served.client(token))
            assert another.get(f"{API}/products?page_size=500").status_code == 200
        stack.close()


def test_one_response_may_exceed_the_bound_of_unsent_bytes() -> None:
    """A bound that is set too low must not make a record unreadable."""
    unsent = UnsentBytes(10)
    with unsent.reserve(11):
        assert unsent.total == 11
        with pytest.raises(Overloaded), unsent.reserve(1):
            pass
    unsent.add(9)
    with unsent.reserve(1):
        assert unsent.total == 10
    with pytest.raises(Overloaded), unsent.reserve(2):
        pass
    assert unsent.total == 9
