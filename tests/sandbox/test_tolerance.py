"""`sandbox --tolerance`: mutated responses are valid, each mutation is met, and a report names faults of clients."""

import contextlib
import http.client
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jsonschema_rs
import orjson
import pytest
from standardwebhooks import Webhook

from product_gateway.errors import SettingsError
from product_gateway.openapi import documents
from product_gateway.sandbox import tolerance_report
from product_gateway.sandbox.mutations import LONGEST_CURSOR, LONGEST_REQUEST_ID, MUTATIONS, Kind, Mutation
from product_gateway.sandbox.runner import Options
from product_gateway.sandbox.tolerance import Tolerance
from product_gateway.sandbox.tolerance_report import ControlFailed, Report, sandbox
from product_gateway.sandbox.webhook_relay import EVENT_SCHEMAS
from tests.support import contract
from tests.support.deployment import API
from tests.support.webhook_receivers import Hooks, receiving
from tests.tools import client_tolerance
from tests.tools.client_roster import CLIENTS

TOP = Path(__file__).parents[2]
OF_RESPONSES = [each for each in MUTATIONS.values() if each.kind is not Kind.MESSAGE]
each_mutation = pytest.mark.parametrize("mutation", OF_RESPONSES, ids=lambda each: each.name)
SLOW_SECONDS = 8.0


@dataclass
class Tolerant:
    """A sandbox whose mutations can be replaced, with ended, failed and active syncs."""

    environment: tolerance_report.Environment
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


@pytest.fixture(scope="module")
def tolerant() -> Iterator[Tolerant]:
    """The sandbox of this file."""
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
        other.put(f"{API}/sync/PRODUCT", headers={"Prefer": "sync=slow"})
        assert other.put(f"{API}/sync/PRODUCT").status_code == 429


@each_mutation
def test_a_mutated_response_is_valid_and_each_mutation_is_met(tolerant: Tolerant, mutation: Mutation) -> None:
    """A mutation that breaks the spec would accuse correct clients. One that changes nothing tests no client."""
    with tolerant.under(mutation) as client:
        conversation(tolerant, client)
        assert tolerant.tolerance.changed[mutation.name] > 0


def test_all_mutations_at_once_are_valid(tolerant: Tolerant) -> None:
    """A seed combines them."""
    with tolerant.under(*OF_RESPONSES) as client:
        conversation(tolerant, client)


@pytest.mark.parametrize("path", ["products", "collections", "syncs", "changes/PRODUCT", "changes/COLLECTION"])
def test_all_pages_together_are_the_same_list_under_each_mutation_of_pages(tolerant: Tolerant, path: str) -> None:
    """Other cursors, shorter pages and an empty last page lose and repeat no record."""
    names = ("fewer-records-per-page", "one-record-per-page", "empty-last-page", "other-cursors", "longest-cursors")
    with tolerant.client() as client:
        expected, _ = ids(client, path)
    for chosen in (*((MUTATIONS[name],) for name in names), tuple(MUTATIONS[name] for name in names)):
        with tolerant.under(*chosen) as client:
            found, cursors = ids(client, path)
            assert found == expected
            if MUTATIONS["longest-cursors"] in chosen:
                assert LONGEST_CURSOR in {len(each) for each in cursors}


def ids(client: httpx2.Client, path: str) -> tuple[list[str], list[str]]:
    """Return the ids of all pages, and their cursors."""
    start = f"{API}/{path}?page_size={2 if path == 'syncs' else 10}"
    found, cursors, page = [], [], client.get(start).json()
    while True:
        found += [each["id"] for each in page["data"]]
        cursors.append(page["meta"].get("nextCursor", ""))
        if not page["meta"].get("hasMore", "nextCursor" in page["meta"]):
            return found, cursors
        page = client.get(f"{start}&cursor={cursors[-1]}").json()


def test_header_names_have_another_case_on_the_wire(tolerant: Tolerant) -> None:
    """HTTP clients hide the case; some generated ones do not."""
    for name, expected in (
        ("header-names-in-upper-case", "X-REQUEST-ID"),
        ("header-names-capitalised", "X-Request-Id"),
    ):
        with tolerant.under(MUTATIONS[name]):
            assert expected in wire_headers(tolerant)
    with tolerant.under(MUTATIONS["chunked-bodies"]):
        assert wire_headers(tolerant)["transfer-encoding"] == "chunked"
    with tolerant.under(MUTATIONS["longest-request-ids"]):
        assert len(wire_headers(tolerant)["x-request-id"]) == LONGEST_REQUEST_ID
    with tolerant.under(MUTATIONS["closed-connections"]):
        assert wire_headers(tolerant)["connection"] == "close"


