"""Binding a spec to handlers: mismatches stop the start, and failed requests get the one error body."""

import ast
import asyncio
import inspect
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator
from starlette.types import Message

from product_gateway.api.error_responses import describe_error
from product_gateway.errors import SettingsError
from product_gateway.http.limits import LARGEST_BODY_BYTES
from product_gateway.http.responses import EventStream, Response
from product_gateway.model import syncs
from product_gateway.model.merchants import Merchant
from product_gateway.openapi import documents, types
from product_gateway.openapi.binding import bind
from product_gateway.openapi.scaffold import skeletons
from tests.support import sample_api
from tests.support.sample_api import ask
from tests.support.serving import serve

ALL = [operation["operationId"] for _, _, operation in documents.operations(sample_api.document())]


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serve(sample_api.app()) as url:
        yield url


def without(name: str) -> type:
    """Return the tiny API's handlers without one of them."""
    members = {
        each: value
        for each, value in vars(sample_api.Handlers).items()
        if each not in (name, "__dict__", "__weakref__")
    }
    return type("Handlers", (), members)


def pasted(text: str) -> Any:
    """Return the handlers of a class that consists of pasted skeletons and the imports that they need."""
    ast.parse(f"class Pasted:\n{text}")
    names = {
        **vars(types),
        **vars(syncs),
        "Merchant": Merchant,
        "Response": Response,
        "UUID": UUID,
        "Colour": sample_api.Colour,
    }
    exec(f"class Pasted:\n{text}", names)
    return names["Pasted"]()


def test_an_operation_without_a_handler_stops_the_start_with_its_skeleton() -> None:
    """The spec comes first; the message contains the handler to paste."""
    with pytest.raises(SettingsError) as stop:
        sample_api.app(handlers=without("search")())
    assert stop.value.detail == (
        "The spec has operations without a handler. Paste into Handlers:\n\n"
        "    async def search(self, size: int, ratio: float | None, flag: bool | None, colour: Colour | None, "
        "ids: list[int] | None, ref: UUID | None, text: str | None, x_trace: str | None) -> Response[bytes]:\n"
        '        """search."""\n'
        "        raise NotImplementedError\n"
    )


def test_all_missing_handlers_are_in_one_message() -> None:
    """A start must not report them one by one."""
    with pytest.raises(SettingsError) as stop:
        sample_api.app(handlers=object())
    for name in ("get_thing", "delete_thing", "put_thing", "get_part", "search", "must", "boom", "secret"):
        assert f"async def {name}(self" in stop.value.detail


def test_skeletons_are_valid_python_for_any_description() -> None:
    """The descriptions contain quotes and backslashes; a server with the pasted skeletons starts."""
    handlers = pasted(skeletons(sample_api.document(), ALL))
    sample_api.app(handlers=handlers)
    described = inspect.getdoc(handlers.get_thing) or ""
    assert described.startswith("Get a thing.\n\nBy its id:")
    assert r"\d" in described
    assert inspect.getdoc(handlers.boom) == "boom."


def test_the_gateways_own_spec_can_be_started_from_skeletons_alone() -> None:
    """The return types are the generated types of the bodies."""
    document = documents.load(documents.GATEWAY)
    operations = {each["operationId"]: each for _, _, each in documents.operations(document)}
    handlers = pasted(skeletons(document, list(operations)))
    sample_api.app(described=document, handlers=handlers)
    assert inspect.signature(handlers.enqueue_sync).return_annotation == Response[types.SyncResponse]
    assert (inspect.getdoc(handlers.enqueue_sync) or "").startswith(operations["enqueueSync"]["summary"])


def test_a_handler_that_is_not_async_is_no_handler() -> None:
    """It would block the event loop; the skeleton shows the right form."""
    handlers = without("boom")
    handlers.boom = lambda self: None  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match=r"async def boom\(self\)"):
        sample_api.app(handlers=handlers())


