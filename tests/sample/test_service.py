"""The sample service against openapi/product-service.yaml, over real HTTP."""

import copy
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.config import SchemathesisConfig

from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sample import catalog_file
from product_gateway.sample.service import create_sample_app
from tests.support.serving import serve

pytest_plugins = ["schemathesis.pytest.plugin"]

TOKEN = "the-merchants-token"
CATALOG = catalog_file.read(catalog_file.SAMPLE)
PATHS = {EntityType.PRODUCT: "/products", EntityType.COLLECTION: "/collections"}
PROBLEM = "application/problem+json"

both = pytest.mark.parametrize("entity_type", EntityType)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """The URL of a service with the sample catalog."""
    with serve(create_sample_app(CATALOG, token=TOKEN)) as url:
        yield url


@pytest.fixture(scope="module")
def http(base_url: str) -> Iterator[httpx2.Client]:
    """A client with the right token."""
    with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def page(http: httpx2.Client, entity_type: EntityType, **query: str | int) -> dict[str, Any]:
    """Return a page of a successful response."""
    answer = http.get(PATHS[entity_type], params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ids(body: dict[str, Any]) -> list[str]:
    """Return the ids in a page."""
    return [each["id"] for each in body["items"]]


def all_ids(entity_type: EntityType) -> list[str]:
    """Return the ids in the catalog, in order."""
    return [CATALOG.record(entity_type, index)["id"] for index in range(CATALOG.count(entity_type))]


def problem(answer: httpx2.Response, status: int) -> dict[str, str]:
    """Return the only error in the problem details of a response with this status."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM)
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["title"] == httpx2.codes.get_reason_phrase(status)
    [error] = body["errors"]
    return dict(error)


@both
@pytest.mark.parametrize("page_size", [1, 3, 100])
def test_following_next_cursor_leads_to_every_record_once(
    http: httpx2.Client, entity_type: EntityType, page_size: int
) -> None:
    """A sync that misses a record would remove it from the catalog."""
    seen, query = [], {"page_size": page_size}
    while True:
        body = page(http, entity_type, **query)
        seen += ids(body)
        assert body["pagination"]["totalNumber"] == CATALOG.count(entity_type)
        assert body["pagination"]["moreResults"] == ("nextCursor" in body["pagination"])
        if not body["pagination"]["moreResults"]:
            break
        query["cursor"] = body["pagination"]["nextCursor"]
    assert seen == all_ids(entity_type)


@both
def test_a_pages_own_cursor_leads_to_the_same_page(http: httpx2.Client, entity_type: EntityType) -> None:
    """An interrupted sync requests its last page again."""
    first = page(http, entity_type, page_size=2)
    second = page(http, entity_type, page_size=2, cursor=first["pagination"]["nextCursor"])
    assert page(http, entity_type, page_size=2, cursor=first["pagination"]["cursor"]) == first
    assert page(http, entity_type, page_size=2, cursor=second["pagination"]["cursor"]) == second


@both
def test_each_record_is_the_same_alone_as_in_the_list(http: httpx2.Client, entity_type: EntityType) -> None:
    """The spec promises it."""
    for record in page(http, entity_type)["items"]:
        answer = http.get(f"{PATHS[entity_type]}/{record['id']}")
        assert (answer.status_code, answer.json()) == (200, record)


@both
def test_ids_choose_records_in_the_order_of_the_catalog(http: httpx2.Client, entity_type: EntityType) -> None:
    """Unknown ids are ignored, repeated ones returned once, and pages count only the records found."""
    first, second, third = all_ids(entity_type)[:3]
    wanted = f"{third},unknown,{first},{third},{second}"
    body = page(http, entity_type, ids=wanted, page_size=2)
    assert ids(body) == [first, second]
    assert body["pagination"]["totalNumber"] == 3
    body = page(http, entity_type, ids=wanted, page_size=2, cursor=body["pagination"]["nextCursor"])
    assert (ids(body), body["pagination"]["moreResults"]) == ([third], False)


def test_a_cursor_past_the_end_is_an_empty_page(http: httpx2.Client) -> None:
    """The catalog may have shrunk since the service sent the cursor."""
    with serve(create_sample_app(catalog_file.GeneratedCatalog(200), token=TOKEN)) as larger:
        far = httpx2.get(f"{larger}/products", headers=http.headers).json()["pagination"]["nextCursor"]
    body = page(http, EntityType.PRODUCT, cursor=far)
    assert body["items"] == []
    assert body["pagination"] == {"moreResults": False, "totalNumber": 24, "cursor": far}


def test_a_catalog_without_records_is_an_empty_page() -> None:
    """A merchant may register before it has products."""
    with serve(create_sample_app(catalog_file.GeneratedCatalog(0), token=TOKEN)) as url:
        body = httpx2.get(f"{url}/collections", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert body["items"] == []
    assert (body["pagination"]["moreResults"], body["pagination"]["totalNumber"]) == (False, 0)


@pytest.mark.parametrize("cursor", ["first", "MDow ", "MDow=", "MDA6MA", "LTE6MA", "ÿ", "9" * 2048])
def test_a_foreign_cursor_is_refused(http: httpx2.Client, cursor: str) -> None:
    """Guessing its meaning could skip records silently."""
    error = problem(http.get("/products", params={"cursor": cursor}), 400)
    assert error["detail"].startswith("Query parameter cursor:")
    assert len(error["detail"]) < 300


@pytest.mark.parametrize("query", ["page_size=0", "page_size=1001", "page_size=ten", "ids=", "colour=red"])
def test_an_undocumented_query_is_refused(http: httpx2.Client, query: str) -> None:
    """The merchant's own service may be as strict."""
    assert problem(http.get(f"/products?{query}"), 400)["title"] == "Invalid parameter"


@both
def test_the_error_for_an_unknown_id_names_the_id(http: httpx2.Client, entity_type: EntityType) -> None:
    """The caller has to find the mistake."""
    error = problem(http.get(f"{PATHS[entity_type]}/no%2Fsuch"), 404)
    assert error == {
        "title": "Unknown id",
        "detail": f"The catalog has no {entity_type.lower()} with the id 'no/such'.",
    }


def test_an_id_may_hold_any_characters(tmp_path: Any) -> None:
    """Merchants choose their ids: slashes, percent signs and any letters come back unchanged."""
    odd = "cups/blau & groß?50%2F#ü"
    path = tmp_path / "odd.json"
    path.write_text(f'[{{"id": "{odd}", "title": "Odd"}}]', encoding="utf-8")
    with serve(create_sample_app(catalog_file.read(path), token=TOKEN)) as url:
        encoded = "cups%2Fblau%20%26%20gro%C3%9F%3F50%252F%23%C3%BC"
        answer = httpx2.get(f"{url}/products/{encoded}", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json() == {"id": odd, "title": "Odd"}


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (None, "Bearer"),
        ("Basic dXNlcjpwYXNz", "Bearer"),
        ("Bearer", "Bearer"),
        ("Bearer wrong", 'Bearer error="invalid_token"'),
        (f"Bearer {TOKEN}x", 'Bearer error="invalid_token"'),
    ],
)
@pytest.mark.parametrize("path", ["/products", "/collections/x", "/products?page_size=0"])
def test_a_request_without_the_right_token_gets_401(
    base_url: str, path: str, header: str | None, challenge: str
) -> None:
    """The token is checked before the parameters. The challenge follows RFC 6750."""
    answer = httpx2.get(base_url + path, headers={"Authorization": header} if header else {})
    assert problem(answer, 401)["title"] == "Not authenticated"
    assert answer.headers["WWW-Authenticate"] == challenge


