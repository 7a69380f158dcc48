"""The webhook dispatcher, over real HTTP, with receivers that answer in every way."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
from cloudevents.core.formats.json import JSONFormat
from sqlalchemy import Connection, update
from standardwebhooks import Webhook, WebhookVerificationError

from product_gateway import settings
from product_gateway.auth.encryption import Secrets
from product_gateway.db import merchants, syncs, tables, webhooks
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.model.webhooks import Delivery, DeliveryStatus
from product_gateway.openapi import documents
from product_gateway.openapi.bodies import sync_body
from product_gateway.operations.app import MetricsHandlers
from product_gateway.services import worker
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.metrics import Metrics
from product_gateway.webhooks import dispatcher
from product_gateway.webhooks.dispatcher import (
    JITTER,
    LONGEST_RETRY_AFTER,
    LONGEST_WAIT,
    WebhookDispatcher,
    retry_delay,
)
from tests.support import webhook_receivers
from tests.support.deployment import Deployment, within
from tests.support.webhook_receivers import SECRET, Hooks, Message

PRODUCT = EntityType.PRODUCT
PATIENCE = 30
GUIDE = Path(__file__).parents[2] / "docs" / "webhooks.md"
NOWHERE = "http://127.0.0.1:1"
PENDING, DELIVERED, GIVEN_UP = DeliveryStatus.PENDING, DeliveryStatus.DELIVERED, DeliveryStatus.GIVEN_UP


@pytest.fixture
def receiver() -> Iterator[Hooks]:
    """One that has heard nothing yet."""
    with webhook_receivers.receiving() as found:
        yield found


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Quick polls and short waits."""
    return settings.load(
        data_dir=tmp_path,
        worker_poll_seconds=0.02,
        allow_private_addresses=True,
        webhook_timeout_seconds=20,
        webhook_retry_seconds=0.05,
    )


@asynccontextmanager
async def delivering(made: Settings, database: Database) -> AsyncIterator[Metrics]:
    """What a worker does for webhooks, until the block ends; and what it counts."""
    stop, metrics = asyncio.Event(), Metrics()
    async with worker.webhook_client(made) as outbound:
        running = asyncio.create_task(
            WebhookDispatcher(made, database, outbound, metrics, Supervisor(metrics)).run(stop)
        )
        try:
            yield metrics
        finally:
            stop.set()
            await asyncio.wait_for(running, PATIENCE)


def end_sync(made: Settings, database: Database, merchant: str, url: str) -> UUID:
    """A sync of the merchant, new where there is none of the name, has ended: it is to be told to this address."""
    if database.call(merchants.find, merchant) is None:
        database.call(merchants.add, merchant, Platform.BYOP, NOWHERE)
    database.call(webhooks.put, merchant, url=url, secret=Secrets(made).encrypt(SECRET))
    database.call(enqueue, merchant, PRODUCT)
    return database.call(syncs.cancel, merchant, PRODUCT).id


async def until(
    database: Database, merchant: str, sync_id: UUID, condition: Callable[[Delivery], bool], seconds: float = PATIENCE
) -> Delivery:
    """The message about the sync, when it is so."""
    async with asyncio.timeout(seconds):
        while True:
            (now,) = await database.read(webhooks.of_sync, merchant, sync_id)
            if condition(now):
                return now
            await asyncio.sleep(0.02)


def counted(metrics: Metrics) -> dict[str, float]:
    """The attempts by their outcome."""
    name = "product_gateway_webhook_attempts_total"
    outcomes = ("delivered", "retried", "given_up")
    return {each: metrics.registry.get_sample_value(name, {"outcome": each}) or 0 for each in outcomes}


