"""HTTPProtocol subclasses uvicorn's protocol: an upgrade of uvicorn that changes what it relies on must fail here."""

import inspect

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from product_gateway.http.protocol import HTTPProtocol

OVERRIDDEN = {
    "__init__": ["config", "server_state", "app_state", "_loop"],
    "data_received": ["data"],
    "eof_received": [],
    "connection_lost": ["exc"],
    "on_message_begin": [],
    "on_header": ["name", "value"],
    "on_headers_complete": [],
    "on_body": ["body"],
    "on_message_complete": [],
    "_start_asgi_task": ["cycle", "app"],
    "on_response_complete": [],
    "pause_writing": [],
    "resume_writing": [],
    "shutdown": [],
}
ATTRIBUTES = ("client", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser", "pipeline", "scope",
              "server_state", "transport")  # fmt: skip
CYCLE_ATTRIBUTES = ("disconnected", "keep_alive", "message_event", "response_complete", "response_started", "scope",
                    "transport")  # fmt: skip


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_each_overridden_method_of_uvicorn_exists_with_its_parameters(name: str) -> None:
    assert list(inspect.signature(getattr(HttpToolsProtocol, name)).parameters)[1:] == OVERRIDDEN[name]


def test_no_other_method_of_uvicorn_is_overridden() -> None:
    methods = {name for name, member in vars(HTTPProtocol).items() if callable(member)}
    assert methods & set(vars(HttpToolsProtocol)) == set(OVERRIDDEN)


@pytest.mark.parametrize(
    ("owner", "names"), [(HttpToolsProtocol, ATTRIBUTES), (RequestResponseCycle, CYCLE_ATTRIBUTES)]
)
def test_each_used_attribute_of_uvicorn_exists(owner: type, names: tuple[str, ...]) -> None:
    assert set(names) <= {*owner.__init__.__code__.co_names, *vars(owner)}  # type: ignore[misc]


def test_uvicorn_passes_new_requests_to_one_method_or_the_pipeline() -> None:
    """HTTPProtocol starts requests itself, after it has checked the bytes that follow them."""
    names = HttpToolsProtocol.on_headers_complete.__code__.co_names
    assert {"_start_asgi_task", "pipeline", "appendleft", "response_complete"} <= set(names)
