"""Plain Connexion, with a thread pool and SQLAlchemy."""

from typing import Any
from uuid import UUID

from anyio import to_thread
from connexion import AsyncApp
from connexion.exceptions import ProblemException
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.resolver import Resolver
from sqlalchemy import Connection, create_engine, event, insert, select, text
from sqlalchemy.exc import IntegrityError
from starlette.responses import JSONResponse
from stores import with_driver
from uuid_utils.compat import uuid7

from peers import words
from peers.words import Refused
from product_gateway.db.tables import ACTIVE, catalog_counts, merchants, syncs
from product_gateway.db.types import now
from product_gateway.openapi import documents

url = with_driver(words.DATABASE, "pysqlite" if words.DATABASE.startswith("sqlite") else "psycopg")
engine = create_engine(
    url, pool_size=40, connect_args={"timeout": words.SECONDS_TO_WAIT} if url.get_backend_name() == "sqlite" else {}
)


if url.get_backend_name() == "sqlite":

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")


def _admit(connection: Connection, name: str) -> None:
    words.admit(connection.execute(select(merchants).where(merchants.c.name == name)).first())


def _enqueue(merchant: str, entity_type: str) -> Any:
    of_type = (syncs.c.merchant == merchant) & (syncs.c.entity_type == entity_type)
    with engine.connect() as connection:
        _admit(connection, merchant)
        connection.rollback()
        new = insert(syncs).values(
            merchant=merchant, id=uuid7(), entity_type=entity_type, status="QUEUED", queued_at=now()
        )
        try:
            row = connection.execute(new.returning(syncs)).one()
            connection.commit()
        except IntegrityError:
            connection.rollback()
            raise words.already_active(connection.execute(select(syncs).where(of_type, text(ACTIVE))).first()) from None
        return row


def _status(merchant: str, entity_type: str) -> Any:
    with engine.connect() as connection:
        _admit(connection, merchant)
        found = connection.execute(
            select(catalog_counts).where(
                catalog_counts.c.merchant == merchant, catalog_counts.c.entity_type == entity_type
            )
        ).first()
        latest = connection.execute(
            select(syncs)
            .where(syncs.c.merchant == merchant, syncs.c.entity_type == entity_type)
            .order_by(syncs.c.queued_at.desc(), syncs.c.id.desc())
            .limit(1)
        ).first()
        return words.status_body(found, latest)


def _get(merchant: str, sync_id: Any) -> Any:
    with engine.connect() as connection:
        _admit(connection, merchant)
        found = connection.execute(select(syncs).where(syncs.c.merchant == merchant, syncs.c.id == sync_id)).first()
        if found is None:
            raise Refused(404, f"There is no sync {sync_id}.")
        return found


async def _enqueue_sync(entity_type: str, token_info: dict[str, Any]) -> Any:
    sync = await to_thread.run_sync(_enqueue, words.who(token_info, "sync:write"), entity_type)
    return {"data": words.sync_body(sync), "meta": {}}, 202, words.accepted(sync)


async def _get_sync_status(entity_type: str, token_info: dict[str, Any]) -> Any:
    return await to_thread.run_sync(_status, words.who(token_info, "sync:read"), entity_type)


async def _get_sync(sync_id: Any, token_info: dict[str, Any]) -> Any:
    sync = await to_thread.run_sync(_get, words.who(token_info, "sync:read"), UUID(str(sync_id)))
    return {"data": words.sync_body(sync), "meta": {}}


async def _not_here(**_: Any) -> Any:
    raise Refused(404, "This peer has three operations.")


def bearer_info(token: str) -> Any:
    """Check the token; Connexion calls it for each request."""
    try:
        return words.claims(token)
    except Refused:
        return None  # Connexion makes a 401 of it


def _refused(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    assert isinstance(error, Refused)
    return _sent(error)


def _problem(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    assert isinstance(error, ProblemException)
    return _sent(Refused(error.status, str(error.detail)))


def _sent(error: Refused) -> ConnexionResponse:
    return ConnexionResponse(
        status_code=error.status, content_type="application/json", headers=error.headers,
        body=JSONResponse(error.body).body,
    )  # fmt: skip


HANDLERS = {"enqueueSync": _enqueue_sync, "getSyncStatus": _get_sync_status, "getSync": _get_sync}
document = {**documents.load(documents.GATEWAY)}
document["paths"] = {
    path: item
    for path, item in document["paths"].items()
    if {each.get("operationId") for each in item.values() if isinstance(each, dict)} & set(HANDLERS)
}
document["components"] = {
    **document["components"],
    "securitySchemes": {
        "bearerAuth": {"type": "http", "scheme": "bearer", "x-bearerInfoFunc": "peers.connexion_plain.bearer_info"}
    },
}
app = AsyncApp("peer")
app.add_api(
    document,
    resolver=Resolver(lambda operation_id: HANDLERS.get(operation_id, _not_here)),
    pythonic_params=True,
)
app.add_error_handler(Refused, _refused)
app.add_error_handler(ProblemException, _problem)
