"""The sandbox: what a client can rehearse with it, for real; nothing of it is heeded by a production gateway."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sandbox.examples import OMITTED_HEADERS
from product_gateway.sandbox.pytest_plugin import Answer, Sandbox
from product_gateway.sandbox.scenarios import Run, Scenario, Scenarios
from tests.support.deployment import API, ENDS_WITHIN, Deployment, ended

DOCUMENT = documents.load(documents.GATEWAY)
OPERATIONS = list(documents.operations(DOCUMENT))
PUT = f"{API}/sync/PRODUCT"
REAL = {"entityType": "PRODUCT", "syncId": "019364f0-7c1e-7a10-9a6b-3f1f5f0c9a11", "name": "docs.js"}


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", Sandbox]]:
    """A sandbox of one's own, whose temporary folder is in `folder`."""
    command = [sys.executable, "-m", "product_gateway", "sandbox", "--port", "0", *options]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with (
        (folder.parent / "errors.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdin=PIPE, stdout=PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout
            said = process.stdout.readline()
            assert said, f"the sandbox has exited: {Path(log.name).read_text()}"
            yield process, Sandbox(json.loads(said))
        finally:
            process.kill()


@pytest.fixture
def sandbox(product_gateway_sandbox: Sandbox) -> Sandbox:
    """The one of the plugin, with nothing active."""
    for who in ("byop", "otherByop"):
        for each in EntityType:
            product_gateway_sandbox.request("DELETE", f"/sync/{each}", who=who)
    return product_gateway_sandbox


def path_of(template: str) -> str:
    """The path with something that fits for each of its parameters."""
    for name, value in REAL.items():
        template = template.replace(f"{{{name}}}", value)
    return template.replace("{productId}", "p").replace("{collectionId}", "c")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None], ids=["SIGTERM", "Ctrl-C", "end of input"])
def test_it_says_one_line_and_leaves_nothing_behind(tmp_path: Path, number: signal.Signals | None) -> None:
    """Whoever starts it reads where it is, and has nothing to tidy up."""
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


def test_what_the_environment_says_of_a_production_gateway_is_not_heeded(tmp_path: Path) -> None:
    """A developer's shell has the address of a database in it: a rehearsal must not touch that. Latency and faults are
    the sandbox's own."""
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
            assert sandbox.request("GET", "/products", prefer="code=404").status == 400  # what was wished for, always
    assert not list(tmp_path.glob("production*"))


def test_each_token_is_answered_as_its_name_says(sandbox: Sandbox) -> None:
    """Nobody has to make tokens up to see a refusal."""
    statuses = {who: sandbox.request("PUT", "/sync/COLLECTION", who=who).status for who in sandbox.tokens}
    assert statuses == {"byop": 202, "otherByop": 202, "notByop": 403, "readOnly": 403, "expired": 401}
    assert sandbox.request("GET", "/syncs", who="readOnly").status == 200
    assert [each["platform"] for each in sandbox.merchants] == ["BYOP", "BYOP", "BENTO"]


def test_every_documented_status_of_every_operation_can_be_had(sandbox: Sandbox) -> None:
    """With the example's body and all documented headers: what no test could provoke is rehearsed all the same."""
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
    """An answer whatever its path is, its body parsed where it is JSON."""
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


def test_the_examples_headers_are_those_that_a_client_acts_on(sandbox: Sandbox) -> None:
    """Retry-After, Link, Location and WWW-Authenticate are why somebody wants the example."""
    wanted = {202: "location", 401: "www-authenticate", 429: "link", 503: "retry-after"}
    for status, name in wanted.items():
        assert sandbox.request("PUT", "/sync/PRODUCT", prefer=f"code={status}").headers[name]
    request_id = sandbox.request("PUT", "/sync/PRODUCT", prefer="code=503").headers["x-request-id"]
    assert request_id != sandbox.request("PUT", "/sync/PRODUCT", prefer="code=503").headers["x-request-id"]


@pytest.mark.parametrize("code", ["418", "200", "abc", '""', "99999999999999999999"])
def test_what_no_operation_documents_cannot_be_had(sandbox: Sandbox, code: str) -> None:
    """A test that rehearses what the gateway never answers is wrong, and is told so."""
    answer = sandbox.request("PUT", "/sync/PRODUCT", prefer=f"code={code}")
    assert answer.status == 400
    assert "enqueueSync documents 202, 400, 401" in answer.body["error"][0]["detail"]
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("prefer", ["Code=503", 'wait=1, code="503"', "respond-async; x=1 , CODE = 503, code=500"])
def test_preferences_are_read_as_rfc_7240_has_them(sandbox: Sandbox, prefer: str) -> None:
    """Names in any case, values in quotes, others beside them, the first of a name."""
    assert sandbox.request("GET", "/products", prefer=prefer).headers["preference-applied"] == "code=503"


