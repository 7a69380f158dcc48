"""Starlette over a raw driver, with batches and a token cache: the practical limit in Python."""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import make_url
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uuid_utils.compat import uuid7

from peers import words
from peers.words import API, Refused

COLUMNS = (
    "id, entity_type, status, queued_at, started_at, finished_at, attempt, records_read, records_total, created, "
    "updated, unchanged, deleted, rejected, failure_code, failure_detail, "
    "publication, generation, reverts"
)
NAMES = COLUMNS.split(", ")
OF_TYPE = "merchant = {} AND entity_type = {}"
IS_ACTIVE = "status IN ('QUEUED', 'IN_PROGRESS')"
MOST = 200

known: dict[str, tuple[float, dict[str, Any]]] = {}


def claims(token: str) -> dict[str, Any]:
    """Verify each token once, and cache it until it expires."""
    found = known.get(token)
    if found is None or found[0] < time.time():
        checked = words.claims(token)
        found = known[token] = float(checked["exp"]), checked
    return found[1]


def sync(row: Any) -> Any:
    """With names."""
    return None if row is None else SimpleNamespace(**dict(zip(NAMES, row, strict=True)))


class Sqlite:
    """One thread that commits all waiting work together."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def start(self) -> None:
        """The thread."""
        threading.Thread(target=self._run, daemon=True).start()

    async def do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Runs it, durably."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put((work, future))
        return await future

    def _run(self) -> None:
        connection = sqlite3.connect(make_url(words.DATABASE).database or "", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        while True:
            batch = [self._waiting.get()]
            while len(batch) < MOST and not self._waiting.empty():
                batch.append(self._waiting.get())
            connection.execute("BEGIN IMMEDIATE")
            done = []
            for work, future in batch:
                try:
                    done.append((future, work(connection), None))
                except Refused as error:
                    done.append((future, None, error))
            connection.execute("COMMIT")
            done[0][0].get_loop().call_soon_threadsafe(_settle, done)

    async def enqueue(self, merchant: str, entity_type: str) -> Any:
        """Reads first: a refusal writes nothing."""

        def work(connection: sqlite3.Connection) -> Any:
            _admitted(connection, merchant)
            key = merchant, entity_type
            active = connection.execute(
                f"SELECT {COLUMNS} FROM syncs WHERE {OF_TYPE.format('?', '?')} AND {IS_ACTIVE}", key
            ).fetchone()
            if active is not None:
                raise words.already_active(_named(active))
            return connection.execute(
                "INSERT INTO syncs (merchant, entity_type, id, status, queued_at) VALUES (?, ?, ?, 'QUEUED', "
                f"strftime('%Y-%m-%d %H:%M:%f000', 'now')) RETURNING {COLUMNS}",
                (*key, uuid7().hex),
            ).fetchone()

        return _named(await self.do(work))

    async def status(self, merchant: str, entity_type: str) -> Any:
        """The count, and the latest sync."""

        def work(connection: sqlite3.Connection) -> Any:
            _admitted(connection, merchant)
            key = merchant, entity_type
            count = connection.execute(
                "SELECT entity_type, updated_at, num_records, generation FROM catalog_counts "
                f"WHERE {OF_TYPE.format('?', '?')}",
                key,
            ).fetchone()
            latest = connection.execute(
                f"SELECT {COLUMNS} FROM syncs WHERE {OF_TYPE.format('?', '?')} "
                "ORDER BY queued_at DESC, id DESC LIMIT 1",
                key,
            ).fetchone()
            return count, latest

        count, latest = await self.do(work)
        return _counted(count), _named(latest)

    async def get(self, merchant: str, sync_id: UUID) -> Any:
        """One sync."""

        def work(connection: sqlite3.Connection) -> Any:
            _admitted(connection, merchant)
            return connection.execute(
                f"SELECT {COLUMNS} FROM syncs WHERE merchant = ? AND id = ?", (merchant, sync_id.hex)
            ).fetchone()

        return _named(await self.do(work))


def _admitted(connection: sqlite3.Connection, merchant: str) -> None:
    row = connection.execute("SELECT disabled, platform FROM merchants WHERE name = ?", (merchant,)).fetchone()
    words.admit(row and SimpleNamespace(disabled=row[0], platform=row[1]))


def _settle(done: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
    for future, result, error in done:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _named(row: Any) -> Any:
    found = sync(row)
    if found is not None and isinstance(found.id, str):
        found.id = UUID(found.id)
    return found


def _counted(row: Any) -> Any:
    names = ("entity_type", "updated_at", "num_records", "generation")
    return None if row is None else SimpleNamespace(**dict(zip(names, row, strict=True)))


class Postgresql:
    """Two connections, each with one statement for all waiting work."""

    async def start(self) -> None:
        """Connections, and a task for each."""
        dsn = make_url(words.DATABASE).set(drivername="postgresql").render_as_string(hide_password=False)
        self._waiting: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._run(await asyncpg.connect(dsn))) for _ in range(2)]

    async def _ask(self, *question: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((question, future))
        return await future

    async def _run(self, connection: Any) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MOST and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            for kind in ("enqueue", "status", "get"):
                asked = [each for each in batch if each[0][0] == kind]
                if asked:
                    await getattr(self, f"_{kind}")(connection, asked)

    async def _enqueue(self, connection: Any, asked: list[Any]) -> None:
        asked.sort(key=lambda each: each[0][1:])  # always in this order, or two batches wait for each other
        lists = [each[0][1] for each in asked], [each[0][2] for each in asked]
        rows = await connection.fetch(ENQUEUE, *lists, [uuid7() for _ in asked])
        self._deal(asked, {(row[0], row[1]): row for row in rows})

    async def _status(self, connection: Any, asked: list[Any]) -> None:
        rows = await connection.fetch(STATUS, [each[0][1] for each in asked], [each[0][2] for each in asked])
        self._deal(asked, {(row[0], row[1]): row for row in rows})

    async def _get(self, connection: Any, asked: list[Any]) -> None:
        rows = await connection.fetch(GET, [each[0][1] for each in asked], [each[0][2] for each in asked])
        self._deal(asked, {(row[0], row[1]): row for row in rows})

    def _deal(self, asked: list[Any], found: dict[Any, Any]) -> None:
        for (_, *key), future in asked:
            if not future.done():
                future.set_result(found.get(tuple(key)))

    async def enqueue(self, merchant: str, entity_type: str) -> Any:
        """Of two that ask for the same in one batch, the first gets it."""
        row = await self._ask("enqueue", merchant, entity_type)
        _admitted_row(row)
        found = sync(row[5:])
        if not row[4]:
            raise words.already_active(found)
        return found

    async def status(self, merchant: str, entity_type: str) -> Any:
        """The count, and the latest sync."""
        row = await self._ask("status", merchant, entity_type)
        _admitted_row(row)
        return _counted((entity_type, *row[4:7])), sync(row[7:])

    async def get(self, merchant: str, sync_id: UUID) -> Any:
        """One sync."""
        row = await self._ask("get", merchant, sync_id)
        _admitted_row(row)
        return sync(row[5:]) if row[5] is not None else None


def _admitted_row(row: Any) -> None:
    words.admit(None if row is None or row[3] is None else SimpleNamespace(disabled=row[2], platform=row[3]))


OF_S = ", ".join(f"s.{name}" for name in NAMES)
ENQUEUE = f"""
WITH asked AS (SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[]) AS a (merchant, entity_type, id)),
fresh AS (
    INSERT INTO syncs (merchant, entity_type, id, status, queued_at)
    SELECT a.merchant, a.entity_type, a.id, 'QUEUED', clock_timestamp()
    FROM asked a JOIN merchants m ON m.name = a.merchant AND NOT m.disabled AND m.platform = 'BYOP'
    ON CONFLICT DO NOTHING RETURNING *
)
SELECT a.merchant, a.entity_type, m.disabled, m.platform, true, {OF_S}
FROM asked a JOIN merchants m ON m.name = a.merchant JOIN fresh s USING (merchant, entity_type)
UNION ALL
SELECT a.merchant, a.entity_type, m.disabled, m.platform, false, {OF_S}
FROM asked a JOIN merchants m ON m.name = a.merchant
JOIN syncs s ON s.merchant = a.merchant AND s.entity_type = a.entity_type AND s.{IS_ACTIVE}
"""
STATUS = f"""
SELECT a.merchant, a.entity_type, m.disabled, m.platform, c.updated_at, c.num_records, c.generation, {OF_S}
FROM unnest($1::text[], $2::text[]) AS a (merchant, entity_type)
LEFT JOIN merchants m ON m.name = a.merchant
LEFT JOIN catalog_counts c ON c.merchant = a.merchant AND c.entity_type = a.entity_type
LEFT JOIN LATERAL (
    SELECT * FROM syncs l WHERE l.merchant = a.merchant AND l.entity_type = a.entity_type
    ORDER BY l.queued_at DESC, l.id DESC LIMIT 1
) s ON true
"""
GET = f"""
SELECT a.merchant, a.id, m.disabled, m.platform, true, {OF_S}
FROM unnest($1::text[], $2::uuid[]) AS a (merchant, id)
LEFT JOIN merchants m ON m.name = a.merchant
LEFT JOIN syncs s ON s.merchant = a.merchant AND s.id = a.id
"""
store: Any = Sqlite() if words.DATABASE.startswith("sqlite") else Postgresql()


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


def _who(request: Request, scope: str) -> str:
    return words.who(claims(words.bearer(request.headers.get("authorization"))), scope)


async def enqueue(request: Request) -> Response:
    """202 or 429."""
    merchant = _who(request, "sync:write")
    found = await store.enqueue(merchant, words.entity_type(request.path_params["entity_type"]))
    return _json({"data": words.sync_body(found), "meta": {}}, 202, words.accepted(found))


async def status(request: Request) -> Response:
    """200 or 404."""
    merchant = _who(request, "sync:read")
    return _json(
        words.status_body(*await store.status(merchant, words.entity_type(request.path_params["entity_type"])))
    )


async def get(request: Request) -> Response:
    """200 or 404."""
    merchant = _who(request, "sync:read")
    found = await store.get(merchant, request.path_params["sync_id"])
    if found is None:
        raise Refused(404, "There is no such sync.")
    return _json({"data": words.sync_body(found), "meta": {}})


async def refused(_: Request, error: Exception) -> Response:
    """The contract's error body."""
    assert isinstance(error, Refused)
    return _json(error.body, error.status, error.headers)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Start and stop the store."""
    await store.start()
    yield


app = Starlette(
    routes=[
        Route(f"{API}/sync/{{entity_type}}", enqueue, methods=["PUT"]),
        Route(f"{API}/sync/{{entity_type}}", status, methods=["GET"]),
        Route(f"{API}/syncs/{{sync_id:uuid}}", get, methods=["GET"]),
    ],
    exception_handlers={Refused: refused},
    lifespan=lifespan,
)
