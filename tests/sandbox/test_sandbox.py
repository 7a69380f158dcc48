"""The sandbox: preferences, scenarios and faults, all of which a production gateway ignores."""

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sandbox.examples import OMITTED_HEADERS
from product_gateway.sandbox.pytest_plugin import Answer, Sandbox
from product_gateway.sandbox.scenarios import Run, Scenario, Scenarios
from tests.support.deployment import API, ENDS_WITHIN, Deployment, ended
from tests.support.sandbox_process import started

DOCUMENT = documents.load(documents.GATEWAY)
OPERATIONS = list(documents.operations(DOCUMENT))
PUT = f"{API}/sync/PRODUCT"
REAL = {
    "entityType": "PRODUCT",
    "syncId": "019364f0-7c1e-7a10-9a6b-3f1f5f0c9a11",
    "name": "docs.js",
    "page": "README.md",
}


@pytest.fixture
def sandbox(product_gateway_sandbox: Sandbox) -> Sandbox:
    """The plugin's sandbox, without active syncs."""
    for who in ("byop", "otherByop"):
        for each in EntityType:
            product_gateway_sandbox.request("DELETE", f"/sync/{each}", who=who)
    return product_gateway_sandbox


def path_of(template: str) -> str:
    """Return the path with valid parameters."""
    for name, value in REAL.items():
        template = template.replace(f"{{{name}}}", value)
    return template.replace("{productId}", "p").replace("{collectionId}", "c")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None], ids=["SIGTERM", "Ctrl-C", "end of input"])
def test_the_sandbox_prints_one_line_and_deletes_its_folder(tmp_path: Path, number: signal.Signals | None) -> None:
    """Test runs start many of them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    with started(folder, *([] if number else ["--until-eof"])) as (process, sandbox):
        assert len(list(folder.iterdir())) == 1
        assert sandbox.request("PUT", "/sync/PRODUCT", prefer="sync=slow").status == 202  # which is still running
        if number is None:
            assert process.stdin
            process.stdin.close()
        else:
            process.send_signal(number)
        assert process.wait(ENDS_WITHIN) == 0
        assert process.stdout
        assert process.stdout.read() == ""
    assert list(folder.iterdir()) == []
    assert (tmp_path / "errors.log").read_text() == ""


def test_the_environment_of_a_production_gateway_is_ignored(tmp_path: Path) -> None:
    """A developer's shell may name a real database. Also covers latency and fault injection."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as shell:
        shell.setenv("PRODUCT_GATEWAY_DATABASE_URL", f"sqlite:///{tmp_path}/production.db")
        shell.setenv("PRODUCT_GATEWAY_DATA_DIR", str(tmp_path / "production"))
        shell.setenv("PRODUCT_GATEWAY_JWKS_URL", "https://id.example/keys")
        with started(folder, "--latency", "0.1", "--fault-percent", "50") as (_, sandbox):
            began = time.monotonic()
            answers = [sandbox.request("GET", "/products") for _ in range(20)]
            assert time.monotonic() - began >= 2
            assert {each.status for each in answers} == {200, 500, 503}
            assert all(each.headers.get("retry-after") for each in answers if each.status == 503)
            assert (
                sandbox.request("GET", "/products", prefer="code=404").status == 400
            )  # a preference is never replaced by a fault
    assert not list(tmp_path.glob("production*"))


def test_each_token_gets_the_status_of_its_name(sandbox: Sandbox) -> None:
    """Clients need no keys to test refusals."""
    statuses = {who: sandbox.request("PUT", "/sync/COLLECTION", who=who).status for who in sandbox.tokens}
    assert statuses == {"byop": 202, "otherByop": 202, "notByop": 403, "readOnly": 403, "expired": 401}
    assert sandbox.request("GET", "/syncs", who="readOnly").status == 200
    assert [each["platform"] for each in sandbox.merchants] == ["BYOP", "BYOP", "BENTO"]