def test_a_handler_without_an_operation_stops_the_start() -> None:
    """Most often an operation was renamed."""

    class Handlers(sample_api.Handlers):
        async def forgotten(self) -> None:
            """Have no operation in the spec."""

        async def _helper(self) -> None:
            """Do nothing: names with an underscore are not handlers."""

    with pytest.raises(SettingsError, match=r"Handlers without an operation in the spec: Handlers\.forgotten$"):
        sample_api.app(handlers=Handlers())


def test_the_start_computes_no_property_of_the_handlers() -> None:
    """Pages are read and compressed at their first request."""
    computed = []

    class Handlers(sample_api.Handlers):
        @cached_property
        def pages(self) -> None:
            computed.append("pages")

    sample_api.app(handlers=Handlers())
    assert not computed


def test_two_handlers_of_one_operation_stop_the_start() -> None:
    """Otherwise the order of the handler objects would decide."""
    with pytest.raises(SettingsError, match=r"Handlers\.boom and Handlers\.boom handle the same operation"):
        bind(sample_api.document(), sample_api.Handlers(), sample_api.Handlers(), describe_error=describe_error)


async def too_few(self: object) -> Any:
    """Lack the id."""


async def too_many(self: object, thing_id: str, other: str) -> Any:
    """Take one parameter too many."""


async def misnamed(self: object, thingId: str) -> Any:  # noqa: N803
    """Name the parameter as in the spec, not in snake_case."""


@pytest.mark.parametrize("handler", [too_few, too_many, misnamed])
def test_a_handler_with_other_parameters_stops_the_start(handler: Callable[..., Any]) -> None:
    """Otherwise the first request would fail with a 500."""
    handlers = without("get_thing")
    handlers.get_thing = handler  # type: ignore[attr-defined]
    with pytest.raises(SettingsError) as stop:
        sample_api.app(handlers=handlers())
    assert (
        "Handlers.get_thing does not take the parameters of GET /things/{thingId}. Its skeleton:" in stop.value.detail
    )
    assert "async def get_thing(self, thing_id: str) -> Response[bytes]:" in stop.value.detail


def test_a_handler_of_a_secured_operation_takes_the_caller() -> None:
    """Also if the operation has no parameters: without the caller it would serve everyone the same data."""

    class Handlers(sample_api.Handlers):
        async def secret(self) -> Response[Any]:  # type: ignore[override]
            """Lack the caller."""
            return sample_api.arrived()

    document = sample_api.document()
    del document["paths"]["/secret"]["get"]["parameters"]
    with pytest.raises(SettingsError, match=r"Handlers\.secret does not take the parameters of GET /secret"):
        sample_api.app(document, handlers=Handlers())


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": [sample_api.parameter("session", "cookie", type="string")]},
        {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
    ],
)
def test_an_unsupported_parameter_or_body_stops_the_start(change: dict[str, Any]) -> None:
    """It would reach the handler without validation."""
    document = sample_api.document()
    document["paths"]["/boom"]["get"].update(change)
    handlers = without("boom")

    async def boom(self: object, session: str | None = None) -> Any:
        """Take the cookie."""

    async def boom_with_body(self: object) -> Any:
        """Take no body."""

    handlers.boom = boom if "parameters" in change else boom_with_body  # type: ignore[attr-defined]
    with pytest.raises(NotImplementedError, match=r"cookies: \['session'\]|request bodies"):
        sample_api.app(document, handlers())


async def test_a_stream_is_closed_when_its_request_is_cancelled() -> None:
    """Otherwise a viewer would still be counted after a shutdown."""
    stuck, closed, never = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            yield b"part"
        finally:
            closed.set()

    async def receive() -> Message:
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("more_body"):
            stuck.set()
            await never.wait()

    stream = EventStream(parts())
    request = asyncio.create_task(stream.send_until_disconnected({"method": "GET"}, receive, send))
    await asyncio.wait_for(stuck.wait(), 5)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert closed.is_set()