def wire_headers(tolerant: Tolerant) -> dict[str, str]:
    connection = http.client.HTTPConnection(str(urlsplit(tolerant.environment["GATEWAY"]).netloc), timeout=30)
    with contextlib.closing(connection):
        token = tolerant.environment["TOKEN"]
        connection.request("GET", f"{API}/products", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert orjson.loads(answer.read())["data"]
        return dict(answer.getheaders())


def test_a_wait_ends_early_and_a_long_retry_after_need_not_be_waited_for(tolerant: Tolerant) -> None:
    """The two headers together say that the client may ask again at once."""
    with tolerant.client(who="otherByop") as client:
        client.delete(f"{API}/sync/PRODUCT")
        client.put(f"{API}/sync/PRODUCT", headers={"Prefer": "sync=slow"})
        active = client.get(f"{API}/syncs").json()["data"][0]
        with tolerant.under(MUTATIONS["wait-shortened"], MUTATIONS["retry-after-longest"]):
            answer = client.get(f"{API}/syncs/{active['id']}", headers={"Prefer": "wait=20"})
            assert answer.json()["data"]["finishedAt"] is None
            assert answer.headers["Preference-Applied"] == "wait=1"
            assert answer.headers["Retry-After"] == "3600"
        with tolerant.under(MUTATIONS["wait-ignored"], MUTATIONS["retry-after-longest"]):
            answer = client.get(f"{API}/syncs/{active['id']}", headers={"Prefer": "wait=20"})
            assert "Preference-Applied" not in answer.headers
            assert int(answer.headers["Retry-After"]) < 3600, "a client has to wait for this one"


def test_a_seed_is_repeatable_and_values_are_those_of_the_whole_run() -> None:
    """Else a fault could not be found again, and a client that compares responses would be accused."""
    requests = [f"GET {API}/products", f"GET {API}/syncs", f"GET {API}/products"]
    first, again, other = (Tolerance.of(seed) for seed in ("7", "7", "8"))
    runs = [[[each.name for each in one.active(request)] for request in requests] for one in (first, again, other)]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][0] != runs[0][2], "the same request has other mutations the second time"
    constant = [[name for name in active if MUTATIONS[name].kind is Kind.VALUE] for active in runs[0]]
    assert constant[0] == constant[1] == constant[2] != []
    seen = {each.name for seed in range(40) for each in Tolerance.of(str(seed)).active(requests[0])}
    assert seen == MUTATIONS.keys(), "any mutation is chosen by some seed"


def test_a_seed_names_its_mutations_in_a_header(tolerant: Tolerant) -> None:
    """A test that fails with a seed shows the names to try one by one."""
    seeded = Tolerance.of("3")
    with sandbox(Options(tolerance=seeded)) as environment:
        answer = httpx2.get(f"{environment['GATEWAY']}{API}/products", timeout=30)
        named = set(answer.headers["X-Sandbox-Tolerance"].split(", "))
        assert named
        assert named <= MUTATIONS.keys()
    with tolerant.client() as client:
        assert "X-Sandbox-Tolerance" not in client.get(f"{API}/products").headers