def test_every_documented_status_of_every_operation_has_an_example(sandbox: Sandbox) -> None:
    """Clients can test responses that are hard to provoke, with body and headers."""
    for template, method, operation in OPERATIONS:
        for status, reference in operation["responses"].items():
            response = documents.resolve(DOCUMENT, reference)
            answer = raw(sandbox, method, path_of(template), f"code={status}")
            assert answer.status == int(status), (template, method, status)
            assert answer.headers["preference-applied"] == f"code={status}"
            assert {name.lower() for name in response["headers"] if name not in OMITTED_HEADERS} <= set(answer.headers)
            content = next(iter(response.get("content", {}).values()), None)
            if content:
                several = content.get("examples")
                assert answer.body == (next(iter(several.values()))["value"] if several else content["example"])


def raw(sandbox: Sandbox, method: str, path: str, prefer: str) -> Answer:
    """Send a request to any path. Parse a JSON body."""
    request = urllib.request.Request(sandbox.base_url + path, method=method.upper(), headers={"Prefer": prefer})
    try:
        reply = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        text = reply.read().decode()
        is_json = reply.headers.get_content_type() in ("application/json", "application/yaml")  # of JSON here
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Answer(reply.status, headers, json.loads(text) if text and is_json else text)


def test_examples_have_the_headers_that_clients_use(sandbox: Sandbox) -> None:
    """Retry-After, Link, Location and WWW-Authenticate decide what a client does next."""
    wanted = {202: "location", 401: "www-authenticate", 429: "link", 503: "retry-after"}
    for status, name in wanted.items():
        assert sandbox.request("PUT", "/sync/PRODUCT", prefer=f"code={status}").headers[name]
    request_id = sandbox.request("PUT", "/sync/PRODUCT", prefer="code=503").headers["x-request-id"]
    assert request_id != sandbox.request("PUT", "/sync/PRODUCT", prefer="code=503").headers["x-request-id"]


@pytest.mark.parametrize("code", ["418", "200", "abc", '""', "99999999999999999999"])
def test_an_undocumented_status_is_refused(sandbox: Sandbox, code: str) -> None:
    """A client test for a status that the gateway never sends is wrong."""
    answer = sandbox.request("PUT", "/sync/PRODUCT", prefer=f"code={code}")
    assert answer.status == 400
    assert "enqueueSync documents 202, 400, 401" in answer.body["error"][0]["detail"]
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("prefer", ["Code=503", 'wait=1, code="503"', "respond-async; x=1 , CODE = 503, code=500"])
def test_preferences_are_parsed_by_rfc_7240(sandbox: Sandbox, prefer: str) -> None:
    """Names in any case, quoted values, other preferences, and the first of equal names."""
    assert sandbox.request("GET", "/products", prefer=prefer).headers["preference-applied"] == "code=503"


def test_an_unknown_scenario_is_refused_with_the_known_ones(sandbox: Sandbox) -> None:
    """No sync is enqueued."""
    answer = sandbox.request("PUT", "/sync/PRODUCT", prefer="sync=exploding")
    assert answer.status == 400
    detail = answer.body["error"][0]["detail"]
    assert "slow, failing, rejecting, lost-worker, mass-deletion, changing" in detail
    assert sandbox.request("DELETE", "/sync/PRODUCT").status == 404


def test_a_second_put_is_refused_during_a_slow_sync(sandbox: Sandbox) -> None:
    """The 429 is the gateway's own, with Retry-After and a link to the sync."""
    sync = sandbox.enqueue(script="slow")
    refused = sandbox.request("PUT", "/sync/PRODUCT", prefer="sync=failing")
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["link"] == f'<{sync}>; rel="monitor"'
    assert "preference-applied" not in refused.headers
    ended = sandbox.wait(sync)
    assert ended["status"] == "SUCCEEDED", "the scenario of a refused PUT must not replace that of the active sync"
    assert sandbox.request("GET", "/sync/PRODUCT").body["data"]["numRecords"] == 24


