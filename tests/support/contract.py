"""A running gateway for tests of the HTTP contract, and clients that check every response against the spec."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs

from product_gateway import settings
from product_gateway.auth import encryption, keys
from product_gateway.db import merchants
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from product_gateway.openapi import documents
from tests.support.deployment import Deployment

DOCUMENT = documents.load(documents.GATEWAY)
SERVICE_TOKEN = "the-merchants-token"  # what the tests' product services expect
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class Gateway:
    """`product-gateway serve`, with the operator's actions."""

    def __init__(self, deployment: Deployment, url: str) -> None:
        self.deployment = deployment
        self.url = url
        self._settings = settings.load(data_dir=deployment.folder / "var")

    def database(self) -> AbstractContextManager[Database]:
        """Open the gateway's database."""
        return open_database(self.deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"])

    def add(self, name: str, service: str = "http://127.0.0.1:1", token: str = SERVICE_TOKEN, **more: Any) -> None:
        """Add a merchant, by default with platform BYOP."""
        encrypted = encryption.Secrets(self._settings).encrypt(token)
        values = {"product_service_url": service, "product_service_token": encrypted, **more}
        with self.database() as database:
            database.call(merchants.add, name, values.pop("platform", Platform.BYOP), **values)

    def change(self, name: str, **values: Any) -> None:
        """Change a merchant."""
        with self.database() as database:
            database.call(merchants.update_merchant, name, **values)

    def token(self, merchant: str, *scopes: str) -> str:
        """Return a bearer token, by default with all scopes."""
        return keys.issue_token(self._settings, merchant, list(scopes or keys.SCOPES), timedelta(hours=1))

    def client(self, token: str | None) -> httpx2.Client:
        """Return a client that fails on responses that are not in the spec."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        hooks = {"response": [documented]}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, event_hooks=hooks)

    def of(self, merchant: str, *scopes: str) -> httpx2.Client:
        """Return a client with a token of the merchant."""
        return self.client(self.token(merchant, *scopes))


@contextmanager
def gateway(folder: Path, database_url: str, *arguments: str, **more: str) -> Iterator[Gateway]:
    """Run a gateway that validates its own responses: an invalid one is a 500."""
    deployment = Deployment(folder, database_url, validate_responses="true", **more)
    with deployment.serving(*arguments) as url:
        yield Gateway(deployment, url)


def error(answer: httpx2.Response, status: int) -> str:
    """Return the detail of the one error in a response with this status."""
    assert answer.status_code == status, f"{answer.request.method} {answer.request.url}: {answer.text}"
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    detail: str = body["error"][0]["detail"]
    assert body == {"error": [{"status": str(status), "title": TITLES[status], "detail": detail}]}
    assert detail
    return detail


def operation(method: str, path: str) -> tuple[documents.Document, documents.Document] | None:
    """Return the path item and its operation: {} for an unknown method, None for an unknown path."""
    segments = path.partition("?")[0].split("/")
    for template, item in DOCUMENT["paths"].items():
        wanted = template.split("/")
        if len(wanted) == len(segments) and all(
            want == given or (want.startswith("{") and given) for want, given in zip(wanted, segments, strict=True)
        ):
            return item, item.get("get" if method == "HEAD" else method.lower(), {})
    return None


def documented(answer: httpx2.Response) -> None:
    """Assert that the spec has the status, the media type, the body and the headers of the response."""
    sent = answer.request
    found = operation(sent.method, sent.url.raw_path.decode())
    if found is None:
        assert answer.status_code in (400, 404, 429, 503), "what is at no path of the spec is not there"
        return
    item, here = found
    described = here or next(item[method] for method in documents.METHODS if method in item)
    where = f"{sent.method} {sent.url} answered {answer.status_code}"
    assert str(answer.status_code) in described["responses"], (
        f"{where}, which the spec does not have: {answer.read()!r}"
    )
    response = documents.resolve(DOCUMENT, described["responses"][str(answer.status_code)])
    media_type = answer.headers.get("Content-Type", "nothing").partition(";")[0]
    assert media_type in response.get("content", {"nothing": {}}), f"{where} as {media_type}"
    schema = response.get("content", {}).get(media_type, {}).get("schema", {})
    if sent.method != "HEAD" and media_type == "application/json" and "$ref" in schema:
        answer.read()
        name = schema["$ref"].rpartition("/")[2]
        faults = [fault.message for fault in _validator(name).iter_errors(answer.json())]
        assert not faults, f"{where}, which is no {name}: {faults}"
    for header, definition in response.get("headers", {}).items():
        header_object = documents.resolve(DOCUMENT, definition)
        assert header in answer.headers or not header_object.get("required"), f"{where} without {header}"
        if header in answer.headers:
            value = answer.headers[header]
            sent_value = int(value) if header_object["schema"]["type"] == "integer" else value
            validator = _header_validator(json.dumps(header_object["schema"]))
            faults = [fault.message for fault in validator.iter_errors(sent_value)]
            assert not faults, f"{where}, {header}: {faults}"


@cache
def _header_validator(schema: str) -> jsonschema_rs.Draft4Validator:
    return jsonschema_rs.Draft4Validator(json.loads(schema), validate_formats=True)


@cache
def _validator(name: str) -> jsonschema_rs.Draft4Validator:
    return jsonschema_rs.Draft4Validator(documents.json_schema(DOCUMENT, name), validate_formats=True)
