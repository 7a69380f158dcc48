"""Released specs are kept with their tours, and the sandbox can be reduced to each of them."""

from pathlib import Path

import pytest
import yaml

from product_gateway.openapi import documents
from product_gateway.sandbox.mutation import Exchange
from tests.support.planted_changes import NONE, PLANTED
from tests.support.released_gateway import Reduction
from tests.tools.api_changes import WE_SERVE, Comparison, Node, versions
from tests.tools.client_roster import CLIENTS

RELEASES = [path for name in WE_SERVE for path in versions(name)]


def first() -> Node:
    """Return the spec of the first release."""
    spec: Node = yaml.safe_load(versions(documents.GATEWAY)[0].read_bytes())
    return spec


def exchange(operation_id: str, status: int, body: Node) -> Exchange:
    """Return a response with a header that the first release lacks."""
    return Exchange(operation_id, "", [(b"prefer", b"wait=20"), (b"accept", b"*/*")], {}, status, [
        (b"Location", b"/"), (b"ETag", b'"1"'), (b"Content-Type", b"application/json"),
    ], body)  # fmt: skip


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_released_spec_is_in_the_folder_of_its_version(path: Path) -> None:
    """The folder of the gateway's spec also has a tour of each client."""
    assert yaml.safe_load(path.read_bytes())["info"]["version"] == path.parent.name
    assert {each.name for each in (path.parent / "tours").iterdir()} == {client.name for client in CLIENTS}


def test_the_reduced_sandbox_sends_only_what_the_release_knows() -> None:
    """Members, headers and parameters of today's spec are removed."""
    request, response = Reduction(first()).mutations
    sync = {"id": "1", "result": {"created": 1, "reverted": 2}, "publication": "AUTOMATIC"}
    made = exchange("getSync", 200, {"data": sync, "meta": {}})
    request.change(made)
    response.change(made)
    assert made.request_headers == [(b"accept", b"*/*")]
    assert made.body == {"data": {"id": "1", "result": {"created": 1}}, "meta": {}}


def test_the_reduced_sandbox_has_only_the_operations_of_the_release() -> None:
    """The tours of today's clients end there."""
    reduction = Reduction(first())
    made = exchange("listChanges", 200, {"data": []})
    reduction.mutations[1].change(made)
    assert (made.status, made.body["error"][0]["status"], reduction.missing) == (404, "404", {"listChanges"})


def test_a_spec_diff_does_not_see_a_shorter_header() -> None:
    """A shorter Content-Type breaks a client nevertheless: only running clients shows that."""
    old, new = first(), first()
    new["components"]["headers"]["SyncLocation"]["schema"]["maxLength"] = 10
    assert Comparison(old, new, ours=True).findings() == []
    shorter = {each.name: each.breaks for each in PLANTED if each.name.startswith("a header becomes shorter")}
    assert NONE in shorter.values()
    assert any(shorter.values())
