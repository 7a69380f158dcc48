"""A tour of the API with the client that openapi-generator's `python` makes."""

import os
import time

from product_gateway_client import (
    ApiClient,
    ApiException,
    ApiResponse,
    CatalogApi,
    Configuration,
    EntityType,
    Error,
    ErrorResponse,
    SyncApi,
    SyncResponse,
    SyncStatus,
)
from urllib3.util import Retry

ACTIVE = {SyncStatus.QUEUED, SyncStatus.IN_PROGRESS}


def connect(token: str) -> ApiClient:
    """A client with this token."""
    configuration = Configuration(host=os.environ["GATEWAY"], access_token=token)
    # By itself urllib3 meets a 429 by waiting for Retry-After and asking again; here the 429 is to be seen.
    configuration.retries = Retry(respect_retry_after_header=False)
    return ApiClient(configuration)


def first_error(failed: ApiException) -> Error:
    """What the answer says, as the type that the spec gives it."""
    assert isinstance(failed.data, ErrorResponse)
    return failed.data.error[0]


def header(answer: ApiException | ApiResponse[SyncResponse], name: str) -> str | None:
    """Return a header of the response. Here the headers are a plain map, but names have no case."""
    return next((value for key, value in (answer.headers or {}).items() if key.lower() == name), None)


client = connect(os.environ["TOKEN"])
syncs, catalog = SyncApi(client), CatalogApi(client)

sync = syncs.enqueue_sync(EntityType.PRODUCT).data
print("202:", sync.status.value)

try:
    syncs.enqueue_sync(EntityType.PRODUCT)
except ApiException as failed:
    error = first_error(failed)
    print(f"{error.status}: {error.title}, retry after {header(failed, 'retry-after')} s: {error.detail}")

answer = syncs.get_sync_with_http_info(sync.id, prefer="wait=20")
while answer.data.data.status in ACTIVE:
    if header(answer, "preference-applied") is None:  # the gateway has not waited
        time.sleep(int(header(answer, "retry-after") or 1))
    answer = syncs.get_sync_with_http_info(sync.id, prefer="wait=20")
print("ended:", answer.data.data.status.value)

print(f"200: {int(syncs.get_sync_status(EntityType.PRODUCT).data.num_records)} records")

failed_sync = syncs.list_syncs(entity_type=EntityType.COLLECTION, status=SyncStatus.FAILED).data[0]
assert failed_sync.failure is not None
print(f"failed: {failed_sync.failure.code}: {failed_sync.failure.detail}")

partial = syncs.list_syncs(entity_type=EntityType.COLLECTION, status=SyncStatus.SUCCEEDED).data[0]
group = syncs.list_sync_problems(partial.id).data[0]
print(f"problems: {group.count} {group.code}: {group.samples[0].message}")

page = catalog.list_products(page_size=20)
products = page.data
while page.meta.next_cursor is not None:
    page = catalog.list_products(page_size=20, cursor=page.meta.next_cursor)
    products += page.data
print(f"pages: {len(products)} products, the last is {products[-1].id}")

feed = catalog.list_changes(EntityType.PRODUCT, page_size=20)
changes = feed.data
while feed.meta.has_more:
    feed = catalog.list_changes(EntityType.PRODUCT, page_size=20, cursor=feed.meta.next_cursor)
    changes += feed.data
last, generation = changes[-1], feed.meta.generation
assert last.product is not None
print(f"changes: {len(changes)} up to generation {generation}, the last is {last.change.value} {last.product.title}")

for token in os.environ["EXPIRED_TOKEN"], os.environ["OTHER_PLATFORM_TOKEN"]:
    try:
        SyncApi(connect(token)).enqueue_sync(EntityType.PRODUCT)
    except ApiException as failed:
        error = first_error(failed)
        print(f"{error.status}: {error.title}: {error.detail}")
