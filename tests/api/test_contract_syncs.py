"""The HTTP contract of syncs, from the PUT to the end."""

import itertools
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from product_gateway.db import freshness
from product_gateway.model.syncs import EntityType
from tests.support.contract import Gateway, error, gateway
from tests.support.deployment import API, Deployment, ended, within
from tests.support.max_ages import set_back

PRODUCT, COLLECTION = f"{API}/sync/PRODUCT", f"{API}/sync/COLLECTION"


numbers = itertools.count(1)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a product service where a sync takes longer than all tests here."""
    with Deployment(tmp_path_factory.mktemp("slow"), "").sample_service("--records", "100000", "--delay", "0.2") as url:
        yield url


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a product service with the sample catalog."""
    with Deployment(tmp_path_factory.mktemp("quick"), "").sample_service() as url:
        yield url


@pytest.fixture(scope="module")
def served(slow: str, quick: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway with a worker; the merchant `slow` has one sync in progress and one queued."""
    folder = tmp_path_factory.mktemp("contract_syncs")
    shutil.copy(sqlite_template, folder / "gateway.db")
    settings = {"page_size": "5", "max_page_size": "5", "syncs_per_merchant": "1", "worker_concurrency": "100"}
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", "--with-worker", **settings) as served:
        served.add("shop", quick)
        served.add("slow", slow)
        with served.of("slow") as client:
            for path in (PRODUCT, COLLECTION):
                assert client.put(path).status_code == 202
            within(20, lambda: sync_of(client)["status"] == "IN_PROGRESS")
        yield served


@pytest.fixture
def fresh(served: Gateway, slow: str) -> str:
    """Return a new merchant: its sync stays active."""
    name = f"fresh-{next(numbers)}"
    served.add(name, slow)
    return name


def sync_of(client: httpx2.Client, entity_type: str = "PRODUCT") -> dict[str, Any]:
    """Return the latest sync of the entity type."""
    found: dict[str, Any] = client.get(f"{API}/syncs", params={"entityType": entity_type}).json()["data"][0]
    return found


def test_an_accepted_sync_has_location_and_retry_after(served: Gateway, fresh: str) -> None:
    """`Location` leads to the same sync."""
    with served.of(fresh) as client:
        answer = client.put(PRODUCT)
        assert answer.status_code == 202
        sync = answer.json()["data"]
        assert answer.headers["Location"] == f"{API}/syncs/{sync['id']}"
        assert int(answer.headers["Retry-After"]) >= 1
        assert "Link" not in answer.headers
        assert (sync["entityType"], sync["status"], sync["attempt"]) == ("PRODUCT", "QUEUED", 0)
        assert answer.json()["meta"] == {}
        found = client.get(answer.headers["Location"])
        assert (found.status_code, found.json()["data"]["id"]) == (200, sync["id"])


@pytest.mark.parametrize(("path", "entity_type", "status"), [
    (PRODUCT, "PRODUCT", "IN_PROGRESS"),
    (COLLECTION, "COLLECTION", "QUEUED"),
])  # fmt: skip
def test_a_second_sync_is_429_with_a_link_to_the_first(
    served: Gateway, path: str, entity_type: str, status: str
) -> None:
    """Queued or in progress; the client can wait for it."""
    with served.of("slow") as client:
        answer = client.put(path)
        active = sync_of(client, entity_type)
        assert error(answer, 429) == (
            f"Sync {active['id']} of {entity_type} is {status}. Only one sync per entity type may be queued or in "
            "progress; wait for it to end."
        )
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Link"] == f'<{API}/syncs/{active["id"]}>; rel="monitor"'


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", b"{nonsense"),
        ("application/json", b"[" * 100000),
        ("application/json", b'{"merchant": "other", "entityType": "COLLECTION"}'),
        ("application/json; charset=nonsense", b"\xff\xfe"),
        ("text/plain", b"hello"),
        ("multipart/form-data", b"no boundary"),
        ("nonsense", b""),
        (None, b"?"),
        ("application/json", [b"in", b"chunks"]),
        ("application/json", [b"x" * 65536] * 40),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_body_is_ignored(served: Gateway, fresh: str, media_type: str | None, body: Any) -> None:
    """PUT has none: only the path counts."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    with served.of(fresh) as client:
        answer = client.put(PRODUCT, content=iter(body) if isinstance(body, list) else body, headers=headers)
        assert (answer.status_code, answer.json()["data"]["entityType"]) == (202, "PRODUCT")
        assert client.put(PRODUCT).status_code == 429  # the connection goes on in good order


def test_before_the_first_sync_the_status_is_404_with_the_state(served: Gateway, fresh: str) -> None:
    """The detail tells a client to wait, to request a sync or to see why it failed."""
    never = "No sync of PRODUCT has succeeded yet."
    with served.of(fresh) as client:
        assert error(client.get(PRODUCT), 404) == (
            f"{never} None has been asked for: PUT /product-gateway/v1/sync/PRODUCT starts one."
        )
    with served.of("slow") as client:
        assert error(client.get(PRODUCT), 404) == f"{never} Sync {sync_of(client)['id']} is running."
        queued = sync_of(client, "COLLECTION")["id"]
        assert error(client.get(COLLECTION), 404) == (
            f"No sync of COLLECTION has succeeded yet. Sync {queued} is queued."
        )


def test_a_failed_sync_has_a_reason(served: Gateway, quick: str) -> None:
    """The status stays 404, and the next sync may be requested."""
    served.add("stranger", quick, token="")
    with served.of("stranger") as client:
        done = ended(client, client.put(PRODUCT).json()["data"])
        assert (done["status"], done["failure"]["code"]) == ("FAILED", "PRODUCT_SERVICE_UNAUTHORIZED")
        assert error(client.get(PRODUCT), 404) == (
            f"No sync of PRODUCT has succeeded yet. The last one, sync {done['id']}, ended FAILED; none is queued "
            "or running."
        )
        assert "Retry-After" not in client.get(f"{API}/syncs/{done['id']}").headers
        assert client.put(PRODUCT).status_code == 202


def test_after_a_sync_the_status_has_time_and_number_of_records(served: Gateway) -> None:
    """The contract's three members, and the latest sync in meta."""
    with served.of("shop") as client:
        done = ended(client, client.put(COLLECTION).json()["data"])
        body = client.get(COLLECTION).json()
        assert body["data"] == {"entityType": "COLLECTION", "updatedAt": done["finishedAt"], "numRecords": 5}
        assert body["meta"]["sync"] == done
        assert (done["status"], done["progress"]["percent"], done["failure"]) == ("SUCCEEDED", 100, None)
        assert done["result"] == {"created": 5, "updated": 0, "unchanged": 0, "deleted": 0, "rejected": 0}


def test_the_status_says_until_when_the_catalog_is_fresh(served: Gateway, quick: str) -> None:
    """Only where the operator has set a max age for the entity type."""
    served.add("aging", quick)
    with served.of("aging") as client, served.database() as database:
        database.call(freshness.put, "aging", {EntityType.PRODUCT: 3600})
        assert "max" not in error(client.get(PRODUCT), 404)
        done = ended(client, client.put(PRODUCT).json()["data"])
        meta = client.get(PRODUCT).json()["meta"]
        lasted = datetime.fromisoformat(meta["staleAfter"]) - datetime.fromisoformat(done["finishedAt"])
        assert (meta["fresh"], lasted) == (True, timedelta(hours=1))
        set_back(database, 3601)
        meta = client.get(PRODUCT).json()["meta"]
        assert (meta["fresh"], meta["sync"]) == (False, done)
        ended(client, client.put(COLLECTION).json()["data"])
        assert client.get(COLLECTION).json()["meta"].keys() == {"sync", "generation"}


def test_an_active_sync_has_retry_after(served: Gateway) -> None:
    """Clients poll at the pace of the sync."""
    with served.of("slow") as client:
        for entity_type in ("PRODUCT", "COLLECTION"):
            answer = client.get(f"{API}/syncs/{sync_of(client, entity_type)['id']}")
            assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("suffix", ["", "/problems"])
def test_a_sync_of_another_merchant_is_404(served: Gateway, fresh: str, suffix: str) -> None:
    """The same response as for an unknown id."""
    unknown = "019364f0-7c1e-7a10-9a6b-3f1f5f0c9a11"
    with served.of("slow") as client:
        theirs = sync_of(client)["id"]
        assert client.get(f"{API}/syncs/{theirs}{suffix}").status_code == 200
    with served.of(fresh) as client:
        foreign = error(client.get(f"{API}/syncs/{theirs}{suffix}"), 404)
        assert foreign.replace(theirs, unknown) == error(client.get(f"{API}/syncs/{unknown}{suffix}"), 404)
        assert client.get(f"{API}/syncs").json()["data"] == []


def test_a_cancelled_sync_makes_room_for_the_next(served: Gateway, fresh: str) -> None:
    """At once, without waiting for the worker."""
    with served.of(fresh) as client:
        assert "nothing to cancel" in error(client.delete(PRODUCT), 404)
        first = client.put(PRODUCT).json()["data"]
        answer = client.delete(PRODUCT)
        assert (answer.status_code, answer.json()["data"]["status"]) == (202, "CANCELLED")
        assert answer.headers["Location"] == f"{API}/syncs/{first['id']}"
        assert client.get(answer.headers["Location"]).json()["data"] == answer.json()["data"]
        assert client.put(PRODUCT).json()["data"]["id"] != first["id"]


def test_the_same_idempotency_key_returns_the_same_sync(served: Gateway, fresh: str) -> None:
    """A client that lost the response can retry."""
    with served.of(fresh) as client:
        first = client.put(PRODUCT, headers={"Idempotency-Key": "one"})
        again = client.put(PRODUCT, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()["data"]["id"]) == (202, first.json()["data"]["id"])
        assert again.headers["Location"] == first.headers["Location"]
        error(client.put(PRODUCT, headers={"Idempotency-Key": "two"}), 429)
        assert "a sync of PRODUCT already" in error(client.put(COLLECTION, headers={"Idempotency-Key": "one"}), 400)
        manual = client.put(f"{PRODUCT}?publish=manual", headers={"Idempotency-Key": "one"})
        assert "a sync of PRODUCT with publish=automatic already" in error(manual, 400)
        for wrong in ("", "with space", "x" * 256):
            assert error(client.put(PRODUCT, headers={"Idempotency-Key": wrong}), 400).startswith("Header Idempot")
    with served.of("shop") as other:
        key = {"Idempotency-Key": "one"}
        assert other.put(PRODUCT, headers=key).json()["data"]["id"] != first.json()["data"]["id"]


def test_the_history_is_paged_newest_first(served: Gateway, fresh: str) -> None:
    """No sync is skipped or repeated, with and without filters."""
    with served.of(fresh) as client:
        asked = []
        for path in (PRODUCT, COLLECTION, PRODUCT, PRODUCT, COLLECTION):
            asked.append(client.put(path).json()["data"]["id"])
            client.delete(path)
        last = client.put(PRODUCT).json()["data"]["id"]
        everything, products = [last, *reversed(asked)], [last, asked[3], asked[2], asked[0]]
        for query, wanted in (
            ({}, everything),
            ({"entityType": "PRODUCT"}, products),
            ({"status": "CANCELLED"}, everything[1:]),
            ({"status": "SUCCEEDED"}, []),
        ):
            found: list[str] = []
            cursor: dict[str, Any] = {}
            while True:
                page = client.get(f"{API}/syncs", params={**query, **cursor, "page_size": 2}).json()
                found += [each["id"] for each in page["data"]]
                if "nextCursor" not in page["meta"]:
                    break
                cursor = {"cursor": page["meta"]["nextCursor"]}
            assert found == wanted
