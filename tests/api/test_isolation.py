"""Isolation of merchants: with known ids and cursors, no operation shows, cancels or reveals another's data."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event

from product_gateway import settings
from product_gateway.api.app import create_app
from product_gateway.auth import keys
from product_gateway.db import catalog_write, claims, generations, merchants, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.catalog import Page, Record, Rejection
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.settings import Settings
from tests.support.contract import DOCUMENT
from tests.support.deployment import API
from tests.support.serving import serve

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
SECRET = "victims-secret"  # stands in everything that the victim has
SECURED = [each for each in documents.operations(DOCUMENT) if each[2].get("security", DOCUMENT["security"])]
NEW_EVERY_TIME = re.compile(rb"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z")


@dataclass
class World:
    """A gateway with two merchants, and what `thief` knows about `victim`."""

    url: str
    settings: Settings
    database: Database
    loot: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # statements to the database

    def client(self, merchant: str) -> httpx2.Client:
        """Return a client with all scopes of the merchant."""
        token = keys.issue_token(self.settings, merchant, list(keys.SCOPES), timedelta(hours=1))
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


@pytest.fixture
def world(database: Database, database_url: str, tmp_path: Path) -> Iterator[World]:
    """On both databases, because both are asked in their own words."""
    made = settings.load(data_dir=tmp_path, database_url=database_url, validate_responses=True)
    for name in ("victim", "thief"):
        database.call(merchants.add, name, Platform.BYOP, "https://shop.example")
    with serve(create_app(made)) as url:
        here = World(url, made, database)
        with heard(here.said):
            yield here


@contextmanager
def heard(said: list[str]) -> Iterator[None]:
    """Yield the statements of the gateway, without those of the test's thread, and without later notifications."""
    testing = threading.current_thread()

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread() is not testing and not statement.startswith("NOTIFY"):
            said.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", listen)


def furnish(world: World) -> None:
    """Give the victim products, collections, problems, an active sync and two that have ended."""
    database = world.database

    def run(entity_type: EntityType, key: str, *records: Record) -> str:
        sync = database.call(enqueue, "victim", entity_type, key)
        claim = database.call(claims.claim, "worker", 30.0, 5, 2)
        assert claim is not None
        problem = Rejection("WRONG_TYPE", f"{SECRET}-bad", "/title", SECRET)
        database.call(catalog_write.write_page, claim, Page(records, (problem,), None, None), 30.0)
        database.call(generations.succeed, claim)
        return str(sync.id)

    names = [f"{SECRET}-{n}" for n in range(3)]
    products = [Record(each, json.dumps({"id": each, "title": SECRET})) for each in names]
    summaries = {each: json.dumps({"id": each, "title": SECRET, "productCount": 3}) for each in names}
    collections = [Record(each, summaries[each], tuple(names)) for each in names]
    ended = [run(PRODUCT, f"{SECRET}-key-1", *products), run(COLLECTION, f"{SECRET}-key-2", *collections)]
    active = database.call(enqueue, "victim", PRODUCT, f"{SECRET}-key-3")
    world.loot = {
        "entityType": list(EntityType),
        "status": ["QUEUED", "SUCCEEDED"],
        "syncId": [str(active.id), *ended],
        "productId": names[:1],
        "collectionId": names[:1],
        "Idempotency-Key": [f"{SECRET}-key-{n}" for n in (1, 2, 3)],
        "page_size": ["1"],
        "Prefer": ["wait=1"],
        "publish": ["manual"],
        "If-None-Match": ["*"],
    }
    with world.client("victim") as victim:
        for path in (
            *("products", "collections", f"collections/{names[0]}", "syncs"),
            *("changes/PRODUCT", "changes/COLLECTION", *(f"syncs/{each}/changes" for each in ended)),
        ):
            page = victim.get(f"{API}/{path}", params={"page_size": 1}).raise_for_status().json()
            assert SECRET in str(page) or path == "syncs"
            world.loot[f"cursor of {path}"] = [page["meta"]["nextCursor"]]


def start_afresh(database: Database, merchant: str) -> None:
    """Remove and add the merchant."""
    database.call(merchants.remove, merchant)
    database.call(merchants.add, merchant, Platform.BYOP, "https://shop.example")


Attempt = tuple[str, str, dict[str, str], dict[str, str]]


def attempts(loot: dict[str, list[str]], path: str, method: str, operation: documents.Document) -> Iterator[Attempt]:
    """Return all requests of the operation with the victim's data: method, path, query and headers."""
    listed = [*DOCUMENT["paths"][path].get("parameters", []), *operation.get("parameters", [])]
    parameters = [documents.resolve(DOCUMENT, each) for each in listed]
    cursors = [cursor for name, cursor in loot.items() if name.startswith("cursor of ")]
    known = {**loot, "cursor": [each for values in cursors for each in values]}
    choices = []
    for each in parameters:
        assert each["name"] in known, (
            f"{operation['operationId']} has a parameter {each['name']}: say in furnish() what a thief would try"
        )
        choices.append([*known[each["name"]], *([] if each.get("required") else [None])])
    for values in itertools.product(*choices):
        chosen = [(each, value) for each, value in zip(parameters, values, strict=True) if value is not None]
        target = path
        for each, value in chosen:
            target = target.replace(f"{{{each['name']}}}", value)
        query = {each["name"]: value for each, value in chosen if each["in"] == "query"}
        headers = {each["name"]: value for each, value in chosen if each["in"] == "header"}
        yield method.upper(), target, query, headers


