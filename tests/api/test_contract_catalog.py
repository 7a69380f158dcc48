"""The HTTP contract of the catalog: products and collections."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from product_gateway.model.syncs import EntityType
from product_gateway.sample import catalog_file
from tests.support.contract import Gateway, error, gateway
from tests.support.deployment import API, Deployment, ended

ODD = ["a/b", "../up", "50%", "50%25", "a b", "?q=1#x", "größe", "日本", "👕🧵", "e\u0301", "A", "a", "+", "'\"<&>"]
ODD += ["x" * 255, "🧵" * 255]
PLAIN = [f"product-{n:02}" for n in range(20)]
IDS = [*ODD, *PLAIN]
GONE = "no-longer-sold"
ORDER = [PLAIN[7], GONE, "a/b", *reversed(PLAIN[:5]), "👕🧵"]
COLLECTIONS = {"order": ORDER, "a/b": ["a"], "empty": [], **{f"collection-{n:02}": PLAIN[:n] for n in range(12)}}


def product(record_id: str) -> dict[str, Any]:
    """Return a product of the product service."""
    return {"id": record_id, "title": f"Product {record_id[:9]}", "listPrice": 100}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a product service with unusual ids. Its collections contain a product that its list lacks."""
    folder = tmp_path_factory.mktemp("service")
    collections = [
        {"id": name, "title": f"Collection {name}", "products": [product(each) for each in ids]}
        for name, ids in COLLECTIONS.items()
    ]
    catalog = {"products": [product(each) for each in IDS], "collections": collections}
    (folder / "catalog.json").write_text(json.dumps(catalog))
    with Deployment(folder, "").sample_service("--catalog", str(folder / "catalog.json")) as url:
        yield url


