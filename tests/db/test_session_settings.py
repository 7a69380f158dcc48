"""PostgreSQL's settings, which an operator may change for a database or a role, change nothing for the gateway."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, make_url, text

from product_gateway.db import (
    catalog,
    catalog_removal,
    catalog_write,
    claims,
    generations,
    merchants,
    migrate,
    monitor,
    readiness,
    syncs,
    webhooks,
)
from product_gateway.db.database import Database, connect, open_database
from product_gateway.db.enqueue import EnqueueRequest, enqueue_many
from product_gateway.errors import SyncAlreadyActive
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, Sync, SyncStatus
from tests.support import databases
from tests.support.commands import assert_refused
from tests.support.deployment import Deployment

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
DEADLINE = 30.0  # for a busy machine
ODD = {
    "client_encoding": ("LATIN1", "SQL_ASCII", "WIN1252", "EUC_JP"),
    "datestyle": ("SQL, DMY", "German", "Postgres, MDY", "ISO, YMD"),
    "timezone": ("America/St_Johns", "Asia/Kathmandu", "<+03>-03", "EST5EDT"),
    "intervalstyle": ("sql_standard", "iso_8601", "postgres_verbose"),
    "standard_conforming_strings": ("off",),
    "backslash_quote": ("off",),
    "bytea_output": ("escape",),
    "extra_float_digits": ("-15",),
    "array_nulls": ("off",),
    "transform_null_equals": ("on",),
    "row_security": ("off",),
    "quote_all_identifiers": ("on",),
    "xmloption": ("document",),
    "lc_messages": ("C",),
    "lc_time": ("C",),
    "default_transaction_isolation": ("serializable", "repeatable read", "read uncommitted"),
    "default_transaction_deferrable": ("on",),
    "statement_timeout": ("2s",),  # not shorter: it bounds the statement that sets our own
    "lock_timeout": ("1ms",),
    "idle_in_transaction_session_timeout": ("1ms",),
    "transaction_timeout": ("2s",),  # see test_neither_an_idle_session_nor_a_long_transaction_is_ended
    "client_min_messages": ("debug5", "error"),
    "plan_cache_mode": ("force_generic_plan",),
    "enable_indexscan": ("off",),
    "enable_nestloop": ("off",),
    "jit": ("on",),
    "synchronous_commit": ("off",),
}
ALL_AT_ONCE = {name: values[0] for name, values in ODD.items()}
TEXT = "Größe \\ ' \" ₂ 日本 🙂 \\x41 NULL"


def set_for_database(url: str, **settings: str) -> None:
    """As an operator may."""
    name = make_url(url).database
    elsewhere = make_url(url).set(database="postgres").render_as_string(hide_password=False)
    for setting, value in settings.items():
        databases.run(elsewhere, f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")


async def work(database: Database) -> None:
    """Use all kinds of transactions and of values."""
    await database.write(readiness.check_writable)
    name = f"null-{uuid4().hex[:8]}"
    await database.write(merchants.add, name, Platform.BYOP, "https://shop.example/ü'\\")
    await database.write(webhooks.put, name, url="https://receiver.example", secret="encrypted\\x41")
    wanted = [(name, PRODUCT), (name, COLLECTION)]
    made = await database.write(enqueue_many, [EnqueueRequest(*each) for each in wanted])
    assert all(isinstance(each, Sync) for each in made)
    (again,) = await database.write(enqueue_many, [EnqueueRequest(*wanted[0])])
    assert isinstance(again, SyncAlreadyActive)
    claim = None
    while claim is None or claim.merchant != name:
        assert await database.read(claims.has_claimable, 2)
        claim = await database.write(claims.claim, "tester", 600.0, 5, 2)
    records = (Record("NULL", '{"id": "NULL"}'), Record(TEXT, f'{{"title": "{TEXT}"}}', ("1", "NULL", TEXT)))
    await database.write(catalog_write.write_page, claim, Page(records, (), None, None), 600.0)
    assert await database.read(catalog_removal.missing, claim, 10) == []
    await database.write(catalog_write.write_page, claim, Page(records, (), None, None), 600.0)
    await database.write(generations.succeed, claim)
    found = await database.read(catalog.page, name, claim.entity_type, "", 10)
    assert {each.id for each in found.records} == {"NULL", TEXT}
    assert (await database.read(catalog.get, name, claim.entity_type, TEXT))[0].product_ids == ("1", "NULL", TEXT)
    (read,) = await database.read(syncs.get_many, [(name, claim.sync_id)])
    assert isinstance(read, Sync)
    assert read.status is SyncStatus.SUCCEEDED
    assert (read.counts.created, read.counts.unchanged) == (2, 0)
    assert read.finished_at is not None
    assert 0 <= (read.as_of - read.queued_at).total_seconds() < 600
    states = await database.read(catalog.states, wanted)
    assert not any(isinstance(each, Exception) for each in states)
    assert await database.read(webhooks.has_due, ())
    assert (await database.read(monitor.overview)).as_of.utcoffset() is not None
    runs, _ = await database.read(monitor.recent, name, None, None, None, 10)
    assert len(runs) == 2
    story = await database.read(monitor.sync_detail, name, claim.sync_id)
    assert story.deliveries[0].event == "sync.succeeded"
    await database.write(syncs.cancel, name, COLLECTION if claim.entity_type is PRODUCT else PRODUCT)


@pytest.mark.parametrize(
    ("setting", "value"), [(setting, value) for setting, values in ODD.items() for value in values]
)
async def test_a_setting_of_the_database_changes_nothing(
    setting: str, value: str, postgresql_server: str, postgresql_template: str
) -> None:
    """Each by itself, with and without a deadline."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    set_for_database(url, **{setting: value})
    for deadline in (DEADLINE, None):
        database = connect(url, deadline=deadline)
        try:
            await work(database)
        finally:
            database.close()