OVERLOADED = 503  # the database did not answer in time: on a busy machine
Answer = tuple[int, bytes, dict[str, str], list[str]]


def answers(world: World) -> dict[str, Answer]:
    """Return status, body, headers and number of statements of every attempt of the thief."""
    found: dict[str, Answer] = {}
    with world.client("thief") as thief:
        for path, method, operation in SECURED:
            for attempt in attempts(world.loot, path, method, operation):
                for _ in range(5):
                    world.said.clear()
                    answer = thief.request(attempt[0], attempt[1], params=attempt[2], headers=attempt[3])
                    if answer.status_code != OVERLOADED:
                        break
                volatile = ("date", "x-request-id", "etag")  # the tag depends on when the merchant was added
                headers = {name: value for name, value in answer.headers.items() if name not in volatile}
                found[str(attempt)] = answer.status_code, answer.content, headers, list(world.said)
                if answer.status_code == 202:
                    headers.pop("location")
                    start_afresh(world.database, "thief")
    return found


def test_responses_do_not_depend_on_the_data_of_another_merchant(world: World) -> None:
    """Status, body, headers and work are the same whether the victim has data or not."""
    furnish(world)
    before = [world.database.call(syncs.get, "victim", each) for each in ids(world)]
    with_victim = answers(world)
    assert [world.database.call(syncs.get, "victim", each).status for each in ids(world)] == [
        each.status for each in before
    ], "the thief has changed a sync of the victim"
    start_afresh(world.database, "victim")
    without_victim = answers(world)
    assert len(with_victim) > 100
    for attempt, (status, body, headers, said) in with_victim.items():
        assert status < 500, f"{attempt}: {body!r}"
        other = without_victim[attempt]
        if status == 202:
            assert SECRET.encode() not in body
            assert not any(each.encode() in body for each in world.loot["syncId"]), attempt
            body, other = NEW_EVERY_TIME.sub(b"", body), (other[0], NEW_EVERY_TIME.sub(b"", other[1]), *other[2:])
        assert (status, body, headers) == other[:3], (
            f"{attempt} is answered in another way where the victim has nothing"
        )
        if "'Prefer'" in attempt:  # how often a long poll looks depends on the time it takes
            said, other = sorted({*said}), (*other[:3], sorted({*other[3]}))
        assert said == other[3], f"{attempt} costs other statements where the victim has nothing"
        assert said or status == 400, f"{attempt} was not listened to"  # a cursor is looked at before the database is


def ids(world: World) -> list[Any]:
    """Return the victim's syncs."""
    return [each.id for each in world.database.call(syncs.history, "victim", None, None, None, 100)[0]]


def test_an_id_of_another_merchant_is_answered_like_an_unknown_id(world: World) -> None:
    """404, and only the id differs."""
    furnish(world)
    unknown = {"syncId": "019364f0-7c1e-7a10-9a6b-3f1f5f0c9a11", "productId": f"{SECRET[::-1]}-0"}
    unknown["collectionId"] = unknown["productId"]
    asked = 0
    with world.client("thief") as thief:
        for path, method, _ in SECURED:
            for name in re.findall(r"\{(\w+)\}", path):
                if name == "entityType":
                    continue
                theirs, nobodys = (
                    thief.request(method, path.replace(f"{{{name}}}", each))
                    for each in (world.loot[name][0], unknown[name])
                )
                assert theirs.status_code == nobodys.status_code == 404
                assert theirs.text.replace(world.loot[name][0], unknown[name]) == nobodys.text
                assert theirs.headers.keys() == nobodys.headers.keys()
                asked += 1
    assert asked >= 4


def test_two_merchants_may_use_the_same_ids_and_keys(world: World) -> None:
    """Each gets its own records and syncs."""
    furnish(world)
    key = {"Idempotency-Key": world.loot["Idempotency-Key"][0]}
    with world.client("thief") as thief, world.client("victim") as victim:
        own = thief.put(f"{API}/sync/PRODUCT", headers=key)
        assert own.status_code == 202
        assert own.json()["data"]["id"] not in world.loot["syncId"]
        theirs = victim.put(f"{API}/sync/PRODUCT", headers=key)
        assert theirs.json()["data"]["id"] in world.loot["syncId"]
        world.database.call(syncs.cancel, "victim", PRODUCT)
        claim = world.database.call(claims.claim, "worker", 30.0, 5, 2)
        assert claim is not None
        assert claim.merchant == "thief"
        name = world.loot["productId"][0]
        record = Record(name, json.dumps({"id": name, "title": "my own"}))
        world.database.call(catalog_write.write_page, claim, Page((record,), (), None, None), 30.0)
        world.database.call(generations.succeed, claim)
        assert thief.get(f"{API}/products/{name}").json()["data"]["title"] == "my own"
        assert victim.get(f"{API}/products/{name}").json()["data"]["title"] == SECRET
        assert [each["title"] for each in thief.get(f"{API}/products").json()["data"]] == ["my own"]


@pytest.mark.parametrize("name", ["Victim", "VICTIM", "victim.", "victim~", "victi", "victim_", "0victim"])
def test_a_similar_name_is_another_merchant(world: World, name: str) -> None:
    """Identity providers may allow any name."""
    furnish(world)
    with world.client(name) as pretender:
        answer = pretender.get(f"{API}/products")
    assert answer.status_code == 403
    assert SECRET not in answer.text