@pytest.mark.parametrize("entity_type", list(EntityType))
def test_a_sync_follows_its_scenario(sandbox: Sandbox, entity_type: EntityType) -> None:
    """The real worker reads real pages, so codes and counts are those of production."""
    endings: dict[Scenario, dict[str, Any]] = {}
    for script in (
        Scenario.MASS_DELETION,
        Scenario.FAILING,
        Scenario.REJECTING,
        Scenario.LOST_WORKER,
        Scenario.ORDINARY,
    ):
        answer = sandbox.request("PUT", f"/sync/{entity_type}", prefer=f"sync={script}", who="otherByop")
        assert answer.status == 202
        assert answer.headers.get("preference-applied") == (None if script is Scenario.ORDINARY else f"sync={script}")
        endings[script] = sandbox.wait(answer.headers["location"], who="otherByop")
    held = 24 if entity_type is EntityType.PRODUCT else 29
    assert failure_of(endings[Scenario.MASS_DELETION]) == "MASS_DELETION"
    assert failure_of(endings[Scenario.FAILING]) == "PRODUCT_SERVICE_ERROR"
    rejecting, lost, ordinary = (
        endings[each] for each in (Scenario.REJECTING, Scenario.LOST_WORKER, Scenario.ORDINARY)
    )
    assert (rejecting["status"], rejecting["result"]["rejected"]) == ("SUCCEEDED", 2)
    (group,) = sandbox.request("GET", f"/syncs/{rejecting['id']}/problems", who="otherByop").body["data"]
    assert [each["pointer"] for each in group["samples"]] == ["/title", "/description"]
    assert (lost["status"], lost["attempt"], lost["progress"]["recordsRead"]) == ("SUCCEEDED", 2, held)
    assert (ordinary["status"], ordinary["attempt"], ordinary["result"]["rejected"]) == ("SUCCEEDED", 1, 0)
    status = sandbox.request("GET", f"/sync/{entity_type}", who="otherByop").body["data"]
    assert status["numRecords"] == held, "a mass deletion that was refused removes nothing"


def failure_of(sync: dict[str, Any]) -> str:
    assert sync["status"] == "FAILED", sync
    return str(sync["failure"]["code"])


def test_a_mass_deletion_runs_an_ordinary_sync_first(sandbox: Sandbox) -> None:
    """An empty catalog has no records to delete. The ordinary sync is in the history."""
    assert failure_of(sandbox.wait(sandbox.enqueue("COLLECTION", script="mass-deletion"))) == "MASS_DELETION"
    history = sandbox.request("GET", "/syncs?entityType=COLLECTION").body["data"]
    assert "SUCCEEDED" in [each["status"] for each in history]
    for who, status in (("notByop", 403), ("readOnly", 403), ("expired", 401)):
        answer = sandbox.request("PUT", "/sync/COLLECTION", prefer="sync=mass-deletion", who=who)
        assert answer.status == status, "a preference must not bypass authorization"


@pytest.mark.parametrize("entity_type", list(EntityType))
def test_a_client_that_follows_the_feed_sees_each_kind_of_change(sandbox: Sandbox, entity_type: EntityType) -> None:
    """`sync=changing` updates, creates and deletes one record each; a revert brings the catalog before it back."""
    feed, member = f"/changes/{entity_type}", entity_type.lower()
    assert sandbox.wait(sandbox.enqueue(entity_type))["publication"] == "PUBLISHED"
    place = sandbox.request("GET", f"{feed}?page_size=500").body["meta"]["nextCursor"]
    changing = sandbox.wait(sandbox.enqueue(entity_type, script="changing"))
    page = sandbox.request("GET", f"{feed}?cursor={place}").body
    updated, created, deleted = (
        next(each for each in page["data"] if each["change"] == kind) for kind in ("UPDATED", "CREATED", "DELETED")
    )
    assert len(page["data"]) == 3
    assert updated[member]["title"].endswith(" (changed)")
    assert (created["id"], deleted[member]) == (f"{deleted['id']}-new", None)
    assert sandbox.request("GET", f"/syncs/{changing['id']}/changes").body["data"] == page["data"]
    place = page["meta"]["nextCursor"]
    revert = sandbox.request("POST", f"/syncs/{changing['id']}/revert")
    assert sandbox.wait(revert.headers["location"])["reverts"] == changing["id"]
    undone = sandbox.request("GET", f"{feed}?cursor={place}", prefer="wait=1").body["data"]
    assert {each["change"]: each["id"] for each in undone} == {
        "UPDATED": updated["id"], "CREATED": deleted["id"], "DELETED": created["id"]
    }  # fmt: skip