@pytest.fixture(scope="module")
def served(service: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway: `shop` has synced everything, `early` its collections only, `other` nothing."""
    folder = tmp_path_factory.mktemp("contract_catalog")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", "--with-worker") as served:
        served.add("shop", service, currency="GBP")
        served.add("early", service)
        served.add("other", service, currency="EUR")
        for merchant, entity_types in (("shop", ("PRODUCT", "COLLECTION")), ("early", ("COLLECTION",))):
            for entity_type in entity_types:
                with served.of(merchant) as client:
                    done = ended(client, client.put(f"{API}/sync/{entity_type}").json()["data"])
                assert (done["status"], done["result"]["rejected"]) == ("SUCCEEDED", 0)
        yield served


@pytest.fixture(scope="module")
def shop(served: Gateway) -> Iterator[httpx2.Client]:
    """Return a client of the merchant `shop`."""
    with served.of("shop") as client:
        yield client


def pages(client: httpx2.Client, path: str, page_size: int) -> Iterator[dict[str, Any]]:
    """Yield every page, by following the cursors."""
    query: dict[str, Any] = {"page_size": page_size}
    while True:
        page: dict[str, Any] = client.get(f"{API}/{path}", params=query).raise_for_status().json()
        yield page
        if "nextCursor" not in page["meta"]:
            return
        query["cursor"] = page["meta"]["nextCursor"]


@pytest.mark.parametrize(("path", "ids"), [("products", IDS), ("collections", list(COLLECTIONS))])
@pytest.mark.parametrize("page_size", [1, 7, 36, 500])
def test_the_pages_of_a_list_hold_every_record_once_in_order(
    shop: httpx2.Client, path: str, ids: list[str], page_size: int
) -> None:
    """In the order of Unicode code points, on every database; only the last page has no `nextCursor`."""
    found = list(pages(shop, path, page_size))
    assert [record["id"] for page in found for record in page["data"]] == sorted(ids)
    assert [len(page["data"]) for page in found[:-1]] == [page_size] * (len(found) - 1)
    assert 1 <= len(found[-1]["data"]) <= page_size


def test_a_list_without_a_page_size_has_pages_of_100(shop: httpx2.Client) -> None:
    """The default of the spec."""
    assert len(shop.get(f"{API}/products").json()["data"]) == len(IDS)


def test_a_cursor_works_in_its_own_list_only(shop: httpx2.Client) -> None:
    """In another list it would silently skip records."""
    lists = ["products", "collections", "collections/order", "collections/collection-11", "syncs"]
    cursors = {path: shop.get(f"{API}/{path}?page_size=1").json()["meta"]["nextCursor"] for path in lists}
    for source, cursor in cursors.items():
        for path in lists:
            answer = shop.get(f"{API}/{path}", params={"cursor": cursor})
            if path == source:
                assert answer.status_code == 200
            else:
                assert "not a cursor of this list" in error(answer, 400)


@pytest.mark.parametrize("path", ["products", "collections", "collections/order", "syncs"])
def test_a_forged_cursor_is_refused(shop: httpx2.Client, path: str) -> None:
    """It does not reach the database."""
    given = shop.get(f"{API}/{path}?page_size=1").json()["meta"]["nextCursor"]
    for cursor in ["nonsense", "a", f"{given}A", given[1:], "A" * 1400, *forged(given, b"", b"\xff", b"a\0b")]:
        error(shop.get(f"{API}/{path}", params={"cursor": cursor}), 400)


def test_a_forged_time_in_a_cursor_is_refused(shop: httpx2.Client) -> None:
    """A cursor of the history contains a time; not every time exists in UTC."""
    given = shop.get(f"{API}/syncs?page_size=1").json()["meta"]["nextCursor"]
    sync_id = b"019364f0-7c1e-7a10-9a6b-3f1f5f0c9a11"
    moments = [b"0001-01-01T00:00:00+14:00/", b"9999-12-31T23:59:59-14:00/", b"today/", b"/"]
    for cursor in [*forged(given, *(moment + sync_id for moment in moments)), *forged(given, moments[0] + b"x")]:
        error(shop.get(f"{API}/syncs", params={"cursor": cursor}), 400)


def forged(given: str, *contents: bytes) -> list[str]:
    """Return cursors of the same list with other contents."""
    mark = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))[:3]
    return [base64.urlsafe_b64encode(mark + each).decode().rstrip("=") for each in contents]


@pytest.mark.parametrize("record_id", [*ODD, PLAIN[0]])
def test_any_id_can_be_read_percent_encoded(shop: httpx2.Client, record_id: str) -> None:
    """Slashes, percent signs and letters of any script come back unchanged."""
    answer = shop.get(f"{API}/products/{quote(record_id, safe='')}")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"data": product(record_id), "meta": {"currency": "GBP", "generation": 1}}


def test_an_id_is_compared_exactly(shop: httpx2.Client) -> None:
    """Neither case-folded nor normalised nor decoded twice."""
    for unknown in ("\u00e9", "B", "50%2525", "a%2Fb", "GRÖSSE"):
        assert repr(unknown) in error(shop.get(f"{API}/products/{quote(unknown, safe='')}"), 404)
    assert "'a/c'" in error(shop.get(f"{API}/collections/a%2Fc"), 404)


def test_a_collection_shows_its_products_in_the_merchants_order(shop: httpx2.Client) -> None:
    """All ids, and the products that the catalog has."""
    body = shop.get(f"{API}/collections/order").json()
    wanted = [product(each) for each in ORDER if each != GONE]
    assert body["data"] == {
        "id": "order",
        "title": "Collection order",
        "productCount": len(ORDER),
        "productIds": ORDER,
        "products": wanted,
    }
    assert body["meta"] == {"currency": "GBP", "generation": 1}
    empty = shop.get(f"{API}/collections/empty").json()["data"]
    assert (empty["productCount"], empty["productIds"], empty["products"]) == (0, [], [])
    assert shop.get(f"{API}/collections/a%2Fb").json()["data"]["productIds"] == ["a"]


@pytest.mark.parametrize("page_size", [1, 4, 9])
def test_the_products_of_a_collection_are_paged(shop: httpx2.Client, page_size: int) -> None:
    """Pages go by ids, so a page may have fewer products. Every page has all ids."""
    found = list(pages(shop, "collections/order", page_size))
    assert [each["id"] for page in found for each in page["data"]["products"]] == [
        each for each in ORDER if each != GONE
    ]
    assert len(found) == -(-len(ORDER) // page_size)
    assert all(page["data"]["productIds"] == ORDER for page in found)


def test_a_sync_of_collections_writes_no_products(served: Gateway) -> None:
    """Products come with their own sync."""
    with served.of("early") as client:
        assert client.get(f"{API}/products").json() == {"data": [], "meta": {"generation": 0}}
        error(client.get(f"{API}/sync/PRODUCT"), 404)
        error(client.get(f"{API}/products/{PLAIN[7]}"), 404)
        collection = client.get(f"{API}/collections/order").json()["data"]
        assert (collection["productIds"], collection["products"]) == (ORDER, [])
        assert client.get(f"{API}/sync/COLLECTION").json()["data"]["numRecords"] == len(COLLECTIONS)


def test_a_page_has_the_currency_if_the_merchant_has_one(served: Gateway) -> None:
    """A guessed currency would be a wrong price."""
    with served.of("early") as client:
        assert "currency" not in client.get(f"{API}/collections/order").json()["meta"]
        assert "currency" not in client.get(f"{API}/collections").json()["meta"]
    with served.of("shop") as client:
        for path in ("products", "products/a", "collections", "collections/order"):
            assert client.get(f"{API}/{path}").json()["meta"]["currency"] == "GBP"


@pytest.mark.parametrize("path", ["products", "collections"])
def test_a_record_of_another_merchant_is_404(served: Gateway, path: str) -> None:
    """The same response as for an unknown id."""
    with served.of("other") as client:
        theirs = error(client.get(f"{API}/{path}/a%2Fb"), 404)
        assert theirs == error(client.get(f"{API}/{path}/nobodys"), 404).replace("nobodys", "a/b")
        assert client.get(f"{API}/{path}").json() == {"data": [], "meta": {"currency": "EUR", "generation": 0}}


def test_a_list_and_a_single_read_return_the_same_record(served: Gateway, shop: httpx2.Client) -> None:
    """Absent fields are left out in both."""
    with Deployment(served.deployment.folder, "").sample_service() as sample:
        served.add("sample", sample)
        source = catalog_file.read(catalog_file.SAMPLE)
        with served.of("sample") as client:
            for entity_type, path in ((EntityType.PRODUCT, "products"), (EntityType.COLLECTION, "collections")):
                ended(client, client.put(f"{API}/sync/{entity_type}").json()["data"])
                listed = client.get(f"{API}/{path}").json()["data"]
                assert len(listed) == source.count(entity_type)
                for record in listed:
                    alone = client.get(f"{API}/{path}/{record['id']}").json()["data"]
                    assert {**alone, **record} == alone
