"""A tour of the API with the client that openapi-python-client makes."""

import os
import time
from http import HTTPStatus

from product_gateway_client import AuthenticatedClient
from product_gateway_client.api.catalog import list_changes, list_products
from product_gateway_client.api.sync import enqueue_sync, get_sync, get_sync_status, list_sync_problems, list_syncs
from product_gateway_client.models import Change, EntityType, ErrorResponse, Product, Sync, SyncStatus
from product_gateway_client.types import UNSET, Unset

ACTIVE = {SyncStatus.QUEUED, SyncStatus.IN_PROGRESS}


def connect(token: str) -> AuthenticatedClient:
    """A client with this token."""
    return AuthenticatedClient(base_url=os.environ["GATEWAY"], token=token)


client = connect(os.environ["TOKEN"])

enqueued = enqueue_sync.sync_detailed(EntityType.PRODUCT, client=client)
assert enqueued.status_code == HTTPStatus.ACCEPTED
assert enqueued.parsed is not None
assert not isinstance(enqueued.parsed, ErrorResponse)
sync = enqueued.parsed.data
print("202:", sync.status.value)

refused = enqueue_sync.sync_detailed(EntityType.PRODUCT, client=client)
if isinstance(refused.parsed, ErrorResponse):
    error = refused.parsed.error[0]
    print(f"{error.status}: {error.title}, retry after {int(refused.headers['Retry-After'])} s: {error.detail}")

while sync.status in ACTIVE:
    answer = get_sync.sync_detailed(sync.id, client=client, prefer="wait=20")
    assert answer.parsed is not None
    assert not isinstance(answer.parsed, ErrorResponse)
    sync = answer.parsed.data
    if "Retry-After" in answer.headers and "Preference-Applied" not in answer.headers:  # the gateway has not waited
        time.sleep(int(answer.headers["Retry-After"]))
print("ended:", sync.status.value)

status = get_sync_status.sync(EntityType.PRODUCT, client=client)
assert status is not None
assert not isinstance(status, ErrorResponse)
print(f"200: {int(status.data.num_records)} records")


def newest(status: SyncStatus) -> Sync:
    """Return the newest sync of collections with this status."""
    page = list_syncs.sync(client=client, entity_type=EntityType.COLLECTION, status=status)
    assert page is not None
    assert not isinstance(page, ErrorResponse)
    return page.data[0]


failure = newest(SyncStatus.FAILED).failure
assert failure is not None
print(f"failed: {failure.code}: {failure.detail}")

problems = list_sync_problems.sync(newest(SyncStatus.SUCCEEDED).id, client=client)
assert problems is not None
assert not isinstance(problems, ErrorResponse)
group = problems.data[0]
print(f"problems: {group.count} {group.code}: {group.samples[0].message}")

products: list[Product] = []
cursor: str | Unset = UNSET
while True:
    page = list_products.sync(client=client, page_size=20, cursor=cursor)
    assert page is not None
    assert not isinstance(page, ErrorResponse)
    products += page.data
    if isinstance(page.meta.next_cursor, Unset):
        break
    cursor = page.meta.next_cursor
print(f"pages: {len(products)} products, the last is {products[-1].id}")

changes: list[Change] = []
cursor = UNSET
while True:
    feed = list_changes.sync(EntityType.PRODUCT, client=client, page_size=20, cursor=cursor)
    assert feed is not None
    assert not isinstance(feed, ErrorResponse)
    changes += feed.data
    if not feed.meta.has_more:
        break
    cursor = feed.meta.next_cursor
last, generation = changes[-1], feed.meta.generation
assert last.product  # neither missing nor null
print(f"changes: {len(changes)} up to generation {generation}, the last is {last.change.value} {last.product.title}")

for token in os.environ["EXPIRED_TOKEN"], os.environ["OTHER_PLATFORM_TOKEN"]:
    refusal = enqueue_sync.sync(EntityType.PRODUCT, client=connect(token))
    if isinstance(refusal, ErrorResponse):
        error = refusal.error[0]
        print(f"{error.status}: {error.title}: {error.detail}")
