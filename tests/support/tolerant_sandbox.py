"""A sandbox in the process of the tests whose mutations can be replaced, and requests that meet every mutation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson

from product_gateway.sandbox.mutation import Mutation
from product_gateway.sandbox.runner import Options
from product_gateway.sandbox.tolerance import Tolerance
from product_gateway.sandbox.tolerance_report import Environment, sandbox
from tests.support import contract
from tests.support.deployment import API
from tests.support.webhook_receivers import Hooks, receiving

SLOW_SECONDS = 8.0


@dataclass
class Tolerant:
    """A sandbox whose mutations can be replaced, with ended, failed and active syncs."""

    environment: Environment
    tolerance: Tolerance
    hooks: Hooks
    syncs: list[str] = field(default_factory=list)  # the paths of ended syncs; the first one is of PRODUCT

    @contextmanager
    def under(self, *mutations: Mutation) -> Iterator[httpx2.Client]:
        """Activate mutations; yield a client that fails on responses that the spec does not have."""
        self.tolerance.mutations, self.tolerance.changed = mutations, type(self.tolerance.changed)()
        try:
            with self.client(documented=True) as client:
                yield client
        finally:
            self.tolerance.mutations = ()

    def client(self, *, documented: bool = False, who: str = "byop") -> httpx2.Client:
        token = orjson.loads(self.environment["SANDBOX_JSON"])["tokens"][who]
        hooks = {"response": [contract.documented] if documented else []}
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=self.environment["GATEWAY"], headers=headers, timeout=30, event_hooks=hooks)

    def enqueue(self, entity_type: str, scenario: str | None = None, who: str = "byop") -> str:
        """Enqueue a sync; return its path."""
        with self.client(who=who) as client:
            answer = client.put(f"{API}/sync/{entity_type}", headers={"Prefer": f"sync={scenario}"} if scenario else {})
            assert answer.status_code == 202, answer.text
            return str(answer.headers["Location"])

    def wait(self, place: str) -> dict[str, Any]:
        with self.client() as client:
            while (sync := client.get(place, headers={"Prefer": "wait=10"}).json()["data"])["finishedAt"] is None:
                pass
        assert isinstance(sync, dict)
        return sync


@contextmanager
def tolerant_sandbox() -> Iterator[Tolerant]:
    """Run a sandbox in this process, with two ended syncs, a failed one, and one that rejected records."""
    tolerance = Tolerance([])
    with receiving() as hooks:
        options = Options(sync_seconds=0.0, slow_seconds=SLOW_SECONDS, tolerance=tolerance, webhook=f"{hooks.url}/ok")
        with sandbox(options) as environment:
            made = Tolerant(environment, tolerance, hooks)
            for entity_type, scenario in (
                ("PRODUCT", None), ("COLLECTION", None), ("COLLECTION", "failing"), ("COLLECTION", "rejecting"),
            ):  # fmt: skip
                made.syncs.append(made.enqueue(entity_type, scenario))
                made.wait(made.syncs[-1])
            while len(hooks.messages) < 4:
                time.sleep(0.02)
            yield made


def conversation(tolerant: Tolerant, client: httpx2.Client) -> None:
    """Send requests to every operation of the API that any mutation concerns. The client checks the responses."""
    assert client.get(f"{API}/syncs").status_code == 200
    for sync in tolerant.syncs:
        for more in ("", "/problems"):
            assert client.get(f"{sync}{more}", headers={"Prefer": "wait=20"}).status_code == 200
    assert client.get(f"{tolerant.syncs[0]}/changes").status_code == 200
    assert client.post(f"{tolerant.syncs[0]}/publish").status_code == 412
    for entity_type, path in (("PRODUCT", "products"), ("COLLECTION", "collections")):
        assert client.get(f"{API}/sync/{entity_type}").status_code == 200
        page = client.get(f"{API}/{path}?page_size=20")
        again = client.get(f"{API}/{path}?page_size=20", headers={"If-None-Match": page.headers["ETag"]})
        assert again.status_code == 304, "a changed ETag still works"
        assert client.get(f"{API}/{path}/{page.json()['data'][0]['id']}").status_code == 200
        assert client.get(f"{API}/changes/{entity_type}?page_size=20").status_code == 200
        assert client.head(f"{API}/{path}").status_code == 200
    assert client.get(f"{API}/products?page_size=0").status_code == 400
    assert client.get(f"{API}/products", headers={"Authorization": "Bearer x"}).status_code == 401
    assert client.get(f"{API}/products/unknown").status_code == 404
    with tolerant.client(documented=True, who="otherByop") as other:
        other.delete(f"{API}/sync/PRODUCT")  # an earlier one, which may be about to end
        other.put(f"{API}/sync/PRODUCT", headers={"Prefer": "sync=slow"})
        assert other.put(f"{API}/sync/PRODUCT").status_code == 429