async def test_all_of_them_at_once_change_nothing(postgresql_server: str, postgresql_template: str) -> None:
    """With many transactions at the same time."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    set_for_database(url, **ALL_AT_ONCE)
    database = connect(url, deadline=DEADLINE)
    try:
        await asyncio.gather(*[at_the_same_time(database, n) for n in range(20)])
        await work(database)
    finally:
        database.close()


async def at_the_same_time(database: Database, number: int) -> None:
    """Do what conflicts with itself where transactions are serializable."""
    await database.write(readiness.check_writable)
    await database.write(merchants.add, f"merchant{number}", Platform.BYOP, "https://shop.example")
    (made,) = await database.write(enqueue_many, [EnqueueRequest(f"merchant{number}", PRODUCT)])
    assert isinstance(made, Sync)
    await database.write(claims.claim, f"worker {number}", 600.0, 5, 1)
    await database.write(syncs.cancel, f"merchant{number}", PRODUCT)


@pytest.mark.parametrize("setting", [None, *ODD])
async def test_no_setting_changes_anything_behind_pgbouncer(
    setting: str | None, pgbouncer: str, postgresql_server: str, postgresql_template: str
) -> None:
    """Sessions are shared, so that nothing may be set for a session that PgBouncer does not follow."""
    if setting is None:
        url = pgbouncer
        set_for_database(url, **ALL_AT_ONCE)
        with open_database(url) as database:
            database.call(migrate.upgrade)
    else:
        url = through(pgbouncer, databases.copy_of(postgresql_server, postgresql_template))
        set_for_database(url, **{setting: ODD[setting][0]})
    database = connect(url, deadline=DEADLINE)
    try:
        await asyncio.gather(*[at_the_same_time(database, n) for n in range(8)])
        await work(database)
    finally:
        database.close()


def through(pgbouncer: str, url: str) -> str:
    """Return the URL of a database of the same server through PgBouncer."""
    return make_url(pgbouncer).set(database=make_url(url).database).render_as_string(hide_password=False)


async def test_a_statement_may_take_longer_than_the_database_allows(
    pgbouncer: str, postgresql_server: str, postgresql_template: str
) -> None:
    """The gateway's own limits apply, with and without a deadline and behind PgBouncer."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    set_for_database(url, statement_timeout="2s")
    cases = ((url, DEADLINE), (url, None), (through(pgbouncer, url), DEADLINE))
    opened = [connect(each, deadline=deadline) for each, deadline in cases]
    try:
        found = await asyncio.gather(*(database.read(sleep, 2.5) for database in opened))
        assert found == ["2s"] * len(cases), "the limit of the database is in force"
    finally:
        for database in opened:
            database.close()


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_neither_an_idle_session_nor_a_long_transaction_is_ended(
    is_pooled: bool, pgbouncer: str, postgresql_server: str, postgresql_template: str
) -> None:
    """An operator may limit both for all other programs. PgBouncer's own sessions are its own concern."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    set_for_database(url, transaction_timeout="1s", **({} if is_pooled else {"idle_session_timeout": "1s"}))
    database = connect(through(pgbouncer, url) if is_pooled else url, deadline=DEADLINE)
    try:
        await database.read(sleep, 1.3)
        sessions = [await database.read(session) for _ in range(2)]
        await asyncio.sleep(1.3)
        assert is_pooled or await database.read(session) in sessions, "the session was ended meanwhile"
    finally:
        database.close()


def session(connection: Connection) -> int:
    """Return the number of the server's process."""
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@pytest.mark.parametrize("count", [1, 8])
async def test_a_connection_that_has_ended_while_idle_is_replaced(
    count: int, postgresql_server: str, postgresql_template: str
) -> None:
    """After a restart of the server, or where a firewall forgets connections, the first requests must not fail."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    database = connect(url, deadline=DEADLINE)
    try:
        before = set(await asyncio.gather(*[database.read(session) for _ in range(count)]))
        databases.cut_off(url)
        after = set(await asyncio.gather(*[database.read(session) for _ in range(count)]))
        assert not before & after
        await database.write(readiness.check_writable)
    finally:
        database.close()


def sleep(connection: Connection, seconds: float) -> str:
    """Run a statement that takes this long. Return the limit that the database sets for sessions."""
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    said = "SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'"
    return f"{int(connection.execute(text(said)).scalar_one()) // 1000}s"


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_another_encoding_is_refused_in_a_sentence(encoding: str, postgresql_server: str, tmp_path: Path) -> None:
    """By every command and at each start."""
    name = f"encoding_{next(databases.numbers)}"
    databases.run(
        postgresql_server,
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    deployment = Deployment(
        tmp_path, make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
    )
    for command in ("migrate", "merchant list", "serve --port 0", "worker"):
        done = deployment.run(*command.split(), check=False)
        assert_refused(done, f'The database "{name}" has the encoding {encoding}', "ENCODING 'UTF8'")