def verify(message: Message, **changed: str) -> Any:
    """As a receiver does; with other headers, where the test says so."""
    headers = {**message.headers, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return Webhook(SECRET).verify(message.body, headers)


NEW_SECRET = "whsec_" + base64.b64encode(b"the secret after the change").decode()


def believed_with(message: Message, secret: str) -> bool:
    """Whether a receiver that knows this secret alone believes the message."""
    try:
        Webhook(secret).verify(message.body, message.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_for_a_day_after_a_change_messages_are_signed_with_both_secrets(
    database: Database, made: Settings, receiver: Hooks
) -> None:
    """Standard Webhooks, "Zero downtime secret rotation": a receiver changes its own secret whenever it likes."""
    end_sync(made, database, "shop", receiver.url)
    database.call(webhooks.put, "shop", secret=Secrets(made).encrypt(NEW_SECRET))
    database.call(webhooks.put, "shop", url=f"{receiver.url}/moved")  # which changes no secret
    found = database.call(webhooks.find, "shop")
    assert found is not None
    assert found.previous_secret_until is not None
    left = found.previous_secret_until - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24, seconds=30)
    assert NEW_SECRET not in repr(found)
    async with delivering(made, database):
        await asyncio.to_thread(within, PATIENCE, lambda: len(receiver.messages) == 1)
        (both,) = receiver.messages
        assert re.fullmatch("v1,[A-Za-z0-9+/]{43}= v1,[A-Za-z0-9+/]{43}=", both.headers["webhook-signature"])
        assert (
            Webhook(NEW_SECRET).sign(
                both.headers["webhook-id"],
                datetime.fromtimestamp(int(both.headers["webhook-timestamp"]), UTC),
                both.body.decode(),
            )
            == both.headers["webhook-signature"].split(" ")[0]
        ), "receivers that read one signature read the first"
        assert [believed_with(both, each) for each in (NEW_SECRET, SECRET)] == [True, True]
        database.call(age_previous_secrets)
        database.call(enqueue, "shop", PRODUCT)
        database.call(syncs.cancel, "shop", PRODUCT)
        await asyncio.to_thread(within, PATIENCE, lambda: len(receiver.messages) == 2)
    assert [believed_with(receiver.messages[1], each) for each in (NEW_SECRET, SECRET)] == [True, False]


def age_previous_secrets(connection: Connection) -> None:
    """Move the end of the overlap into the past."""
    connection.execute(update(tables.webhooks).values(previous_secret_until=datetime.now(UTC) - timedelta(seconds=1)))


async def test_the_same_secret_again_makes_one_signature(database: Database, made: Settings, receiver: Hooks) -> None:
    """An operator registers an address again, with the secret that there is."""
    end_sync(made, database, "shop", receiver.url)
    database.call(webhooks.put, "shop", secret=Secrets(made).encrypt(SECRET))
    async with delivering(made, database):
        await asyncio.to_thread(within, PATIENCE, lambda: len(receiver.messages) == 1)
    assert " " not in receiver.messages[0].headers["webhook-signature"]
    assert believed_with(receiver.messages[0], SECRET)


async def test_an_unreadable_previous_secret_does_not_delay_delivery(
    database: Database, made: Settings, receiver: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """The current one is what counts."""
    end_sync(made, database, "shop", receiver.url)
    database.call(webhooks.put, "shop", secret="encrypted with a key that is gone")
    database.call(webhooks.put, "shop", secret=Secrets(made).encrypt(SECRET))
    async with delivering(made, database):
        await asyncio.to_thread(within, PATIENCE, lambda: len(receiver.messages) == 1)
    assert believed_with(receiver.messages[0], SECRET)
    assert "The webhook's previous secret cannot be read" in caplog.text


async def test_a_message_is_tried_again_until_it_is_delivered_and_is_the_same_each_time(
    database: Database, made: Settings, receiver: Hooks
) -> None:
    """A receiver knows by the id what it has seen; and it can believe each of them."""
    sync_id = end_sync(made, database, "shop", f"{receiver.url}/third?key=theirs")
    async with delivering(made, database) as metrics:
        done = await until(database, "shop", sync_id, lambda now: now.status is DELIVERED)
    assert (done.attempts, done.last_status, done.last_error, done.next_attempt_at) == (3, 204, None, None)
    assert counted(metrics) == {"delivered": 1, "retried": 2, "given_up": 0}
    assert [each.path for each in receiver.messages] == ["/third?key=theirs"] * 3
    assert {each.headers["webhook-id"] for each in receiver.messages} == {str(done.id)}
    assert len({each.body for each in receiver.messages}) == 1
    sync = database.call(syncs.get, "shop", sync_id)
    for each in receiver.messages:
        event = verify(each)
        assert event["type"] == "sync.cancelled"
        assert event["data"] == {**sync_body(sync), "merchant": "shop"}
        assert event["timestamp"] == event["data"]["finishedAt"]
        assert each.headers["content-type"] == "application/json"
        assert each.headers["user-agent"].startswith("product-gateway/")
        assert "authorization" not in each.headers


async def test_what_was_changed_or_kept_does_not_verify(
    database: Database, made: Settings, receiver: Hooks, tmp_path: Path
) -> None:
    """By the library, and by the rule as the spec has it: we sign with that library, so it alone would prove little."""
    sync_id = end_sync(made, database, "shop", f"{receiver.url}/ok")
    async with delivering(made, database):
        await until(database, "shop", sync_id, lambda now: now.status is DELIVERED)
    (message,) = receiver.messages
    names = ("webhook-id", "webhook-timestamp")
    content = b".".join([*(message.headers[name].encode() for name in names), message.body])
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    by_hand = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert message.headers["webhook-signature"] == f"v1,{by_hand}"
    assert abs(time.time() - int(message.headers["webhook-timestamp"])) < 60

    assert verify(message)["data"]["id"] == str(sync_id)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(message.body.replace(b"CANCELLED", b"SUCCEEDED"), message.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"another secret").decode()).verify(message.body, message.headers)
    with pytest.raises(WebhookVerificationError):
        verify(message, webhook_id="01a20a4c-11f0-7d3a-9c5e-2b8f6a0d4e77")
    later = str(int(message.headers["webhook-timestamp"]) + 200)
    with pytest.raises(WebhookVerificationError, match="signature"):
        verify(message, webhook_timestamp=later)
    kept = Message(message.path, {**message.headers, "webhook-timestamp": str(int(time.time()) - 400)}, message.body)
    with pytest.raises(WebhookVerificationError, match="too old"):
        verify(kept)


async def test_a_message_and_its_headers_are_as_the_spec_has_them(
    database: Database, made: Settings, receiver: Hooks
) -> None:
    """It is the contract with those who write receivers; its examples are messages, too."""
    document = documents.load(documents.GATEWAY)
    validator = jsonschema_rs.Draft4Validator(documents.json_schema(document, "SyncEvent"), validate_formats=True)
    about_syncs = (*webhooks.EVENTS.values(), webhooks.SYNC_PUBLISHED)
    assert set(document["x-webhooks"]) == {*about_syncs, webhooks.CATALOG_STALE, "webhook.test"}
    for name in about_syncs:
        item = document["x-webhooks"][name]
        example = item["post"]["requestBody"]["content"]["application/json"]["example"]
        assert [fault.message for fault in validator.iter_errors(example)] == []
        assert example["type"] == name

    sync_id = end_sync(made, database, "shop", f"{receiver.url}/ok")
    async with delivering(made, database):
        await until(database, "shop", sync_id, lambda now: now.status is DELIVERED)
    (message,) = receiver.messages
    assert [fault.message for fault in validator.iter_errors(json.loads(message.body))] == []
    event = JSONFormat().read(None, message.body)
    assert (event.get_id(), event.get_type()) == (message.headers["webhook-id"], "sync.cancelled")
    assert f"{event.get_source()}/{event.get_subject()}" == f"/product-gateway/v1/syncs/{sync_id}"
    assert event.get_data() == json.loads(message.body)["data"]
    assert event.get_time() == datetime.fromisoformat(json.loads(message.body)["data"]["finishedAt"])
    parameters = [
        documents.resolve(document, each) for each in document["x-webhooks"]["sync.failed"]["post"]["parameters"]
    ]
    assert {each["name"] for each in parameters} == {name for name in message.headers if name.startswith("webhook-")}
    for each in parameters:
        found: Any = message.headers[each["name"]]
        value = int(found) if each["schema"]["type"] == "integer" else found
        jsonschema_rs.Draft4Validator(each["schema"], validate_formats=True).validate(value)
        jsonschema_rs.Draft4Validator(each["schema"], validate_formats=True).validate(each["example"])


def test_every_message_in_the_spec_is_a_cloud_event() -> None:
    """CloudEvents 1.0 in its JSON format, by the official SDK; `timestamp` is an extension attribute."""
    hooks = documents.load(documents.GATEWAY)["x-webhooks"]
    assert len(hooks) == 6
    for kind, item in hooks.items():
        example = item["post"]["requestBody"]["content"]["application/json"]["example"]
        event = JSONFormat().read(None, json.dumps(example))
        assert (event.get_specversion(), event.get_type(), event.get_data()) == ("1.0", kind, example["data"])
        assert event.get_time() == datetime.fromisoformat(example["timestamp"])
        about = example["data"].get("id") or example["data"].get("entityType") or example["data"]["merchant"]
        assert (event.get_subject() or "").split("/")[-1] == about


async def test_a_receivers_status_is_all_that_counts(
    database: Database, made: Settings, receiver: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """2xx means delivered, with any body. Any other status is retried. Redirects are not followed."""
    ways = ("ok", "huge", "half", "packed", "500", "302", "410", "down")
    ids = {way: end_sync(made, database, way, f"{receiver.url}/{way}") for way in ways}
    database.call(webhooks.put, "down", url=f"{NOWHERE}/hook")
    with caplog.at_level(logging.INFO, "product_gateway"):
        async with delivering(made, database):
            for way in ("ok", "huge", "half", "packed"):
                done = await until(database, way, ids[way], lambda now: now.status is DELIVERED)
                assert (done.attempts, done.last_status) == (1, 200), way
            for way, error in (
                ("500", "The receiver answered 500."),
                (
                    "302",
                    "The receiver answered 302. Redirects are not followed: register the address that it leads to.",
                ),
                ("down", "The connection to 127.0.0.1 was refused."),
            ):
                again = await until(database, way, ids[way], lambda now: now.attempts >= 3)
                assert again.status is PENDING
                assert again.last_error == error
                assert again.last_status == (int(way) if way.isdigit() else None)
            gone = await until(database, "410", ids["410"], lambda now: now.status is GIVEN_UP)
    assert (gone.attempts, gone.last_status) == (1, 410)
    assert "turned off" in str(gone.last_error)
    assert (await database.read(webhooks.find, "410")).gone_at is not None  # type: ignore[union-attr]
    assert receiver.at("/elsewhere") == []
    assert len(receiver.at("/410")) == 1
    said = [record.getMessage() for record in caplog.records]
    assert "sync.cancelled is delivered, at attempt 1." in said
    assert any(text.startswith("Attempt 1 failed, the next is in 0 s. The receiver answered 500.") for text in said)


async def test_a_receiver_that_hangs_holds_up_its_own_merchant_alone(
    database: Database, made: Settings, receiver: Hooks
) -> None:
    """All others are told meanwhile; what was under way when the worker stops is another's at once."""
    stuck = [end_sync(made, database, "stuck", f"{receiver.url}/hang") for _ in range(3)]
    others = [end_sync(made, database, f"shop{n}", f"{receiver.url}/ok") for n in range(5)]
    made = made.model_copy(update={"webhook_timeout_seconds": 100.0, "webhooks_at_once": 2})
    async with delivering(made, database):
        for number, sync_id in enumerate(others):
            await until(database, f"shop{number}", sync_id, lambda now: now.status is DELIVERED)
        under_way = await until(database, "stuck", stuck[0], lambda now: now.attempts == 1)
        assert (under_way.status, under_way.last_error) == (PENDING, None)
        assert len(receiver.at("/hang")) == 1, "of one merchant, one at a time"
    back = (await database.read(webhooks.of_sync, "stuck", stuck[0]))[0]
    assert (back.status, back.last_error) == (PENDING, dispatcher.STOPPED)
    assert await database.read(webhooks.has_due, ())
    receiver.let_go.set()
    async with delivering(made, database):
        for sync_id in stuck:
            await until(database, "stuck", sync_id, lambda now: now.status is DELIVERED)


async def test_no_answer_in_time_is_a_failed_attempt(database: Database, made: Settings, receiver: Hooks) -> None:
    """The time-out ends the attempt."""
    sync_id = end_sync(made, database, "shop", f"{receiver.url}/hang")
    made = made.model_copy(update={"webhook_timeout_seconds": 0.5, "webhook_retry_seconds": 3600.0})
    async with delivering(made, database):
        failed = await until(database, "shop", sync_id, lambda now: now.last_error is not None)
    assert (failed.status, failed.attempts, failed.last_status) == (PENDING, 1, None)
    assert "0.5 s" in str(failed.last_error)


async def test_retry_after_of_a_receiver_is_respected(database: Database, made: Settings, receiver: Hooks) -> None:
    """Retry-After: one that is busy gets the time that it asks for."""
    sync_id = end_sync(made, database, "shop", f"{receiver.url}/later")
    async with delivering(made, database):
        failed = await until(database, "shop", sync_id, lambda now: now.last_error is not None)
    assert failed.next_attempt_at is not None
    assert 4900 < (failed.next_attempt_at - failed.as_of).total_seconds() <= 5000
    assert len(receiver.messages) == 1


async def test_an_undeliverable_message_is_given_up_and_its_record_stays(
    database: Database, made: Settings, receiver: Hooks
) -> None:
    """After three days the message is dropped, but its record stays."""
    sync_id = end_sync(made, database, "shop", f"{receiver.url}/500")
    made = made.model_copy(update={"webhook_give_up_hours": 1.5 / 3600, "webhook_retry_seconds": 0.5})
    async with delivering(made, database) as metrics:
        over = await until(database, "shop", sync_id, lambda now: now.status is GIVEN_UP)
    assert (over.last_status, over.last_error) == (500, "The receiver answered 500.")
    assert len(receiver.messages) == over.attempts > 1
    assert counted(metrics)["given_up"] == 1
    assert database.call(webhooks.pending).count == 0


async def test_the_number_and_age_of_pending_messages_are_measured(database: Database, made: Settings) -> None:
    """The one number that says that messages do not get through, whichever process is asked."""
    end_sync(made, database, "shop", f"{NOWHERE}/hook")
    operations, name = MetricsHandlers(database, Metrics()), "product_gateway_webhook_"
    found = ""
    async with asyncio.timeout(PATIENCE):  # on a busy machine the database may not answer a scrape in time
        while "product_gateway_database_up 1.0\n" not in found:
            await asyncio.sleep(0.05)
            found = (await operations.get_metrics()).body.decode()
    assert f"{name}deliveries_pending 1.0\n" in found
    assert 0.05 <= float(found.partition(f"\n{name}oldest_seconds ")[2].split()[0]) < 60
    assert f'{name}attempts_total{{outcome="given_up"}} 0.0\n' in found


@pytest.mark.parametrize(
    ("change", "error"),
    [({"allow_private_addresses": False}, "must be called with https"), ({}, "--webhook-secret-file FILE")],
    ids=["address", "secret"],
)
async def test_a_forbidden_address_or_unreadable_secret_sends_no_message(
    database: Database, made: Settings, receiver: Hooks, tmp_path: Path, change: dict[str, Any], error: str
) -> None:
    """The rule on addresses is the product services'; and an unsigned message is none. The operator sees which."""
    sync_id = end_sync(made, database, "shop", f"{receiver.url}/ok")
    (tmp_path / "elsewhere").mkdir()
    made = made.model_copy(update=change or {"data_dir": tmp_path / "elsewhere"})
    async with delivering(made, database):
        failed = await until(database, "shop", sync_id, lambda now: now.last_error is not None)
    assert error in str(failed.last_error)
    assert failed.status is PENDING
    assert receiver.messages == []


async def test_a_worker_killed_between_sending_and_writing_it_down_loses_nothing(
    deployment: Deployment, made: Settings, receiver: Hooks
) -> None:
    """kill -9: the receiver has the message, the worker does not know; the next one sends it again, with its id.

    And while the receiver does not answer, the worker runs the syncs of others to their end.
    """
    more = {"WEBHOOK_TIMEOUT_SECONDS": "2", "WEBHOOK_RETRY_SECONDS": "0.1", "REQUEST_ATTEMPTS": "1"}
    deployment.environment |= {f"PRODUCT_GATEWAY_{name}": value for name, value in more.items()}
    with open_database(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        for name in ("shop", "other"):
            database.call(merchants.add, name, Platform.BYOP, NOWHERE)
        secret = Secrets(deployment.settings()).encrypt(SECRET)
        database.call(webhooks.put, "shop", url=f"{receiver.url}/hang", secret=secret)
        sync = database.call(enqueue, "shop", PRODUCT)
        with deployment.process("worker") as worker:
            within(PATIENCE, lambda: receiver.messages)
            other = database.call(enqueue, "other", PRODUCT)
            within(PATIENCE, lambda: not database.call(syncs.get, "other", other.id).is_active)
            sent = len(receiver.messages)
            within(PATIENCE, lambda: len(receiver.messages) > sent)  # it has just arrived and is not answered
            worker.send(signal.SIGKILL)
            worker.wait()
        killed = database.call(webhooks.of_sync, "shop", sync.id)[0]
        assert killed.status is PENDING
        receiver.let_go.set()
        async with delivering(made.model_copy(update={"data_dir": deployment.folder / "var"}), database):
            done = await until(database, "shop", sync.id, lambda now: now.status is DELIVERED)
    assert done.attempts == killed.attempts + 1 == len(receiver.messages)
    assert {each.headers["webhook-id"] for each in receiver.messages} == {str(done.id)}
    assert verify(receiver.messages[-1])["data"]["failure"]["code"] == "PRODUCT_SERVICE_UNREACHABLE"


def test_the_retry_delay_doubles_with_jitter() -> None:
    """A receiver that comes back must not meet a crowd, and one that is away for a day is not called all day."""
    for attempt, wait in (
        (1, 5.0),
        (2, 10.0),
        (5, 80.0),
        (30, LONGEST_WAIT),
        (5000, LONGEST_WAIT),
    ):
        found = {retry_delay(attempt, 5.0, None) for _ in range(50)}
        assert len(found) > 10
        assert all(0.75 * wait <= each <= 1.25 * wait for each in found)
    assert retry_delay(1, 5.0, 600.0) == 600.0
    assert retry_delay(1, 5.0, 1.0) >= 3.75
    assert retry_delay(1, 5.0, 1e9) == LONGEST_RETRY_AFTER


async def test_the_guides_receivers_believe_what_we_send_and_nothing_else(
    sqlite_template: Path, made: Settings, receiver: Hooks
) -> None:
    """Both of its snippets, as they stand there: they are copied."""
    snippets: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
        exec(code, snippets)
    with open_database(f"sqlite:///{shutil.copy(sqlite_template, made.data_dir / 'gateway.db')}") as database:
        sync_id = end_sync(made, database, "shop", f"{receiver.url}/ok")
        async with delivering(made, database):
            await until(database, "shop", sync_id, lambda now: now.status is DELIVERED)
    (message,) = receiver.messages
    old = {**message.headers, "webhook-timestamp": "1795428005"}
    for believe in (snippets["with_library"], snippets["by_hand"]):
        assert believe(SECRET, message.headers, message.body)["data"]["id"] == str(sync_id)
        assert believe(SECRET, message.headers, message.body + b" ") is None
        assert believe(SECRET, old, message.body) is None
        assert believe("whsec_" + base64.b64encode(bytes(24)).decode(), message.headers, message.body) is None
    assert snippets["as_cloud_event"](message.body).get_data()["id"] == str(sync_id)


@pytest.mark.parametrize("place", ["spec", "guide"])
def test_documented_times_match_the_code(place: str) -> None:
    """Authors of receivers rely on them."""
    (tag,) = (each for each in documents.load(documents.GATEWAY)["tags"] if each["name"] == "Webhooks")
    said = tag["description"] if place == "spec" else GUIDE.read_text()
    text, made = " ".join(said.split()), settings.load()
    for words in (
        f"within {made.webhook_timeout_seconds:.0f} seconds",
        f"after {made.webhook_retry_seconds:.0f} seconds",
        f"up to {LONGEST_WAIT / 3600:.0f} hours",
        f"After {made.webhook_give_up_hours / 24:.0f} days",
    ):
        assert words in text
    assert JITTER == (3 / 4, 5 / 4), "give or take a quarter"
