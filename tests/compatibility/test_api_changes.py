"""Breaking changes of a spec are found before a release; additions are allowed."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from product_gateway.openapi import documents
from tests.tools.api_changes import WE_SERVE, Comparison, Node, accepted, faults

API = "/product-gateway/v1"
NEW_PARAMETER = {"name": "colour", "in": "query", "description": "A colour", "schema": {"type": "string"}}
STRING = {"type": "string", "description": "New"}

Change = Callable[[Node], Any]


def operation(document: Node, method: str, path: str) -> Node:
    """Return an operation of a document."""
    found: Node = document["paths"][path][method]
    return found


def enqueue(document: Node) -> Node:
    """Return the operation enqueueSync."""
    return operation(document, "put", f"{API}/sync/{{entityType}}")


def products(document: Node) -> Node:
    """Return a list operation."""
    return operation(document, "get", f"{API}/products")


def schema(document: Node, name: str) -> Node:
    """Return a named schema."""
    found: Node = document["components"]["schemas"][name]
    return found


def parameter(document: Node, name: str) -> Node:
    """Return a named parameter."""
    found: Node = document["components"]["parameters"][name]
    return found


def changed(name: str, change: Change) -> tuple[Node, Node]:
    """Return the document, and a copy with the change."""
    old = documents.load(name)
    new = copy.deepcopy(old)
    change(new)
    return old, new


BREAKING: dict[str, tuple[Change, str]] = {
    "an operation is removed": (
        lambda d: d["paths"][f"{API}/sync/{{entityType}}"].pop("delete"),
        "DELETE /product-gateway/v1/sync/{entityType}: gone",
    ),
    "a path is removed": (lambda d: d["paths"].pop("/health/live"), "GET /health/live: gone"),
    "an operation is renamed": (lambda d: enqueue(d).update(operationId="putSync"), "operationId: is putSync"),
    "another scope is needed": (
        lambda d: products(d).update({"x-required-scope": "sync:read"}),
        "x-required-scope: is sync:read",
    ),
    "a token is needed": (lambda d: operation(d, "get", "/health/live").pop("security"), "security: is another"),
    "a parameter is removed": (lambda d: products(d)["parameters"].pop(1), "query parameter page_size: gone"),
    "a new parameter is required": (
        lambda d: products(d)["parameters"].append({**NEW_PARAMETER, "required": True}),
        "query parameter colour: new, and required",
    ),
    "a parameter becomes required": (
        lambda d: parameter(d, "IdempotencyKey").update(required=True),
        "header parameter Idempotency-Key: now required",
    ),
    "a parameter's enum loses a value": (
        lambda d: schema(d, "EntityType")["enum"].remove("COLLECTION"),
        "schema EntityType: enum is ['PRODUCT'], was ['PRODUCT', 'COLLECTION']",
    ),
    "a parameter's type is another": (
        lambda d: parameter(d, "PageSize")["schema"].update(type="string"),
        "type is string, was integer",
    ),
    "a parameter's largest value is lower": (
        lambda d: parameter(d, "PageSize")["schema"].update(maximum=100),
        "maximum is 100, was 500",
    ),
    "a parameter may be less long": (
        lambda d: schema(d, "IdempotencyKey").update(maxLength=36),
        "maxLength is 36, was 255",
    ),
    "a parameter has another pattern": (lambda d: schema(d, "Cursor").update(pattern="^[a-z]+$"), "pattern is ^[a-z]"),
    "a default is another": (
        lambda d: parameter(d, "PageSize")["schema"].update(default=10),
        "default: is 10, was 100",
    ),
    "a status is removed": (lambda d: enqueue(d)["responses"].pop("202"), "{entityType} 202: gone"),
    "a media type is removed": (
        lambda d: products(d)["responses"]["200"].update(content={"text/csv": {"schema": STRING}}),
        "200, application/json: gone",
    ),
    "a header is removed": (
        lambda d: enqueue(d)["responses"]["202"]["headers"].pop("Location"),
        "202, header Location: gone",
    ),
    "a header is no longer in every answer": (
        lambda d: d["components"]["headers"]["SyncLocation"].update(required=False),
        "202, header Location: no longer in every answer",
    ),
    "a required field of an answer is removed": (
        lambda d: (schema(d, "Sync")["properties"].pop("attempt"), schema(d, "Sync")["required"].remove("attempt")),
        "schema Sync.attempt: gone",
    ),
    "an optional field of an answer is removed": (
        lambda d: schema(d, "Product")["properties"].pop("sku"),
        "schema Product.sku: gone",
    ),
    "a field is no longer always there": (
        lambda d: schema(d, "Sync")["required"].remove("attempt"),
        "schema Sync.attempt: no longer always there",
    ),
    "a field may be null": (
        lambda d: schema(d, "Sync")["properties"]["attempt"].update(nullable=True),
        "schema Sync.attempt: nullable is True, was None",
    ),
    "a field has another type": (
        lambda d: schema(d, "Product")["properties"]["listPrice"].update(type="number"),
        "schema Product.listPrice: type is number, was integer",
    ),
    "a field may have a value that clients do not know": (
        lambda d: schema(d, "SyncStatus")["enum"].append("PAUSED"),
        "schema SyncStatus: enum is",
    ),
    "a field may be larger": (
        lambda d: schema(d, "SyncProgress")["properties"]["percent"].update(maximum=200),
        "schema SyncProgress.percent: maximum is 200, was 100",
    ),
    "a named schema is renamed": (
        lambda d: (
            d["components"]["schemas"].update(Fitness=d["components"]["schemas"].pop("Health")),
            schema(d, "HealthResponse")["properties"].update(data={"$ref": "#/components/schemas/Fitness"}),
        ),
        "schema Health: gone",
    ),
}

HARMLESS: dict[str, Change] = {
    "a new operation": lambda d: d["paths"].update({"/new": {"get": copy.deepcopy(products(d))}}),
    "a new optional parameter": lambda d: products(d)["parameters"].append(NEW_PARAMETER),
    "a parameter takes more": lambda d: parameter(d, "PageSize")["schema"].update(maximum=1000, minimum=0),
    "a new field of an answer": lambda d: schema(d, "Sync")["properties"].update(colour=STRING),
    "a new field that is always there": lambda d: (
        schema(d, "Sync")["properties"].update(colour=STRING),
        schema(d, "Sync")["required"].append("colour"),
    ),
    "a new header": lambda d: products(d)["responses"]["200"]["headers"].update({"X-New": {"schema": STRING}}),
    "a new status": lambda d: products(d)["responses"].update({"418": {"description": "A teapot"}}),
    "other texts and examples": lambda d: (
        d["info"].update(description="Other"),
        schema(d, "SyncId").update(example="01a20a4b-f514-708c-8b35-b67ebc5d86e0"),
    ),
}
TO_MERCHANTS: dict[str, tuple[Change, str]] = {
    "a new operation": (
        lambda d: d["paths"].update({"/prices": {"get": d["paths"]["/products"]["get"]}}),
        "GET /prices: new",
    ),
    "a new parameter": (
        lambda d: d["paths"]["/products"]["get"].setdefault("parameters", []).append(NEW_PARAMETER),
        "query parameter colour: new, and merchants do not know it",
    ),
    "a field becomes required": (
        lambda d: schema(d, "Product")["required"].append("sku"),
        "schema Product.sku: now req",
    ),
    "a field may be less long": (
        lambda d: schema(d, "Product")["properties"]["title"].update(maxLength=10),
        "schema Product.title: maxLength is 10",
    ),
}


@pytest.mark.parametrize("what", BREAKING)
def test_a_breaking_change_for_clients_is_found(what: str) -> None:
    """A finding names the place and the old value, so the reader knows what to restore."""
    change, said = BREAKING[what]
    found = Comparison(*changed(documents.GATEWAY, change), ours=True).findings()
    assert any(said in each for each in found), f"{what}: nothing of {said!r} among {found}"


@pytest.mark.parametrize("what", HARMLESS)
def test_an_addition_is_allowed(what: str) -> None:
    """Developers would switch off a checker that reports additions."""
    assert Comparison(*changed(documents.GATEWAY, HARMLESS[what]), ours=True).findings() == []


@pytest.mark.parametrize("what", TO_MERCHANTS)
def test_a_breaking_change_for_merchants_services_is_found(what: str) -> None:
    """The merchant is the server there: the gateway may not send more, and must accept the same responses."""
    change, said = TO_MERCHANTS[what]
    found = Comparison(*changed(documents.PRODUCT_SERVICE, change), ours=False).findings()
    assert any(said in each for each in found), f"{what}: nothing of {said!r} among {found}"


def test_a_new_major_version_may_break() -> None:
    """As semver.org defines it."""
    old, new = changed(documents.GATEWAY, BREAKING["an operation is removed"][0])
    assert "allowed with version 2.0.0" in faults(documents.GATEWAY, old, new, {})[0]
    new["info"]["version"] = "2.0.0"
    assert faults(documents.GATEWAY, old, new, {}) == []


def test_an_addition_needs_a_new_minor_version_and_a_text_none() -> None:
    """The version tells a client about additions."""
    old, new = changed(documents.GATEWAY, HARMLESS["a new field of an answer"])
    (said,) = faults(documents.GATEWAY, old, new, {})
    major, minor, _ = old["info"]["version"].split(".")
    assert said.endswith(f"at least {major}.{int(minor) + 1}.0")
    new["info"]["version"] = f"{major}.{int(minor) + 1}.0"
    assert faults(documents.GATEWAY, old, new, {}) == []
    assert faults(documents.GATEWAY, *changed(documents.GATEWAY, HARMLESS["other texts and examples"]), {}) == []


def test_an_exception_ends_with_its_difference() -> None:
    """Outdated exceptions would hide the next difference."""
    old, new = changed(documents.GATEWAY, BREAKING["a header is removed"][0])
    new["info"]["version"] = "1.99.0"
    (finding,) = Comparison(old, new, ours=True).findings()
    assert faults(documents.GATEWAY, old, new, {finding: "no client reads it"}) == []
    assert "no difference any more" in faults(documents.GATEWAY, old, old, {finding: "no client reads it"})[0]


@pytest.mark.parametrize("name", WE_SERVE)
def test_every_exception_has_its_reason(name: str) -> None:
    """Later readers of the list must be able to judge it."""
    assert all(len(reason.split()) > 5 for reason in accepted(name).values())
