"""Hostile bytes: each case has defined responses, the standard error body and a clean close."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import hostile_bytes, hostile_framing
from tests.support.contract import Gateway, gateway
from tests.support.deployment import API
from tests.support.hostile_bytes import TOKEN, Case
from tests.support.raw_http import LIVE, Conversation, Wire, assert_is_our_error

CASES: dict[str, Case] = {
    **hostile_bytes.BODIES,
    **hostile_bytes.HEADS,
    **hostile_bytes.LINES,
    **hostile_framing.SMUGGLING,
    **hostile_framing.ROWS,
}
SMALL = [name for name, case in CASES.items() if len(case.data) < 1_000 and not case.in_body]


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One server for all cases. At the end it still works, and no refused request had an effect."""
    folder = tmp_path_factory.mktemp("hostile-bytes")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}") as served:
        served.add("shop")
        yield served
        with served.of("shop") as client:
            assert client.put(f"{API}/sync/PRODUCT").status_code in (202, 429)
            synced = {each["entityType"] for each in client.get(f"{API}/syncs").json()["data"]}
        assert synced == {"PRODUCT"}, "a request that was refused has enqueued a sync"
        log = "".join(path.read_text() for path in folder.glob("serve-*.log"))
        assert "Traceback" not in log
        assert " ERROR " not in log
        assert " WARNING " not in log, log[log.index(" WARNING ") - 100 :][:1000]


@pytest.fixture(scope="module")
def token(served: Gateway) -> bytes:
    """A token of the merchant `shop` with all scopes."""
    return served.token("shop").encode()


def test_no_case_name_is_used_twice() -> None:
    """The tables are merged into one dict."""
    tables = [hostile_bytes.BODIES, hostile_bytes.HEADS, hostile_bytes.LINES]
    tables += [hostile_framing.SMUGGLING, hostile_framing.ROWS]
    assert len(CASES) == sum(map(len, tables)) > 150


@pytest.mark.parametrize("name", CASES)
def test_hostile_bytes_get_their_defined_responses(name: str, served: Gateway, token: bytes) -> None:
    """No 500, no hang, and no more responses than a strict reader sees requests."""
    case = CASES[name]
    with Wire(served.url, case.methods) as wire:
        if case.half_close:
            wire.send(case.data.replace(TOKEN, token))
            wire.half_close()
            check(case, wire.until_end())
        elif case.closes:
            check(case, wire.until_end(case.data.replace(TOKEN, token)))
        else:
            check(case, wire.replies(len(case.statuses), case.data.replace(TOKEN, token)))
            assert_still_serves(wire, len(case.statuses))


@pytest.mark.parametrize(
    ("start", "detail"),
    [
        (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + b"a" * 180, "This is TLS (https)"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 is not spoken here; HTTP/1.1 is."),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 443\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "the PROXY protocol"),
        (b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "the PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\1" * 12 + b"GET / HTTP/1.1\r\n\r\n", "the PROXY protocol"),
    ],
)
def test_another_protocol_is_named(start: bytes, detail: str, served: Gateway) -> None:
    """An operator whose proxy speaks it sees what to change, in the log too."""
    with Wire(served.url) as wire:
        (reply,) = wire.until_end(start).replies
    assert reply.status == 400
    assert detail in reply.body.decode()


@pytest.mark.parametrize("name", SMALL)
def test_responses_are_the_same_when_bytes_arrive_one_by_one(name: str, served: Gateway, token: bytes) -> None:
    """Parsers differ in the state that they keep from one packet to the next."""
    case = CASES[name]
    with Wire(served.url, case.methods) as wire:
        wire.trickle(case.data.replace(TOKEN, token))
        if case.half_close:
            wire.half_close()
        if case.closes:
            check(case, wire.until_end())
        else:
            check(case, wire.replies(len(case.statuses)))
            assert_still_serves(wire, len(case.statuses))


def check(case: Case, said: Conversation) -> None:
    """Check the statuses, the form of each error, and the end of the connection."""
    assert len(said.replies) == len(case.statuses), f"{said.statuses}, {said.end}; expected {case.statuses}"
    for number, (reply, allowed) in enumerate(zip(said.replies, case.statuses, strict=True)):
        assert reply.status in allowed, f"answer {number}: {reply}"
        is_head = case.methods[number : number + 1] == ("HEAD",)
        if reply.status >= 400:
            assert_is_our_error(reply, with_body=not is_head)
        assert not (is_head and reply.body)
    assert not any(each.closes for each in said.replies[:-1]), "an answer says that it is the last, and is not"
    if case.closes:
        assert said.end == "eof" or (case.may_reset and said.end == "reset"), said
        if not case.half_close:
            assert said.replies[-1].closes, "the answer does not say that the connection is closed"
    else:
        assert said.end == "open", said
        assert not said.replies[-1].closes


def assert_still_serves(wire: Wire, answered: int) -> None:
    """Check that the connection still works and has no bytes left over."""
    said = wire.until_end(LIVE)
    assert len(said.replies) == answered + 1, said.statuses[answered:]
    assert (said.replies[-1].status, said.end) == (200, "eof")