def test_a_script_that_does_not_exist_is_refused_with_those_that_do(sandbox: Sandbox) -> None:
    """And nothing is enqueued."""
    answer = sandbox.request("PUT", "/sync/PRODUCT", prefer="sync=exploding")
    assert answer.status == 400
    detail = answer.body["error"][0]["detail"]
    assert "slow, failing, rejecting, lost-worker, mass-deletion" in detail
    assert sandbox.request("DELETE", "/sync/PRODUCT").status == 404


def test_a_slow_sync_is_in_the_way_for_a_while(sandbox: Sandbox) -> None:
    """The 429 is the gateway's own: with Retry-After and the way to the sync, and progress to be seen there."""
    sync = sandbox.enqueue(script="slow")
    refused = sandbox.request("PUT", "/sync/PRODUCT", prefer="sync=failing")
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["link"] == f'<{sync}>; rel="monitor"'
    assert "preference-applied" not in refused.headers
    ended = sandbox.wait(sync)
    assert ended["status"] == "SUCCEEDED", "the script of a refused PUT must not be that of the active sync"
    assert sandbox.request("GET", "/sync/PRODUCT").body["data"]["numRecords"] == 24


@pytest.mark.parametrize("entity_type", list(EntityType))
def test_a_sync_goes_as_its_script_says(sandbox: Sandbox, entity_type: EntityType) -> None:
    """By the real worker, from real pages: the codes and counts are those that production has."""
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
    """Why it FAILED."""
    assert sync["status"] == "FAILED", sync
    return str(sync["failure"]["code"])


def test_a_mass_deletion_needs_no_sync_before_it(sandbox: Sandbox) -> None:
    """There must be a catalog to lose: where there is none, an ordinary sync runs first, and is in the history."""
    assert failure_of(sandbox.wait(sandbox.enqueue("COLLECTION", script="mass-deletion"))) == "MASS_DELETION"
    history = sandbox.request("GET", "/syncs?entityType=COLLECTION").body["data"]
    assert "SUCCEEDED" in [each["status"] for each in history]
    for who, status in (("notByop", 403), ("readOnly", 403), ("expired", 401)):
        answer = sandbox.request("PUT", "/sync/COLLECTION", prefer="sync=mass-deletion", who=who)
        assert answer.status == status, "who may not sync gets nothing done by a preference"


async def test_a_script_is_that_of_the_newest_sync_and_waits_for_the_gateways_answer() -> None:
    """An Idempotency-Key brings an earlier sync again; and a worker may be quicker than the answer."""
    scripts = Scenarios()
    old, new = (f"019364f0-7c1e-7a10-9a6b-3f1f5f0c9a1{n}" for n in (1, 2))
    scripts.begin(Run("shop", EntityType.PRODUCT, new, Scenario.SLOW))
    scripts.begin(Run("shop", EntityType.PRODUCT, old, Scenario.FAILING))
    scripts.begin(Run("shop", EntityType.PRODUCT, new, Scenario.FAILING))
    assert (await scripts.current("shop", EntityType.PRODUCT)).scenario is Scenario.SLOW
    assert (await scripts.current("shop", EntityType.COLLECTION)).scenario is Scenario.ORDINARY
    with scripts.pending(("shop", "PRODUCT")):
        looking = asyncio.create_task(scripts.current("shop", EntityType.PRODUCT))
        await asyncio.sleep(0.05)
        assert not looking.done()
        scripts.begin(Run("shop", EntityType.PRODUCT, "119364f0", Scenario.REJECTING))
    assert (await looking).scenario is Scenario.REJECTING


def test_a_production_gateway_heeds_none_of_it(sqlite_deployment: Deployment) -> None:
    """A client that was tested with the sandbox may leave its wishes in: in production they are air."""
    with sqlite_deployment.sample_service() as service:
        (sqlite_deployment.folder / "service.token").write_text("any")
        add = f"merchant add shop --platform BYOP --product-service-url {service} --product-service-token-file"
        sqlite_deployment.run(*add.split(), str(sqlite_deployment.folder / "service.token"))
        with sqlite_deployment.serving("--with-worker") as url, sqlite_deployment.client(url, "shop") as client:
            assert client.get(f"{API}/products", headers={"Prefer": "code=503"}).status_code == 200
            assert client.get(f"{API}/products", headers={"Prefer": "code=418"}).status_code == 200
            for wish in ("code=503", "sync=failing", "sync=rejecting", "sync=mass-deletion", "sync=exploding"):
                answer = client.put(PUT, headers={"Prefer": wish})
                assert answer.status_code == 202
                assert "preference-applied" not in answer.headers
                sync = ended(client, answer.json()["data"])
                assert (sync["status"], sync["attempt"], sync["result"]["rejected"]) == ("SUCCEEDED", 1, 0)
            assert client.get(PUT).json()["data"]["numRecords"] == 24
