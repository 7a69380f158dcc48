"""`sandbox --tolerance`: mutated responses are valid, each mutation is met, and a report names faults of clients."""

import contextlib
import http.client
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jsonschema_rs
import orjson
import pytest
from standardwebhooks import Webhook

from product_gateway.errors import GatewayError, SettingsError
from product_gateway.openapi import documents
from product_gateway.sandbox import tolerance_report
from product_gateway.sandbox.mutation import Kind, Mutation
from product_gateway.sandbox.mutations import LONGEST_REQUEST_ID, MUTATIONS
from product_gateway.sandbox.runner import Options
from product_gateway.sandbox.tolerance import Tolerance
from product_gateway.sandbox.tolerance_report import ControlFailed, Report, sandbox
from product_gateway.sandbox.webhook_relay import EVENT_SCHEMAS
from tests.support.deployment import API
from tests.support.tolerant_sandbox import Tolerant, conversation, tolerant_sandbox
from tests.tools import client_tolerance
from tests.tools.client_roster import CLIENTS

TOP = Path(__file__).parents[2]
OF_RESPONSES = [each for each in MUTATIONS.values() if each.kind is not Kind.MESSAGE]


@pytest.fixture(scope="module")
def tolerant() -> Iterator[Tolerant]:
    """The sandbox of this file."""
    with tolerant_sandbox() as made:
        yield made


def test_all_mutations_at_once_are_valid(tolerant: Tolerant) -> None:
    """A seed combines them."""
    with tolerant.under(*OF_RESPONSES) as client:
        conversation(tolerant, client)


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
    with pytest.raises(GatewayError, match=r"There is no mutation nonsense. Use one of additional-members-of-data, "):
        tolerance_report.chosen(["nonsense"])


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
