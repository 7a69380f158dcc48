"""Changes of responses whose effect on clients `make compatibility` must judge correctly."""

from collections.abc import Callable
from dataclasses import dataclass, field

from product_gateway.sandbox.mutation import Exchange, Kind, Mutation

LIST, STATUS, SYNC, ENQUEUE = "listProducts", "getSyncStatus", "getSync", "enqueueSync"
HTTPX, URLLIB3 = "python-httpx", "python-urllib3"
NONE: frozenset[str] = frozenset()
BOTH = frozenset({HTTPX, URLLIB3})


@dataclass(frozen=True)
class Planted:
    """A change, and which of the clients HTTPX and URLLIB3 it `breaks`."""

    name: str
    breaks: frozenset[str]
    operation: str
    apply: Callable[[Exchange], object]
    status: int = 200
    met: list[str] = field(default_factory=list)  # an entry for each changed response

    @property
    def mutations(self) -> tuple[Mutation, ...]:
        """Return the change as a mutation of responses with this operation and status."""

        def change(exchange: Exchange) -> None:
            if (exchange.operation_id, exchange.status) == (self.operation, self.status):
                self.apply(exchange)
                self.met.append(self.operation)

        return (Mutation(self.name, self.name, Kind.RESPONSE, frozenset(), change),)


def remove_header(exchange: Exchange, name: bytes) -> None:
    """Remove a header from the response."""
    exchange.headers = [each for each in exchange.headers if each[0].lower() != name]


def pause(exchange: Exchange) -> None:
    """Call an active sync PAUSED."""
    if exchange.body["data"]["status"] in ("QUEUED", "IN_PROGRESS"):
        exchange.body["data"]["status"] = "PAUSED"


def move_errors(exchange: Exchange) -> None:
    """Rename the member with the errors."""
    exchange.body["errors"] = exchange.body.pop("error")


PLANTED = (
    Planted("a member is added", NONE, SYNC, lambda each: each.body["data"].update(colour="red")),
    Planted("a header is added", NONE, LIST, lambda each: each.headers.append((b"x-new", b"1"))),
    Planted("an optional member is absent", NONE, LIST, lambda each: each.body["data"][0].pop("description", None)),
    Planted("a header becomes shorter: Location", NONE, ENQUEUE,
            lambda each: each.change_header(b"location", lambda old: old.rpartition(b"/")[2]), 202),
    Planted("a header becomes shorter: Content-Type", frozenset({URLLIB3}), STATUS,
            lambda each: each.change_header(b"content-type", lambda _: b"json")),
    Planted("an enum gains a value", BOTH, SYNC, pause),
    Planted("a number becomes text", frozenset({URLLIB3}), STATUS,
            lambda each: each.body["data"].update(numRecords=str(int(each.body["data"]["numRecords"])))),
    Planted("a required member is absent", BOTH, STATUS, lambda each: each.body["data"].pop("numRecords")),
    Planted("a required member is null", frozenset({URLLIB3}), SYNC,
            lambda each: each.body["data"].update(attempt=None)),
    Planted("a time is a number", frozenset({HTTPX}), SYNC,
            lambda each: each.body["data"].update(queuedAt=1763892000)),
    Planted("a page lacks its cursor", BOTH, LIST, lambda each: each.body["meta"].pop("nextCursor", None)),
    Planted("a header is absent: Retry-After", BOTH, ENQUEUE, lambda each: remove_header(each, b"retry-after"), 429),
    Planted("the errors have another name", BOTH, ENQUEUE, move_errors, 401),
)  # fmt: skip
