"""Every operation of the API has a command, which sends that operation's request."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from product_gateway.openapi import documents
from tests.support.commands import Done, Terminal
from tests.support.deployment import Deployment
from tests.support.scripted_answers import Merchant

DOCUMENT = documents.load(documents.GATEWAY)
OPERATIONS = {
    each["operationId"]: (method.upper(), path)
    for path, method, each in documents.operations(DOCUMENT)
    if each["tags"] != ["Service"]  # health and pages
}
SYNC = "019364f0-7c1e-7a10-9a6b-3f1f5f0c9a11"
COMMANDS = {
    "enqueueSync": "sync product",
    "cancelSync": "cancel Product",
    "getSyncStatus": "status PRODUCT",
    "listSyncs": "history --entity-type collection --status failed",
    "getSync": f"show {SYNC}",
    "listSyncProblems": f"problems {SYNC}",
    "listSyncChanges": f"show {SYNC} --changes",
    "revertSync": f"revert {SYNC}",
    "publishSync": f"publish {SYNC}",
    "discardSync": f"discard {SYNC}",
    "listProducts": "products",
    "getProduct": "products ocean-blue-shirt",
    "listCollections": "collections",
    "getCollection": "collections men",
    "listChanges": "changes product",
}


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sqlite_deployment: Deployment,
    gateway: Merchant,
) -> Callable[..., Done]:
    """A client command that asks the gateway."""
    terminal = Terminal(monkeypatch, capsys)

    def asked(line: str, status: int = 0) -> Done:
        sqlite_deployment.environment |= {"PRODUCT_GATEWAY_URL": gateway.url, "PRODUCT_GATEWAY_TOKEN": "x"}
        done = terminal.run(sqlite_deployment, line)
        assert done.returncode == status, done
        return done

    return asked


def example_of(operation: str) -> Any:
    """Return the body of the operation's success in the spec."""
    method, path = OPERATIONS[operation]
    responses = DOCUMENT["paths"][path][method.lower()]["responses"]
    content = next(responses[each]["content"]["application/json"] for each in ("200", "202") if each in responses)
    return content["example"] if "example" in content else next(iter(content["examples"].values()))["value"]


def test_every_operation_has_a_command() -> None:
    """A new operation needs one."""
    assert set(COMMANDS) == set(OPERATIONS)


@pytest.mark.parametrize("operation", COMMANDS)
def test_a_command_sends_its_operations_request_and_shows_the_response(
    run: Callable[..., Done], gateway: Merchant, operation: str
) -> None:
    """As text, and with --json the gateway's own body. Entity types may be in any case."""
    method, path = OPERATIONS[operation]
    body = copy.deepcopy(example_of(operation))
    if operation != "listChanges":  # its last page has a cursor, too
        body["meta"].pop("nextCursor", None)
    gateway.says(body)
    text = run(COMMANDS[operation])
    template = re.sub(r"\{entityType\}", "PRODUCT", path)
    assert gateway.asked[0].method == method
    assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), gateway.asked[0].url.path)
    assert text.stdout.strip()
    assert json.loads(run(COMMANDS[operation] + " --json").stdout) == body


def test_records_are_read_up_to_the_limit_or_all(run: Callable[..., Done], gateway: Merchant) -> None:
    """A gateway ends pages where it likes."""
    for line, count, pages in (("--limit 3", 3, 2), ("--all", 5, 3), ("", 5, 3)):
        two = [{"data": [{"id": f"p{n}{m}", "title": "Hat"} for m in range(2)]} for n in range(3)]
        two[2]["data"].pop()
        gateway.says(
            *({**each, "meta": {"nextCursor": f"c{n}"}} for n, each in enumerate(two[:2])), {**two[2], "meta": {}}
        )
        gateway.asked.clear()
        done = run(f"products {line}")
        assert len(done.stdout.splitlines()) == count
        assert len(gateway.asked) == pages
        assert done.stdout.startswith("p00  Hat\np01  Hat\n")
        assert ("There are more. A larger --limit lists them." in done.stderr) is (line == "--limit 3")


def test_a_collection_is_shown_with_all_pages_of_its_products(run: Callable[..., Done], gateway: Merchant) -> None:
    """Its id may have any characters."""
    men = {"id": "a/b ü", "title": "Men", "productIds": ["p1", "p2"]}
    pages = [{"data": {**men, "products": [{"id": f"p{n}"}]}, "meta": {}} for n in (1, 2)]
    pages[0]["meta"] = {"nextCursor": "c"}
    gateway.says(*pages)
    shown = json.loads(run("collections a/b%ü --all --json").stdout)
    assert [each["id"] for each in shown["data"]["products"]] == ["p1", "p2"]
    assert gateway.asked[0].scope["raw_path"].endswith(b"/collections/a%2Fb%25%C3%BC")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("history", "There are no syncs yet. Request one: product-gateway sync PRODUCT\n"),
        ("history --status FAILED", "There are no such syncs.\n"),
        (f"problems {SYNC}", "The sync rejected no record.\n"),
        ("products", "The catalog has no products. Request a sync: product-gateway sync PRODUCT\n"),
        ("collections", "The catalog has no collections. Request a sync: product-gateway sync COLLECTION\n"),
    ],
)
def test_an_empty_list_says_so_and_what_to_do(
    run: Callable[..., Done], gateway: Merchant, line: str, words: str
) -> None:
    """Nothing at all could be an error."""
    gateway.says({"data": [], "meta": {}})
    assert run(line).stdout == words


def test_the_history_fits_80_columns_and_shortens_no_id(run: Callable[..., Done], gateway: Merchant) -> None:
    """With the longest values of each column."""
    body = example_of("listSyncs")
    sync = body["data"][0]
    detail = f"The product service's record {SYNC}-{SYNC}-{SYNC} " + "was refused again and again " * 5
    failed = {**sync, "status": "FAILED", "entityType": "COLLECTION", "finishedAt": "2026-11-23T10:00:04.000Z"}
    failed["failure"] = {"code": "PRODUCT_SERVICE_UNAVAILABLE", "detail": detail}
    failed["result"] = dict.fromkeys(sync["result"], 1_234_567)
    gateway.says({"data": [failed, {**failed, "status": "IN_PROGRESS", "failure": None}], "meta": {}})
    lines = run("history").stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == [f"  {SYNC}-{SYNC}-{SYNC}"]
    assert lines[0].split() == ["requested", "(UTC)", "type", "status", "sync"]
    assert [line.split()[-1] for line in lines if "COLLECTION" in line] == [sync["id"]] * 2
    assert "  PRODUCT_SERVICE_UNAVAILABLE: The product service's record" in lines


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sync ORDER", "'ORDER' is not one of PRODUCT, COLLECTION."),
        ("history --status done", "'done' is not one of QUEUED, IN_PROGRESS, SUCCEEDED, FAILED, CANCELLED."),
        ("show 17", "SYNC"),
    ],
)
def test_a_usage_error_lists_the_allowed_values(run: Callable[..., Done], line: str, words: str) -> None:
    """In plain words, without those of a library."""
    said = run(line, 2).stderr
    assert words in said
    assert "Value error" not in said
