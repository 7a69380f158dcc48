"""Batches: concurrent requests share statements and a commit, and nothing else."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import event

from product_gateway.db import catalog, catalog_write, claims, generations, merchants, syncs
from product_gateway.db.batcher import MAX_BATCH, Batcher
from product_gateway.db.database import Database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.errors import (
    InvalidRequest,
    MerchantDisabled,
    NotBringYourOwnPlatform,
    SyncAlreadyActive,
    SyncNotFound,
    Unavailable,
    UnknownMerchant,
)
from product_gateway.model.catalog import CatalogState, Page, Record
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, Sync, SyncStatus

PRODUCT, COLLECTION = EntityType


async def test_requests_submitted_during_a_batch_form_the_next_batch() -> None:
    """A request is not delayed to fill a batch, and many requests need few commits."""
    batches: list[int] = []

    async def write(asked: Sequence[int]) -> Sequence[int]:
        batches.append(len(asked))
        await asyncio.sleep(0.01)
        return [2 * each for each in asked]

    batcher: Batcher[int, int] = Batcher(write)
    assert await asyncio.gather(*(batcher.submit(n) for n in range(500))) == [2 * n for n in range(500)]
    assert len(batches) <= 500 / MAX_BATCH + 2
    assert await batcher.submit(7) == 14, "a later request starts a new batch"


async def test_a_request_that_has_arrived_but_was_not_read_yet_joins_the_batch() -> None:
    """The event loop reads the requests of other connections before the batch begins: fewer batches cost less."""
    batches: list[list[int]] = []

    async def write(asked: Sequence[int]) -> Sequence[int]:
        batches.append(list(asked))
        return asked

    async def submit_later(batcher: Batcher[int, int]) -> int:
        await asyncio.sleep(0)
        return await batcher.submit(2)

    batcher: Batcher[int, int] = Batcher(write)
    await asyncio.gather(batcher.submit(1), submit_later(batcher))
    assert batches == [[1, 2]]


async def test_a_failing_request_does_not_fail_the_others_of_its_batch() -> None:
    """The batch is tried again one by one."""

    async def write(asked: Sequence[int]) -> Sequence[int | Exception]:
        if 3 in asked:
            raise ZeroDivisionError
        return [LookupError() if each == 4 else each for each in asked]

    batcher: Batcher[int, int] = Batcher(write)
    outcomes = await asyncio.gather(*(batcher.submit(n) for n in range(6)), return_exceptions=True)
    assert outcomes[:3] + outcomes[5:] == [0, 1, 2, 5]
    assert [type(each) for each in outcomes[3:5]] == [ZeroDivisionError, LookupError]


async def test_an_unavailable_database_fails_the_batch_without_another_try() -> None:
    """Each hears of it with an error of their own."""
    asked_times = 0

    async def write(asked: Sequence[int]) -> Sequence[int]:
        nonlocal asked_times
        asked_times += 1
        raise Unavailable("away")

    batcher: Batcher[int, int] = Batcher(write)
    outcomes = await asyncio.gather(*(batcher.submit(n) for n in range(20)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in outcomes)
    assert len({id(each) for each in outcomes}) == 20
    assert asked_times == 1


async def test_each_of_a_batch_has_its_own_outcome(database: Database) -> None:
    """Also the same one twice: the first has it, the second meets it."""
    database.call(merchants.add, "bento", Platform.BENTO)
    database.call(merchants.add, "gone", Platform.BYOP, "https://shop.example")
    database.call(merchants.update_merchant, "gone", disabled=True)
    active = database.call(enqueue, "other", COLLECTION)
    wanted = [("shop", PRODUCT), ("other", PRODUCT), ("shop", PRODUCT), ("shop", COLLECTION), ("other", COLLECTION)]
    wanted += [("unknown", PRODUCT), ("bento", PRODUCT), ("gone", PRODUCT)]
    found = await database.write(enqueue_many, [EnqueueRequest(*each) for each in wanted])
    accepted = [each for each in found if isinstance(each, Sync)]
    assert [(each.merchant, each.entity_type) for each in accepted] == [wanted[0], wanted[1], wanted[3]]
    assert all(each.status is SyncStatus.QUEUED for each in accepted)
    now_on = [database.call(syncs.get, each.merchant, each.id) for each in accepted]
    assert [each._replace(as_of=each.queued_at) for each in now_on] == accepted
    again, there = found[2], found[4]
    assert isinstance(again, SyncAlreadyActive)
    assert isinstance(there, SyncAlreadyActive)
    assert (again.active.id, there.active.id) == (accepted[0].id, active.id)
    assert [type(each) for each in found[5:]] == [UnknownMerchant, NotBringYourOwnPlatform, MerchantDisabled]


async def test_a_batch_of_any_size_costs_two_statements_or_one_if_all_are_refused(database: Database) -> None:
    """PostgreSQL needs one in both cases, and no transaction: each statement is a round trip."""
    names = [f"m{n}" for n in range(50)]
    for name in names:
        database.call(merchants.add, name, Platform.BYOP, "https://shop.example")
    requests = [EnqueueRequest(name, PRODUCT) for name in reversed(names)]
    statements = recorded(database)
    accepted = await database.write(enqueue_many, requests)
    assert all(isinstance(each, Sync) for each in accepted)
    assert len(statements) == (1 if database.engine.name == "postgresql" else 2)
    statements.clear()
    refused = await database.write(enqueue_many, requests)
    assert all(isinstance(each, SyncAlreadyActive) for each in refused)
    assert len(statements) == 1


async def test_a_read_with_autocommit_costs_one_statement(database: Database) -> None:
    """To begin and to end a transaction would be two more round trips to PostgreSQL."""
    statements = recorded(database)
    (found,) = await database.read(catalog.states, [("shop", PRODUCT)])
    assert isinstance(found, tuple)
    assert len(statements) == 1


async def test_requests_with_the_same_key_in_one_batch_get_one_sync(database: Database) -> None:
    """Another key is refused while the sync is active, and the same key with another entity type is invalid."""
    requests = [EnqueueRequest("shop", PRODUCT, key) for key in ("a", "a", "b")]
    first, same, other = await database.write(enqueue_many, requests)
    assert isinstance(first, Sync)
    assert isinstance(same, Sync)
    assert same.id == first.id
    assert isinstance(other, SyncAlreadyActive)
    again, invalid = await database.write(enqueue_many, [requests[0], EnqueueRequest("shop", COLLECTION, "a")])
    assert isinstance(again, Sync)
    assert again.id == first.id
    assert isinstance(invalid, InvalidRequest)


async def test_batches_of_the_same_syncs_in_any_order_do_not_deadlock(database: Database) -> None:
    """Each sync goes to one of them, and no batch fails."""
    names = [f"m{n}" for n in range(30)]
    for name in names:
        database.call(merchants.add, name, Platform.BYOP, "https://shop.example")
    orders = [names, names[::-1], names[15:] + names[:15]] * 3
    batches = [[EnqueueRequest(name, PRODUCT) for name in order] for order in orders]
    asked = (database.write(enqueue_many, batch) for batch in batches)
    async with asyncio.timeout(60):
        found = await asyncio.gather(*asked)
    accepted = [each.merchant for batch in found for each in batch if isinstance(each, Sync)]
    assert sorted(accepted) == sorted(names)


@pytest.mark.parametrize("name", ["it's", 'quo"ted', "back\\slash", "a,b", "{}", "ü"])
async def test_any_merchant_name_is_passed_unchanged(database: Database, name: str) -> None:
    """Lists of names travel as JSON or as an array."""
    [outcome] = await database.write(enqueue_many, [EnqueueRequest(name, PRODUCT)])
    assert isinstance(outcome, UnknownMerchant)


async def test_syncs_and_states_of_many_are_read_with_one_statement(database: Database) -> None:
    """In the order in which they were asked for, the same one twice, too; and each hears of its own merchant."""
    database.call(merchants.add, "bento", Platform.BENTO)
    database.call(merchants.add, "gone", Platform.BYOP, "https://shop.example")
    older = database.call(enqueue, "shop", PRODUCT)
    database.call(syncs.cancel, "shop", PRODUCT)
    of_gone = database.call(enqueue, "gone", PRODUCT)
    assert database.call(claims.claim, "tester", 60.0, 5, 2)
    database.call(merchants.update_merchant, "gone", disabled=True)
    newer = database.call(enqueue, "shop", PRODUCT)
    claim = database.call(claims.claim, "tester", 60.0, 5, 2)
    assert claim is not None
    database.call(catalog_write.write_page, claim, Page((Record("1", "{}"),), (), None, None), 60.0)
    database.call(generations.succeed, claim)
    statements = recorded(database)
    keys = [("shop", newer.id), ("other", newer.id), ("shop", older.id), ("gone", of_gone.id), ("unknown", newer.id)]
    found = await database.read(syncs.get_many, [*keys, keys[0]])
    assert [each.id for each in found if isinstance(each, Sync)] == [newer.id, older.id, newer.id]
    assert isinstance(found[1], SyncNotFound)
    assert [type(each) for each in found[3:5]] == [MerchantDisabled, UnknownMerchant]

    wanted = [("bento", PRODUCT), ("shop", PRODUCT), ("other", PRODUCT), ("shop", COLLECTION)]
    states = await database.read(catalog.states, wanted)
    assert isinstance(states[0], NotBringYourOwnPlatform)
    shop, *others = states[1:]
    assert isinstance(shop, tuple)
    state, latest = shop
    assert (state.num_records, state.updated_at is not None) == (1, True)
    assert latest is not None
    assert (latest.id, latest.status) == (newer.id, SyncStatus.SUCCEEDED)
    assert others == [(CatalogState(0, None), None)] * 2
    assert len([each for each in statements if "syncs" in each]) == 2


def recorded(database: Database) -> list[str]:
    """Return a list to which every statement from now on is appended."""
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))
    return statements
