"""Part of `make soak`: the memory of a worker over fifty pulls that fail late."""

import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.responses import Response, StreamingResponse

from product_gateway.db import merchants, migrate, syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, Sync, SyncStatus
from tests.support import databases
from tests.support.deployment import Deployment, within
from tests.support.load import Footprint
from tests.support.serving import serve

MEBIBYTE = 1024 * 1024
BODY, CHUNK = 70 * MEBIBYTE, b" " * 65536
MAX_PAGE_BYTES = 64 * MEBIBYTE  # the default
PULLS, WARM_UP = 50, 18  # three pulls of each kind: memory rises once in the first of them
MOST_BYTES = 30 * MEBIBYTE  # more in the end than after the warm-up
ENDS_WITHIN = 120.0
PRODUCT = EntityType.PRODUCT


def streamed(size: int, end: bytes = b"", *, whole: bool = True) -> StreamingResponse:
    """Stream blank bytes, then `end` or a broken connection."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // len(CHUNK)):
            yield CHUNK
        if not whole:
            raise ConnectionAbortedError
        yield end

    return StreamingResponse(chunks())


KINDS: dict[str, Callable[[], Response]] = {
    "too large": lambda: streamed(BODY),
    "broken off": lambda: streamed(BODY // 2, whole=False),
    "invalid JSON": lambda: streamed(BODY // 2, b"{"),
    "invalid page": lambda: streamed(0, b'{"items": "%b", "pagination": {}}' % (b"x" * (BODY // 2))),
    "invalid UTF-8": lambda: streamed(BODY // 2, b'{"items": [{"id": "\xff"}], "pagination": {"moreResults": false}}'),
    "unavailable": lambda: Response(bytes(BODY // 2), 503),
}


class FailingService:
    """A product service that fails in another way at each pull."""

    def __init__(self) -> None:
        self.kind = "too large"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] == "http":
            with contextlib.suppress(ConnectionAbortedError, OSError):
                await KINDS[self.kind]()(scope, receive, send)


def growth(folder: Path, url: str) -> tuple[str, list[str]]:
    """Run the pulls in a worker. Return a line about its memory, and a list of problems."""
    folder.mkdir(parents=True, exist_ok=True)
    deployment = Deployment(folder, url, request_attempts="2", max_page_bytes=str(MAX_PAGE_BYTES))
    service, seen = FailingService(), list[float]()
    name = url.partition(":")[0]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve(service))
        database = stack.enter_context(open_database(url))
        database.call(migrate.upgrade)
        database.call(merchants.add, "shop", Platform.BYOP, address, None)
        worker = stack.enter_context(deployment.process("worker"))
        for kind in itertools.islice(itertools.cycle(KINDS), PULLS):
            service.kind = kind
            sync: Sync = database.call(enqueue, "shop", PRODUCT)
            ended = within(ENDS_WITHIN, functools.partial(_ended, database, sync))
            if ended.status is not SyncStatus.FAILED or ended.failure_code == "INTERNAL_ERROR":
                return name, [f"{name}: {kind}: {ended.status} {ended.failure_code} {ended.failure_detail}"]
            seen.append(Footprint.of(worker.pid).rss)
    before, after = max(seen[:WARM_UP]), min(seen[-len(KINDS) :])
    line = (
        f"{name}: {PULLS} failed pulls of up to {BODY // MEBIBYTE} MiB a page: the worker's memory went from "
        f"{before / MEBIBYTE:.1f} MiB (the most of the first {WARM_UP}) to {after / MEBIBYTE:.1f} MiB, "
        f"at most {max(seen) / MEBIBYTE:.1f} MiB after a pull"
    )
    grown = max(after, seen[-1]) - before
    return line, [f"{line}: {grown / MEBIBYTE:.1f} MiB more"] if grown > MOST_BYTES else []


def on_both_databases(folder: Path) -> tuple[list[str], list[str]]:
    """Return lines about each database, and a list of problems."""
    with databases.postgresql() as postgresql:
        found = [
            growth(folder / "sqlite", f"sqlite:///{folder / 'sqlite' / 'gateway.db'}"),
            growth(folder / "postgresql", postgresql),
        ]
    return [line for line, _ in found], [each for _, wrong in found for each in wrong]


def _ended(database: Database, sync: Sync) -> Sync | None:
    now = database.call(syncs.get, sync.merchant, sync.id)
    return None if now.is_active else now


if __name__ == "__main__":
    import tempfile

    for lines in on_both_databases(Path(tempfile.mkdtemp(prefix="failed-pulls"))):
        print("\n".join(lines))
