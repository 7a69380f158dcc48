"""docs/replica.md: the program keeps a replica that equals the catalog."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from product_gateway.auth import keys
from product_gateway.db import generations
from product_gateway.db.database import open_database
from tests.support.deployment import API, Deployment, within
from tests.support.markdown import TOP
from tests.support.merchants import open_shops
from tests.support.scripted_answers import Merchant, item, page_of
from tests.support.serving import serve

PATIENCE = 30
[PROGRAM] = re.findall(r"^```python\n(.*?)^```$", (TOP / "docs" / "replica.md").read_text(), re.MULTILINE | re.DOTALL)


class Shop:
    """A merchant's product service, and its catalog in a gateway."""

    def __init__(self, gateway: httpx2.Client, service: Merchant) -> None:
        self._gateway = gateway
        self._service = service

    def sync(self, **titles: str) -> None:
        """Run a sync of products with these ids and titles."""
        self._service.says(page_of(*(item(name, title=title) for name, title in titles.items())))
        location = self._gateway.put(f"{API}/sync/PRODUCT").headers["location"]
        assert within(PATIENCE, lambda: "SUCCEEDED" in self._gateway.get(location).text)

    def catalog(self) -> dict[str, Any]:
        """Return the published products by id."""
        found: dict[str, Any] = {}
        cursor: str | None = ""
        while cursor is not None:
            page = self._gateway.get(f"{API}/products?page_size=500{cursor}").json()
            found |= {each["id"]: each for each in page["data"]}
            cursor = f"&cursor={page['meta']['nextCursor']}" if "nextCursor" in page["meta"] else None
        return found


@pytest.fixture
def shop(sqlite_deployment: Deployment) -> Iterator[Shop]:
    """A gateway with a worker; the program finds it in the environment."""
    service = Merchant()
    with serve(service) as service_url, sqlite_deployment.serving("--with-worker") as url:
        open_shops(sqlite_deployment, service_url, ["shop"])
        token = keys.issue_token(sqlite_deployment.settings(), "shop", list(keys.SCOPES), timedelta(hours=1))
        sqlite_deployment.environment |= {"GATEWAY": url, "TOKEN": token}
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
            yield Shop(client, service)


def replica(folder: Path) -> dict[str, Any]:
    """Return the replicated products by id; none before the program has made its table."""
    with closing(sqlite3.connect(folder / "replica.db")) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'products'").fetchone():
            return {}
        return {name: json.loads(text) for name, text in database.execute("SELECT id, product FROM products")}


@pytest.fixture
def program(sqlite_deployment: Deployment, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start the page's program."""
    (tmp_path / "replica.py").write_text(PROGRAM)
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | sqlite_deployment.environment
        with (tmp_path / "said").open("a") as said:
            command = [sys.executable, "replica.py"]
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


def test_the_program_keeps_a_replica_also_after_it_was_killed_and_was_away_for_too_long(
    shop: Shop,
    program: Callable[[], subprocess.Popen[bytes]],
    sqlite_deployment: Deployment,
    tmp_path: Path,
) -> None:
    """The replica equals the catalog after each sync."""
    shop.sync(**{f"p{n}": "Hat" for n in range(600)})
    running = program()
    within(PATIENCE, lambda: replica(tmp_path) == shop.catalog())
    shop.sync(**{f"p{n}": "Cap" for n in range(599)}, new="Shoe")
    assert len(shop.catalog()) == 600
    within(PATIENCE, lambda: replica(tmp_path) == shop.catalog())
    stop(running)
    shop.sync(**{f"p{n}": "Cap" for n in range(400)})
    running = program()
    within(PATIENCE, lambda: replica(tmp_path) == shop.catalog())
    stop(running)
    shop.sync(**{f"p{n}": "Cap" for n in range(300)})
    shop.sync(**{f"p{n}": "Cup" for n in range(300)})
    with open_database(sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        while database.call(generations.prune, 0.0, 1000):
            pass
    program()
    within(PATIENCE, lambda: replica(tmp_path) == shop.catalog())
    assert (tmp_path / "said").read_text().startswith("410 ")


def stop(running: subprocess.Popen[bytes]) -> None:
    """Kill the program, as a power cut does."""
    running.kill()
    running.wait()
