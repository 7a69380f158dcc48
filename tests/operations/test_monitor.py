"""The monitor over HTTP: its actions, its pages and what they show."""

import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson
import pytest
from starlette.types import ASGIApp

from product_gateway.db import catalog_write, claims, events, freshness, generations, syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.model.catalog import Page, Record
from product_gateway.model.syncs import EntityType, Sync
from product_gateway.openapi import documents
from product_gateway.operations.monitor.remedies import ADVICE
from tests.support.databases import url_of
from tests.support.max_ages import set_back
from tests.support.monitor_client import LOCAL, ask, made

TOP = Path(__file__).parents[2]
SOURCES = ("sync/worker.py", "sync/pull.py", "sync/product_service.py", "db/catalog_write.py", "db/reverts.py")


async def test_every_action_is_done_and_logged_with_who_and_what(
    app: ASGIApp, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancel, run again, allow mass deletion; on both databases."""
    caplog.set_level(logging.INFO, "product_gateway.operations.monitor.handlers")
    sync = await database.write(enqueue, "shop", EntityType.PRODUCT)
    path = f"/monitor/api/syncs/shop/{sync.id}"
    cancelled = await ask(app, "POST", f"{path}/cancel")
    assert (cancelled.status, orjson.loads(cancelled.body)["data"]["status"]) == (200, "CANCELLED")
    assert (await ask(app, "POST", f"{path}/cancel")).status == 404
    again = await ask(app, "POST", f"{path}/run-again")
    new = orjson.loads(again.body)["data"]
    assert (again.status, new["status"], new["id"] != str(sync.id)) == (201, "QUEUED", True)
    assert again.headers["location"] == f"/monitor/api/syncs/shop/{new['id']}"
    assert (await ask(app, "POST", f"{path}/run-again")).status == 429
    assert (await ask(app, "POST", f"{path}/allow-mass-deletion")).status == 200
    story = orjson.loads((await ask(app, "GET", path)).body)["data"]
    assert [each["kind"] for each in story["timeline"]] == ["QUEUED", "CANCELLED", events.MASS_DELETION_ALLOWED]
    assert all(LOCAL in each["words"] for each in story["timeline"][1:])
    said = [(each.getMessage(), each.__dict__["client"]) for each in caplog.records]
    assert said == [
        ("An operator has cancelled the sync.", LOCAL),
        (f"An operator has asked again for the sync. It is {new['id']}.", LOCAL),
        ("An operator has allowed one mass deletion after the sync.", LOCAL),
    ]


async def test_a_result_is_published_discarded_or_reverted(
    app: ASGIApp, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Only in a state that allows it: 412 otherwise. A revert is a sync that obeys the one-active rule."""
    caplog.set_level(logging.INFO, "product_gateway.operations.monitor.handlers")

    async def ended(publish: str = "AUTOMATIC") -> str:
        request = EnqueueRequest("shop", EntityType.PRODUCT, None, None, publish)
        [sync] = await database.write(enqueue_many, [request])
        assert isinstance(sync, Sync)
        claim = await database.write(claims.claim, "worker", 60.0, 3, 1)
        assert claim is not None
        await database.write(generations.succeed, claim)
        return f"/monitor/api/syncs/shop/{sync.id}"

    first, staged = await ended(), await ended("MANUAL")
    shown = orjson.loads((await ask(app, "GET", staged)).body)["data"]["sync"]
    assert (shown["publication"], shown["generation"], shown["reverts"]) == ("STAGED", 2, None)
    assert (await ask(app, "POST", f"{staged}/revert")).status == 412
    assert (await ask(app, "POST", f"{first}/discard")).status == 412
    page = (await ask(app, "GET", staged.replace("/api", ""))).body.decode()
    assert all(f"{staged.rpartition('/')[2]}/{action}" in page for action in ("publish", "discard"))
    published = await ask(app, "POST", f"{staged}/publish")
    assert (published.status, orjson.loads(published.body)["data"]["publication"]) == (200, "PUBLISHED")
    assert (await ask(app, "POST", f"{staged}/publish")).status == 412
    dropped = await ended("MANUAL")
    assert orjson.loads((await ask(app, "POST", f"{dropped}/discard")).body)["data"]["publication"] == "DISCARDED"
    made = await ask(app, "POST", f"{staged}/revert")
    revert = orjson.loads(made.body)["data"]
    assert (made.status, revert["status"], revert["reverts"]) == (201, "QUEUED", staged.rpartition("/")[2])
    assert made.headers["location"] == f"/monitor/api/syncs/shop/{revert['id']}"
    assert (await ask(app, "POST", f"{staged}/revert")).status == 429
    page = (await ask(app, "GET", f"/monitor/syncs/shop/{revert['id']}")).body.decode()
    assert f'syncs/shop/{revert["reverts"]}">sync {revert["reverts"]}</a>' in page
    story = orjson.loads((await ask(app, "GET", staged)).body)["data"]["timeline"]
    assert [each["words"] for each in story[-2:]] == [
        f"Published by an operator at {LOCAL}",
        f"Its revert was requested by an operator at {LOCAL}",
    ]
    assert [each.getMessage() for each in caplog.records] == [
        "An operator has published the result of the sync.",
        "An operator has discarded the result of the sync.",
        f"An operator has asked for a revert of the sync. It is {revert['id']}.",
    ]


async def test_the_page_says_who_has_a_problem_and_what_to_do(app: ASGIApp, database: Database) -> None:
    """The problem comes first on the page. Text from a product service is escaped."""
    await database.write(enqueue, "shop", EntityType.PRODUCT)
    claim = await database.write(claims.claim, "<script>alert(1)</script>", 60.0, 5, 2)
    assert claim is not None
    detail = "Page 1 of /products could not be read: the product service answered 401, <script>alert(2)</script>"
    await database.write(claims.fail, claim, "PRODUCT_SERVICE_UNAUTHORIZED", detail)
    for path in ("/monitor", f"/monitor/syncs/shop/{claim.sync_id}"):
        answer = await ask(app, "GET", path)
        page = answer.body.decode()
        assert "The product service refuses our token (401)." in page
        assert "product-gateway merchant update shop --product-service-token-file" in page
        assert "<script>alert" not in page
        assert "style=" not in page
        assert "unsafe" not in answer.headers["content-security-policy"]
    page = (await ask(app, "GET", "/monitor")).body.decode()
    assert page.index("failed") < page.index('id="active"')
    assert (await ask(app, "GET", "/monitor?cursor=AAAA")).status == 400


async def test_a_stale_catalog_needs_attention_with_its_reason(database: Database) -> None:
    """What became of the latest sync decides what helps. The longest stale comes first."""

    async def stale() -> dict[str, dict[str, Any]]:
        body = orjson.loads((await ask(made(url_of(database)), "GET", "/monitor/api/overview")).body)["data"]
        found = {each["merchant"]: each for each in body["attention"] if each["kind"] == "CATALOG_STALE"}
        assert body["stale"] == len(found)
        return found

    assert await stale() == {}
    await database.write(freshness.put, "other", {EntityType.COLLECTION: 2 * 3600})
    await database.write(freshness.put, "shop", {EntityType.PRODUCT: 3 * 3600})
    set_back(database, 4 * 3600)
    found = await stale()
    assert list(found) == ["other", "shop"]
    shop = found["shop"]
    assert shop["headline"] == "PRODUCT is stale: it was never published, and its max age is 3 h"
    assert (shop["words"], shop["syncId"], shop["runsAgain"]) == ("no sync was requested in time", None, False)
    assert shop["command"] == "product-gateway merchant update shop --max-age PRODUCT=AGE"

    sync = await database.write(enqueue, "shop", EntityType.PRODUCT)
    shop = (await stale())["shop"]
    assert (shop["words"], shop["runsAgain"]) == ("its sync waits for a worker", True)
    claim = await database.write(claims.claim, "worker", 600.0, 5, 2)
    assert claim is not None
    assert (await stale())["shop"]["words"] == "its sync is not complete yet"
    await database.write(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    shop = (await stale())["shop"]
    assert shop["words"] == f"its last sync failed: {ADVICE['INVALID_PAGE'].words}"
    assert (shop["whatToDo"], shop["syncId"]) == (ADVICE["INVALID_PAGE"].what_to_do, str(sync.id))
    page = (await ask(made(url_of(database)), "GET", "/monitor")).body.decode()
    part = page.partition('id="problem-CATALOG_STALE-shop-PRODUCT"')[2].partition("</li>")[0]
    assert "PRODUCT is stale" in part
    assert "/run-again" in part

    await database.write(enqueue_many, [EnqueueRequest("shop", EntityType.PRODUCT, publish="MANUAL")])
    claim = await database.write(claims.claim, "worker", 600.0, 5, 2)
    assert claim is not None
    await database.write(generations.succeed, claim)
    assert (await stale())["shop"]["words"] == "the result of its sync waits for a review"
    await database.write(generations.publish, "shop", claim.sync_id)
    assert list(await stale()) == ["other"]


def test_every_failure_has_words_and_something_to_do() -> None:
    """An unexplained failure code causes a support request."""
    sources = "".join((TOP / "app" / "product_gateway" / name).read_text() for name in SOURCES)
    described = (
        documents.load(documents.GATEWAY)["info"]["description"]
        .partition("**Why a sync failed**")[2]
        .partition("\n# ")[0]
    )
    explained = {word for word in described.replace(",", " ").split() if word.isupper() and "_" in word}
    assert set(ADVICE) == explained
    assert {code for code in ADVICE if code not in ("WORKER_LOST",)} <= {
        code for code in ADVICE if f'"{code}"' in sources
    }


async def test_a_sync_shows_the_size_of_its_merchants_catalog_and_the_limits(database: Database) -> None:
    """An operator sees how near a merchant is to CATALOG_FULL, for each entity type."""
    app = made(url_of(database), max_catalog_records=2_000_000, max_catalog_bytes=3_500_000)
    sync = await database.write(enqueue, "shop", EntityType.PRODUCT)
    claim = await database.write(claims.claim, "worker", 600.0, 5, 2)
    assert claim is not None
    records = tuple(Record(f"p{number}", f'{{"text": "{"x" * 99_988}"}}') for number in range(12))
    await database.write(catalog_write.write_page, claim, Page(records, (), None, 12), 600.0)
    await database.write(generations.succeed, claim)
    path = f"/monitor/{{}}syncs/shop/{sync.id}"
    story = orjson.loads((await ask(app, "GET", path.format("api/"))).body)["data"]
    limits = {"maxRecords": 2_000_000, "maxBytes": 3_500_000}
    assert story["catalog"] == [
        {"entityType": "PRODUCT", "records": 12, "bytes": 1_200_000, **limits},
        {"entityType": "COLLECTION", "records": 0, "bytes": 0, **limits},
    ]
    page = (await ask(app, "GET", path.format(""))).body.decode()
    assert "<dt>Product catalog</dt><dd>12 of at most 2,000,000 records, 1.2 of at most 3.5 MB</dd>" in page
    assert "<dt>Collection catalog</dt><dd>0 of at most 2,000,000 records, 0 of at most 3.5 MB</dd>" in page


async def test_what_the_webhook_was_told_stands_in_the_timeline(app: ASGIApp, database: Database) -> None:
    """A merchant who was not told asks the operator."""
    await database.write(webhooks.put, "shop", url="https://shop.example/hook", secret="encrypted")
    sync = await database.write(enqueue, "shop", EntityType.PRODUCT)
    await database.write(syncs.cancel, "shop", EntityType.PRODUCT)
    story = orjson.loads((await ask(app, "GET", f"/monitor/api/syncs/shop/{sync.id}")).body)["data"]
    assert [each["kind"] for each in story["timeline"]] == ["QUEUED", "CANCELLED", "WEBHOOK_PENDING"]
    assert "sync.cancelled" in story["timeline"][-1]["words"]


async def test_the_first_page_of_the_port_leads_to_all_others(app: ASGIApp) -> None:
    """An operator who knows only the port finds the monitor, the metrics and the health checks."""
    page = (await ask(app, "GET", "/")).body.decode()
    links = re.findall(r'<a href="([^"]+)"', page)
    for path in ("/monitor", "/metrics", "/health/live", "/health/ready"):
        assert any(urljoin("/", each) == path for each in links), f"{path} is not in {links}"
        assert (await ask(app, "GET", path)).status == 200


async def test_the_page_names_the_workers_that_run_a_sync_and_the_oldest_catalogs(
    app: ASGIApp, database: Database
) -> None:
    """A worker is known by the heartbeats of its syncs; a catalog's age is that of its last successful sync."""
    for worker in ("worker-1:1", "worker-2:2"):
        await database.write(enqueue, "shop", EntityType.PRODUCT if worker.endswith("1") else EntityType.COLLECTION)
        claim = await database.write(claims.claim, worker, 60.0, 5, 2)
        assert claim is not None
        if worker.endswith("1"):
            records = (Record("p1", "{}"),)
            await database.write(catalog_write.write_page, claim, Page(records, (), None, 1), 60.0)
            await database.write(generations.succeed, claim)
    found = orjson.loads((await ask(app, "GET", "/monitor/api/overview")).body)["data"]
    assert [(each["worker"], each["syncs"]) for each in found["workers"]] == [("worker-2:2", 1)]
    assert [(each["merchant"], each["entityType"], each["records"]) for each in found["freshness"]] == [
        ("shop", "PRODUCT", 1)
    ]
    page = (await ask(app, "GET", "/monitor")).body.decode()
    workers = page.partition('<section id="workers"')[2].partition("</section>")[0]
    assert "worker-2:2" in workers
    assert "worker-1:1" not in workers
    assert "An idle worker is not in the database" in workers
    assert 'id="catalog-shop-PRODUCT"' in page
    assert "All times are UTC" in page
    assert 'href="monitor/api/overview"' in page


async def test_each_retry_is_shown_with_the_status_before_it(app: ASGIApp, database: Database) -> None:
    """A merchant asks what its service has answered."""
    await database.write(enqueue, "shop", EntityType.PRODUCT)
    claim = await database.write(claims.claim, "worker-1:1", 60.0, 5, 2)
    assert claim is not None
    await database.write(claims.heartbeat, claim, 60.0, ["503", "429", "no answer"])
    detail = orjson.loads((await ask(app, "GET", f"/monitor/api/syncs/shop/{claim.sync_id}")).body)["data"]
    said = "Requests to the product service retried: 3, after 503, 429, no answer"
    assert (detail["timeline"][-1]["kind"], detail["timeline"][-1]["words"]) == (events.REPEATED, said)
