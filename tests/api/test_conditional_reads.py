"""Lists and records of the catalog are revalidated by the ETag of their generation (RFC 9110 §13.1.2)."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from product_gateway.api.catalog import CatalogHandlers
from product_gateway.api.long_poll import GenerationWaiters
from product_gateway.db import merchants
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from tests.support.deployment import API, Deployment
from tests.support.merchants import client
from tests.support.pulls import page, pull

PATHS = ["products", "products?page_size=1", "products/a", "collections"]


@pytest.fixture
def shop(deployment: Deployment) -> Any:
    """A client of a merchant with two products, its database, and the URL."""
    with open_database(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
        pull(database, page({"a": "one", "b": "one"}))
        with deployment.serving() as url, client(deployment, url, "shop") as caller:
            yield SimpleNamespace(client=caller, database=database)


def test_a_client_that_has_the_generation_gets_304_until_the_next_one(shop: Any) -> None:
    """Also for further pages of a list, which stay in their generation."""
    found = {path: shop.client.get(f"{API}/{path}") for path in PATHS}
    more = f"products?page_size=1&cursor={found['products?page_size=1'].json()['meta']['nextCursor']}"
    found[more] = shop.client.get(f"{API}/{more}")
    for path, answer in found.items():
        tag = answer.headers["ETag"]
        assert not tag.startswith("W/"), path
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = shop.client.get(f"{API}/{path}", headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag), path
            assert again.headers["Cache-Control"] == answer.headers["Cache-Control"] == "private, no-cache"
        other = shop.client.get(f"{API}/{path}", headers={"If-None-Match": '"other"'})
        assert (other.status_code, other.content) == (200, answer.content), path
    pull(shop.database, page({"a": "two", "b": "one"}))
    for path, answer in found.items():
        again = shop.client.get(f"{API}/{path}", headers={"If-None-Match": answer.headers["ETag"]})
        unchanged = path in (more, "collections")  # a page of the earlier generation, and another entity type
        assert again.status_code == (304 if unchanged else 200), path


def test_the_tag_changes_with_what_else_the_body_shows(shop: Any) -> None:
    """The currency is in `meta`, and a merchant that was added again starts to count again."""
    tags = [shop.client.get(f"{API}/products").headers["ETag"]]
    shop.database.call(merchants.update_merchant, "shop", currency="EUR")
    tags.append(shop.client.get(f"{API}/products").headers["ETag"])
    shop.database.call(merchants.remove, "shop")
    shop.database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example", currency="EUR")
    pull(shop.database, page({"a": "other", "b": "one"}))
    tags.append(shop.client.get(f"{API}/products").headers["ETag"])
    assert len(set(tags)) == 3, tags


@pytest.mark.parametrize("path", ["products/none", "products?cursor=none"])
def test_an_error_stays_an_error(shop: Any, path: str) -> None:
    """A client can have no copy of it."""
    tag = shop.client.get(f"{API}/products").headers["ETag"]
    for known in (tag, "*"):
        answer = shop.client.get(f"{API}/{path}", headers={"If-None-Match": known})
        assert answer.status_code in (400, 404), answer.text


async def test_a_list_that_the_client_has_is_not_read(database: Database) -> None:
    """That is the use of it: 304 costs no more for 500 large records than for none."""
    pull(database, page({"a": "one"}))
    waiters = GenerationWaiters(database)
    handlers = CatalogHandlers(database, waiters)
    tag = (await handlers.list_products("shop", None, 10, None)).headers["ETag"]
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    answer = await handlers.list_products("shop", None, 10, tag)
    assert answer.status == 304
    assert statements
    assert not any("catalog_records" in each for each in statements)