def test_head_is_answered_wherever_get_is(base: str) -> None:
    """RFC 9110 §9.3.2: the same headers, no body."""
    get, head = ask(base, "/things/7"), ask(base, "/things/7", "HEAD")
    assert (head.status, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]
    assert ask(base, "/search?size=x", "HEAD").status == 400
    assert ask(base, "/nothing", "HEAD").status == 404


@pytest.mark.parametrize(
    ("target", "method", "allow"),
    [
        ("/things/7", "POST", "DELETE, GET, HEAD, PUT"),
        ("/things/7", "PATCH", "DELETE, GET, HEAD, PUT"),
        ("/things/7", "OPTIONS", "DELETE, GET, HEAD, PUT"),
        ("/search", "PUT", "GET, HEAD"),
        ("/search", "QUERY", "GET, HEAD"),
    ],
)
def test_an_unknown_method_is_405_with_a_complete_allow_header(base: str, target: str, method: str, allow: str) -> None:
    """RFC 9110 §15.5.6; Connexion alone would list only the first operation."""
    answer = ask(base, target, method)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert allow in answer.detail


@pytest.mark.parametrize(
    "target", ["/", "/nothing", "/search/", "//search", "/Search", "/things/", "/things/a/b", "/things/7/"]
)
def test_a_path_that_is_not_in_the_spec_is_404(base: str, target: str) -> None:
    """Also with a trailing slash: a redirect could lose the client's token or method."""
    answer = ask(base, target)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert answer.detail


def test_a_body_over_the_limit_is_413_before_it_is_read(base: str) -> None:
    """Content-Length is enough to know."""
    answer = ask(base, "/boom", headers={"Content-Length": str(LARGEST_BODY_BYTES + 1)})
    assert (answer.status, answer.body["error"][0]["title"]) == (413, "Content Too Large")
    assert str(LARGEST_BODY_BYTES) in answer.detail


def test_a_small_body_is_ignored(base: str) -> None:
    """Some clients send one with every request."""
    length, chunked = {"Content-Length": str(LARGEST_BODY_BYTES)}, {"Transfer-Encoding": "chunked"}
    assert ask(base, "/things/7", headers=length, body=b"x" * LARGEST_BODY_BYTES).status == 200
    assert ask(base, "/things/7", headers=chunked, body=b"2\r\n{}\r\n0\r\n\r\n").status == 200


def test_an_unexpected_error_is_a_generic_500_and_its_traceback_is_logged(
    base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Internals are for the operator only."""
    with caplog.at_level(logging.ERROR):
        answer = ask(base, "/boom")
    assert answer.status == 500
    assert answer.body["error"][0]["title"] == "Internal Server Error"
    assert "hunter2" not in answer.content.decode()
    assert "RuntimeError" not in answer.content.decode()
    assert "RuntimeError: the password is hunter2" in caplog.text
    assert "Traceback" in caplog.text


def test_the_token_is_checked_before_the_parameters(base: str) -> None:
    """The contract defines this order."""
    target = "/secret?size=x"
    unknown = ask(base, target)
    assert (unknown.status, unknown.headers["www-authenticate"]) == (401, 'Bearer realm="product-gateway"')
    assert ask(base, target, headers={"Authorization": "Bearer now!"}).detail == "Say please."
    assert ask(base, target, headers={"Authorization": "Bearer please"}).status == 400
    polite = ask(base, "/secret?size=1", headers={"Authorization": "bEARER please"})
    assert polite.body == {"caller": "'polite caller'", "size": "1"}


@pytest.mark.parametrize("name", [documents.GATEWAY, documents.OPERATIONS])
def test_a_document_without_responses_is_a_valid_document(name: str) -> None:
    """It has every operation, every parameter and every schema that they reference."""
    document = documents.load(name)
    left = documents.without_responses(document)
    OpenAPIV30SpecValidator(left).validate()
    assert [each[:2] for each in documents.operations(left)] == [each[:2] for each in documents.operations(document)]
    named = set(re.findall(r"'#/([\w/]+)'", repr(left)))
    assert all(documents.resolve(left, {"$ref": f"#/{each}"}) for each in named)