def test_a_mass_deletion_can_be_reviewed_and_is_published_or_discarded(sandbox: Sandbox) -> None:
    """With publish=manual it is no failure."""
    prefer = "sync=mass-deletion"
    for action, publication in (("discard", "DISCARDED"), ("publish", "PUBLISHED")):
        answer = sandbox.request("PUT", "/sync/PRODUCT?publish=manual", prefer=prefer, who="otherByop")
        staged = sandbox.wait(answer.headers["location"], who="otherByop")
        assert (staged["status"], staged["publication"], staged["result"]["deleted"]) == ("SUCCEEDED", "STAGED", 22)
        assert sandbox.request("GET", "/sync/PRODUCT", who="otherByop").body["data"]["numRecords"] == 24
        acted = sandbox.request("POST", f"/syncs/{staged['id']}/{action}", who="otherByop")
        assert (acted.status, acted.body["data"]["publication"]) == (200, publication)
        assert sandbox.request("POST", f"/syncs/{staged['id']}/{action}", who="otherByop").status == 412
    assert sandbox.request("GET", "/sync/PRODUCT", who="otherByop").body["data"]["numRecords"] == 2
    sandbox.wait(sandbox.enqueue(who="otherByop"), who="otherByop")


async def test_the_current_scenario_is_that_of_the_newest_sync_once_no_put_is_pending() -> None:
    """An Idempotency-Key returns an earlier sync, and a worker may claim a sync before the PUT is answered."""
    scenarios = Scenarios()
    old, new = (f"019364f0-7c1e-7a10-9a6b-3f1f5f0c9a1{n}" for n in (1, 2))
    scenarios.begin(Run("shop", EntityType.PRODUCT, new, Scenario.SLOW))
    scenarios.begin(Run("shop", EntityType.PRODUCT, old, Scenario.FAILING))
    scenarios.begin(Run("shop", EntityType.PRODUCT, new, Scenario.FAILING))
    assert (await scenarios.current("shop", EntityType.PRODUCT)).scenario is Scenario.SLOW
    assert (await scenarios.current("shop", EntityType.COLLECTION)).scenario is Scenario.ORDINARY
    with scenarios.pending(("shop", "PRODUCT")):
        looking = asyncio.create_task(scenarios.current("shop", EntityType.PRODUCT))
        await asyncio.sleep(0.05)
        assert not looking.done()
        scenarios.begin(Run("shop", EntityType.PRODUCT, "119364f0", Scenario.REJECTING))
    assert (await looking).scenario is Scenario.REJECTING


def test_a_production_gateway_ignores_the_preferences(sqlite_deployment: Deployment) -> None:
    """A client may send the preferences of its tests in production, too."""
    with sqlite_deployment.sample_service() as service:
        (sqlite_deployment.folder / "service.token").write_text("any")
        add = f"merchant add shop --platform BYOP --product-service-url {service} --product-service-token-file"
        sqlite_deployment.run(*add.split(), str(sqlite_deployment.folder / "service.token"))
        with sqlite_deployment.serving("--with-worker") as url, sqlite_deployment.client(url, "shop") as client:
            assert client.get(f"{API}/products", headers={"Prefer": "code=503"}).status_code == 200
            assert client.get(f"{API}/products", headers={"Prefer": "code=418"}).status_code == 200
            for preference in ("code=503", "sync=failing", "sync=rejecting", "sync=mass-deletion", "sync=exploding"):
                answer = client.put(PUT, headers={"Prefer": preference})
                assert answer.status_code == 202
                assert "preference-applied" not in answer.headers
                sync = ended(client, answer.json()["data"])
                assert (sync["status"], sync["attempt"], sync["result"]["rejected"]) == ("SUCCEEDED", 1, 0)
            assert client.get(PUT).json()["data"]["numRecords"] == 24
