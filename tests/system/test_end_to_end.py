"""End-to-end: real processes, real HTTP and real catalogs."""

import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from product_gateway.model.syncs import EntityType
from product_gateway.sample import catalog_file
from tests.support.deployment import API, Deployment, ended, within

CATALOGS = Path(__file__).parents[3] / "shared" / "catalogs"
REAL = ["apparel.csv", "home-and-garden.csv"]
TOKEN = "the-merchants-token"
PATHS = {EntityType.PRODUCT: "products", EntityType.COLLECTION: "collections"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The token that the merchant's product service expects."""
    path = tmp_path / "service.token"
    path.write_text(TOKEN + "\n")
    return path


def register(deployment: Deployment, url: str, token_file: Path) -> None:
    """Register the merchant `shop` with the service."""
    deployment.run(
        *("merchant", "add", "shop", "--platform", "BYOP", "--currency", "GBP"),
        *("--product-service-url", url, "--product-service-token-file", str(token_file)),
    )


def everything(client: httpx2.Client, path: str) -> list[dict[str, Any]]:
    """Return all records of a list, page by page."""
    records: list[dict[str, Any]] = []
    query: dict[str, Any] = {"page_size": 7}
    while True:
        page = client.get(f"{API}/{path}", params=query).raise_for_status().json()
        records += page["data"]
        if "nextCursor" not in page["meta"]:
            return records
        query["cursor"] = page["meta"]["nextCursor"]


def as_published(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of the service in the form of the gateway's list."""
    known = {name: value for name, value in record.items() if value is not None}
    if "products" in known:
        known["productCount"] = len(known.pop("products"))
    return known


@pytest.mark.parametrize("name", REAL)
def test_every_record_of_a_real_catalog_arrives(deployment: Deployment, token_file: Path, name: str) -> None:
    """PUT, wait, and compare every record."""
    if not CATALOGS.is_dir():
        pytest.skip("the real catalogs are not beside this checkout (../shared/catalogs)")
    source = catalog_file.read(CATALOGS / name)
    arguments = ("--catalog", str(CATALOGS / name), "--token-file", str(token_file))
    with deployment.sample_service(*arguments) as service, deployment.serving("--with-worker") as url:
        register(deployment, service, token_file)
        with deployment.client(url, "shop") as client:
            for entity_type, path in PATHS.items():
                put = client.put(f"{API}/sync/{entity_type}")
                assert put.status_code == 202, put.text
                sync = ended(client, put.json()["data"])
                assert sync["status"] == "SUCCEEDED", sync
                status = client.get(f"{API}/sync/{entity_type}").json()["data"]
                assert status["numRecords"] == source.count(entity_type) == sync["result"]["created"]
                wanted = [as_published(source.record(entity_type, n)) for n in range(source.count(entity_type))]
                found = everything(client, path)
                assert found == sorted(wanted, key=lambda record: str(record["id"]))
            collection = source.record(EntityType.COLLECTION, 0)
            shown = client.get(f"{API}/collections/{collection['id']}").json()["data"]
            assert shown["productIds"] == [each["id"] for each in collection["products"]]
            assert [each["id"] for each in shown["products"]] == shown["productIds"]


def test_another_worker_continues_the_sync_of_a_killed_worker(deployment: Deployment, token_file: Path) -> None:
    """The lease expires, another worker continues after the last page, and every record is there once."""
    deployment.environment |= {"PRODUCT_GATEWAY_LEASE_SECONDS": "1", "PRODUCT_GATEWAY_PAGE_SIZE": "20"}
    arguments = ("--records", "300", "--delay", "0.1", "--token-file", str(token_file))
    with deployment.sample_service(*arguments) as service, deployment.serving() as url:
        register(deployment, service, token_file)
        with deployment.client(url, "shop") as client:
            sync = client.put(f"{API}/sync/PRODUCT").json()["data"]

            def progress() -> int:
                now: dict[str, Any] = client.get(f"{API}/syncs/{sync['id']}").json()["data"]
                return int(now["progress"]["recordsRead"])

            with deployment.process("worker") as worker:
                within(20, lambda: progress() >= 40)
                worker.send(signal.SIGKILL)
                worker.wait()
            assert client.put(f"{API}/sync/PRODUCT").status_code == 429
            with deployment.process("worker"):
                done = ended(client, sync)
            assert (done["status"], done["attempt"]) == ("SUCCEEDED", 2)
            assert done["result"] == {"created": 300, "updated": 0, "unchanged": 0, "deleted": 0, "rejected": 0}
            assert len(everything(client, "products")) == 300


def test_a_stopped_worker_releases_its_sync_at_once(sqlite_deployment: Deployment, token_file: Path) -> None:
    """Ctrl-C and a rolling upgrade release their syncs at once."""
    deployment = sqlite_deployment
    deployment.environment |= {"PRODUCT_GATEWAY_LEASE_SECONDS": "600", "PRODUCT_GATEWAY_PAGE_SIZE": "20"}
    arguments = ("--records", "100", "--delay", "0.2", "--token-file", str(token_file))
    with deployment.sample_service(*arguments) as service, deployment.serving() as url:
        register(deployment, service, token_file)
        with deployment.client(url, "shop") as client:
            sync = client.put(f"{API}/sync/PRODUCT").json()["data"]

            def status() -> str:
                return str(client.get(f"{API}/syncs/{sync['id']}").json()["data"]["status"])

            for number in (signal.SIGINT, signal.SIGTERM):
                with deployment.process("worker") as worker:
                    within(20, lambda: status() == "IN_PROGRESS")
                    worker.send(number)
                    assert worker.wait() == 0
                    assert "Traceback" not in worker.log.read_text()
                assert status() == "QUEUED"
            with deployment.process("worker"):
                assert ended(client, sync)["result"]["created"] == 100


def test_a_202_survives_the_death_of_the_server(deployment: Deployment, token_file: Path) -> None:
    """The response is sent after the commit."""
    with deployment.sample_service("--token-file", str(token_file)) as service:
        register(deployment, service, token_file)
        with deployment.process("serve", "--port", "0") as server:
            with deployment.client(server.url(), "shop") as client:
                sync = client.put(f"{API}/sync/PRODUCT").json()["data"]
            server.send(signal.SIGKILL)
            server.wait()
        with deployment.serving("--with-worker") as url, deployment.client(url, "shop") as client:
            assert ended(client, sync)["status"] == "SUCCEEDED"


def test_a_second_sync_of_a_large_catalog_changes_nothing(sqlite_deployment: Deployment, token_file: Path) -> None:
    """20,000 records in 40 pages; the second sync finds them unchanged."""
    deployment = sqlite_deployment
    deployment.environment["PRODUCT_GATEWAY_PAGE_SIZE"] = "500"
    with (
        deployment.sample_service("--records", "20000", "--token-file", str(token_file)) as service,
        deployment.serving("--with-worker") as url,
    ):
        register(deployment, service, token_file)
        with deployment.client(url, "shop") as client:
            sync = ended(client, client.put(f"{API}/sync/PRODUCT").json()["data"], 60)
            assert sync["result"]["created"] == 20000
            again = ended(client, client.put(f"{API}/sync/PRODUCT").json()["data"], 60)
            assert again["result"]["unchanged"] == 20000