def test_an_unknown_mutation_is_refused_with_the_known_ones() -> None:
    """A misspelt name must not test nothing."""
    with pytest.raises(SettingsError, match="neither a number nor a mutation: additional-members-of-data, "):
        Tolerance.of("unknown-failure-kode")
    command = [sys.executable, "-m", "product_gateway", "tolerance", "--only", "nonsense", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no mutation nonsense" in done.stderr


# Webhooks


def messages_of(tolerant: Tolerant, *mutations: Mutation) -> list[tuple[str, Any, dict[str, str]]]:
    """Run two syncs under the mutations; return the verified messages as id, event and headers."""
    seen = len(tolerant.hooks.messages)
    with tolerant.under(*mutations):
        syncs = [tolerant.wait(tolerant.enqueue(each))["id"] for each in ("PRODUCT", "COLLECTION")]
        until = time.monotonic() + 20
        while time.monotonic() < until:
            received = list(tolerant.hooks.messages)[seen:]
            found = [
                (each.headers["webhook-id"], orjson.loads(each.body), each.headers)
                for each in received
                if Webhook(tolerant.environment["WEBHOOK_SECRET"]).verify(each.body, each.headers)
            ]
            if {event["data"].get("id") for _, event, _ in found} >= set(syncs):
                return found
            time.sleep(0.02)
    raise AssertionError(f"the messages of {syncs} have not all come: {found}")


def test_messages_to_webhooks_are_changed_signed_and_valid(tolerant: Tolerant) -> None:
    """The receiver verifies every one."""
    document = documents.load(documents.GATEWAY)
    assert len(messages_of(tolerant)) == 2
    chosen = (MUTATIONS[name] for name in ("additional-members-of-messages", "several-signatures", "largest-counts"))
    for _, event, headers in messages_of(tolerant, *chosen, MUTATIONS["additional-message-headers"]):
        schema = documents.json_schema(document, EVENT_SCHEMAS.get(event["type"], "SyncEvent"))
        jsonschema_rs.Draft4Validator(schema, validate_formats=True).validate(event)
        assert "addedLater" in event
        assert event["data"]["result"]["created"] == 2**53 - 1
        assert len(headers["webhook-signature"].split(" ")) == 2
        assert headers["x-added-later"] == "1"


def test_messages_come_twice_and_with_unknown_types(tolerant: Tolerant) -> None:
    """At least once, in no order."""
    ids = [message_id for message_id, _, _ in messages_of(tolerant, MUTATIONS["messages-twice"])]
    assert ids[0] == ids[1]
    types = [event["type"] for _, event, _ in messages_of(tolerant, MUTATIONS["unknown-message-types"])]
    assert types == ["added.later", "sync.succeeded"] * 2


def test_a_message_overtakes_the_one_before_it(tolerant: Tolerant) -> None:
    """`finishedAt` says which is newer."""
    times = [event["data"]["finishedAt"] for _, event, _ in messages_of(tolerant, MUTATIONS["messages-out-of-order"])]
    assert len(times) == 2
    assert times == sorted(times, reverse=True)


# The report


def test_a_report_counts_what_was_met() -> None:
    """A mutation that changed nothing says nothing about the client."""
    report = Report()
    words = [
        report.add("one", fault=None, met=True),
        report.add("two", fault="it broke", met=True),
        report.add("three", fault=None, met=False),
        report.add("four", fault="it broke", met=False),
    ]
    assert words == ["survived", "broken", "not met", "failed, although nothing was changed"]
    assert str(report) == "survives 1 of 3; broken by: two, four\nNot met, so not tested: three"


CLIENT = """
import json, os, urllib.request
request = urllib.request.Request(
    os.environ["GATEWAY"] + "/product-gateway/v1/syncs", headers={"Authorization": "Bearer " + os.environ["TOKEN"]}
)
body = urllib.request.urlopen(request).read()
assert json.loads(body)["data"] == []
assert body.startswith(b'{"data"'), "the client searches the text"
"""


def test_the_command_says_which_mutations_break_a_client(tmp_path: Path) -> None:
    """The client of this test has a fault."""
    (tmp_path / "client.py").write_text(CLIENT)
    names = ("additional-headers", "members-in-reverse-order", "largest-prices")
    done = tolerance_command(*(f"--only={name}" for name in names), "--", sys.executable, str(tmp_path / "client.py"))
    assert done.returncode == 1, done.stderr
    assert done.stdout == (
        "survives 1 of 2; broken by: members-in-reverse-order\nNot met, so not tested: largest-prices\n"
    )
    assert "additional-headers: survived" in done.stderr
    assert "the client searches the text" in done.stderr


def tolerance_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "product_gateway", "tolerance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_client_that_fails_without_any_mutation_is_not_scored() -> None:
    """A report about it would blame the mutations."""
    progress: list[str] = []
    with pytest.raises(ControlFailed, match=r"fails without any mutation.*bad client"):
        tolerance_report.survey(lambda _: "bad client", OF_RESPONSES, Options(), progress.append)
    assert progress == []


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """A client that sleeps for an hour of Retry-After."""
    attempt = tolerance_report.run_command(["sh", "-c", f"sleep 60; touch {tmp_path}/late"], timeout=0.2)
    assert "It had not ended after 0 s." in str(attempt({}))
    attempt = tolerance_report.run_command(["sh", "-c", "echo why; exit 3"], timeout=20)
    assert attempt({}) == "Exit status 3.\n  why"


TEST_OF_A_CLIENT = """
def test_client(product_gateway_sandbox):
    import os, urllib.request
    assert ("SANDBOX_JSON" in os.environ) == (%r == "command")
    reply = urllib.request.urlopen(product_gateway_sandbox.base_url + "/health/live")
    assert "X-REQUEST-ID" in dict(reply.headers.items())
"""


@pytest.mark.parametrize("way", ["option", "command"])
def test_the_pytest_fixture_gives_a_tolerant_sandbox(tmp_path: Path, way: str) -> None:
    """By the plugin's option, and below `product-gateway tolerance`."""
    test = tmp_path / "test_client.py"
    test.write_text(TEST_OF_A_CLIENT % way)
    name, plugin = "header-names-in-upper-case", ["-p", "product_gateway_sandbox", "-p", "no:cacheprovider"]
    run = [sys.executable, "-m", "pytest", "-q", "--disable-plugin-autoload", *plugin, str(test)]
    if way == "option":
        run += ["--product-gateway-tolerance", name]
    else:
        script = f"case $TOLERANCE in '') exit 0;; *) exec {' '.join(run)};; esac"
        run = [sys.executable, "-m", "product_gateway", "tolerance", "--only", name, "--", "sh", "-c", script]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# The documents


def test_the_page_lists_the_mutations() -> None:
    """At least the forty of the issue; names and descriptions are those of the code."""
    page = (TOP / "docs" / "tolerance.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", page.partition("## The mutations")[2], re.MULTILINE)
    assert dict(rows) == {each.name: each.description for each in MUTATIONS.values()}
    assert len(MUTATIONS) >= 40


def test_the_scores_of_the_generated_clients_are_complete() -> None:
    """`make clients CLIENTS=all` compares them with the results of its own run."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) of (\d+) \| (.*) \|$", client_tolerance.recorded(), re.MULTILINE)
    assert [row[0] for row in rows] == [each.name for each in CLIENTS]
    for _, survived, met, broken in rows:
        names = [] if broken == "none" else broken.split(", ")
        assert set(names) <= {each.name for each in client_tolerance.mutations()}
        assert int(survived) + len(names) == int(met) <= len(client_tolerance.mutations())