def test_a_service_without_a_token_accepts_any_token_but_requires_one() -> None:
    """A demo needs no secret, but must detect a gateway that sends no token."""
    with serve(create_sample_app(CATALOG, token=None)) as url:
        assert httpx2.get(f"{url}/products", headers={"Authorization": "Bearer any-token"}).status_code == 200
        assert problem(httpx2.get(f"{url}/products"), 401)


def test_unknown_paths_and_methods_have_problem_details_too(http: httpx2.Client) -> None:
    """They show why a wrong URL fails."""
    assert problem(http.get("/prodcuts"), 404)["detail"] == "There is nothing at this path."
    answer = http.put("/products")
    assert problem(answer, 405)
    assert answer.headers["Allow"] == "GET, HEAD"


def test_an_unexpected_error_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """The text of an exception may be confidential."""

    class Broken(catalog_file.Catalog):
        """A catalog that has lost its file."""

        def count(self, entity_type: EntityType) -> int:
            raise OSError("/secret/place is gone")

        def record(self, entity_type: EntityType, index: int) -> catalog_file.Record:
            raise NotImplementedError

        def index(self, entity_type: EntityType, record_id: str) -> int | None:
            raise NotImplementedError

    with serve(create_sample_app(Broken(), token=None)) as url:
        answer = httpx2.get(f"{url}/products", headers={"Authorization": "Bearer any"})
    assert problem(answer, 500)["title"] == "Failure"
    assert "secret" not in answer.text
    assert "/secret/place is gone" in caplog.text


def test_the_delay_applies_only_to_pages_of_a_list() -> None:
    """It makes a sync long enough to be watched."""
    with (
        serve(create_sample_app(CATALOG, token=None, delay=0.2)) as url,
        httpx2.Client(base_url=url, headers={"Authorization": "Bearer any"}) as http,
    ):
        http.get("/products/unknown")  # connects
        started = time.monotonic()
        http.get("/products/garden-mint")
        single = time.monotonic() - started
        page(http, EntityType.COLLECTION)
        listed = time.monotonic() - started - single
    assert single < 0.2 <= listed


def spared(case: Any) -> list[Any]:
    """The checks that a case is spared, because the schema cannot say it.

    A cursor that fits the schema but was never given out is refused. Instead of a list of ids, text that is none:
    between commas in a query, all text is a list of ids.
    """
    query = case.query or {}
    checks = [positive_data_acceptance] if "cursor" in query else []
    return [*checks, negative_data_rejection] if isinstance(query.get("ids"), str) else checks


fuzzed = schemathesis.openapi.from_dict(
    copy.deepcopy(documents.load(documents.PRODUCT_SERVICE)),  # Schemathesis adds links to it
    config=SchemathesisConfig.from_dict({"seed": 1, "auth": {"openapi": {"bearerAuth": {"bearer": TOKEN}}}}),
)


@fuzzed.parametrize()
@settings(max_examples=25, derandomize=True, deadline=None)
def test_schemathesis_finds_no_undocumented_response(case: Any, base_url: str) -> None:
    """Merchants copy the sample."""
    case.call_and_validate(base_url=base_url, excluded_checks=spared(case))


def test_schemathesis_finds_no_undocumented_response_to_known_ids(base_url: str) -> None:
    """Random ids never exist; ids of a list lead to records."""
    known = []

    class Following(fuzzed.as_state_machine()):  # type: ignore[misc]  # made from the spec
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": base_url}

        def validate_response(self, response: Any, case: Any, *_: Any, **sent: Any) -> None:
            if response.status_code == 200 and case.path_parameters:
                known.append(case.path_parameters["id"])
            case.validate_response(response, excluded_checks=spared(case), transport_kwargs=sent)

    Following.run(settings=settings(max_examples=20, derandomize=True, deadline=None, stateful_step_count=6))
    assert set(known) & set(all_ids(EntityType.PRODUCT))
