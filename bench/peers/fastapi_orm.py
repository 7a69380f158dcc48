"""FastAPI with SQLAlchemy's async ORM: the common way."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from stores import with_driver
from uuid_utils.compat import uuid7

from peers import words
from peers.words import API, Refused
from product_gateway.db import tables
from product_gateway.model.syncs import EntityType

ACTIVE = ("QUEUED", "IN_PROGRESS")


class Base(DeclarativeBase):
    """All models."""


class Merchant(Base):
    __table__ = tables.merchants


class Sync(Base):
    __table__ = tables.syncs
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012


class Count(Base):
    """The number of records of a merchant."""

    __table__ = tables.catalog_counts


url = with_driver(words.DATABASE, "aiosqlite" if words.DATABASE.startswith("sqlite") else "asyncpg")
if url.get_backend_name() == "sqlite":
    engine = create_async_engine(url, connect_args={"timeout": words.SECONDS_TO_WAIT}, pool_size=8)

    @event.listens_for(engine.sync_engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
else:
    engine = create_async_engine(url, pool_size=16)
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI(openapi_url=None)


async def session() -> AsyncIterator[AsyncSession]:
    """Open a session for each request."""
    async with sessions() as made:
        yield made


Session = Annotated[AsyncSession, Depends(session)]


def caller(scope: str) -> Any:
    """Return the merchant, if it may sync."""

    async def admitted(request: Request, session: Session) -> str:
        claims = words.claims(words.bearer(request.headers.get("authorization")))
        name = words.who(claims, scope)
        words.admit(await session.get(Merchant, name))
        return name

    return Depends(admitted)


Type = Annotated[EntityType, Path(alias="entityType")]


@app.put(f"{API}/sync/{{entityType}}")
async def enqueue(entity_type: Type, session: Session, merchant: Annotated[str, caller("sync:write")]) -> JSONResponse:
    """Insert a sync; the unique index rejects a second one."""
    sync = Sync(
        merchant=merchant, id=uuid7(), entity_type=entity_type.value, status="QUEUED", queued_at=datetime.now(UTC)
    )
    session.add(sync)
    try:
        await session.commit()
    except IntegrityError:
        await session.rollback()
        active = await session.scalar(
            select(Sync).where(
                Sync.merchant == merchant, Sync.entity_type == entity_type.value, Sync.status.in_(ACTIVE)
            )
        )
        raise words.already_active(active) from None
    return JSONResponse({"data": words.sync_body(sync), "meta": {}}, 202, words.accepted(sync))


@app.get(f"{API}/sync/{{entityType}}")
async def status(entity_type: Type, session: Session, merchant: Annotated[str, caller("sync:read")]) -> dict[str, Any]:
    """Return the count and the latest sync."""
    count = await session.get(Count, (merchant, entity_type.value))
    latest = await session.scalar(
        select(Sync)
        .where(Sync.merchant == merchant, Sync.entity_type == entity_type.value)
        .order_by(Sync.queued_at.desc(), Sync.id.desc())
        .limit(1)
    )
    return words.status_body(count, latest)


@app.get(f"{API}/syncs/{{syncId}}")
async def get(
    sync_id: Annotated[UUID, Path(alias="syncId")], session: Session, merchant: Annotated[str, caller("sync:read")]
) -> dict[str, Any]:
    """Return one sync of this merchant."""
    sync = await session.get(Sync, (merchant, sync_id))
    if sync is None:
        raise Refused(404, f"There is no sync {sync_id}.")
    return {"data": words.sync_body(sync), "meta": {}}


@app.exception_handler(Refused)
async def refused(_: Request, error: Refused) -> JSONResponse:
    """Return the contract's error body."""
    return JSONResponse(error.body, error.status, error.headers)


@app.exception_handler(RequestValidationError)
async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Report an authentication error before a validation error."""
    found = Refused(400, str(error.errors()[0]["msg"]))
    return JSONResponse(found.body, found.status)
