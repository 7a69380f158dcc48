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


def retry_after(answer: ApiException | ApiResponse[SyncResponse]) -> int:
    """How many seconds to wait before asking again. Names are in lower case, as the gateway writes them."""
    return int((answer.headers or {})["retry-after"])


client = connect(os.environ["TOKEN"])
syncs, catalog = SyncApi(client), CatalogApi(client)

sync = syncs.enqueue_sync(EntityType.PRODUCT).data
print("202:", sync.status.value)

try:
    syncs.enqueue_sync(EntityType.PRODUCT)
except ApiException as failed:
    error = first_error(failed)
    print(f"{error.status}: {error.title}, retry after {retry_after(failed)} s: {error.detail}")

answer = syncs.get_sync_with_http_info(sync.id)
while answer.data.data.status in ACTIVE:
    time.sleep(retry_after(answer))
    answer = syncs.get_sync_with_http_info(sync.id)
print("ended:", answer.data.data.status.value)

print(f"200: {int(syncs.get_sync_status(EntityType.PRODUCT).data.num_records)} records")

first = catalog.list_products(page_size=20)
second = catalog.list_products(page_size=20, cursor=first.meta.next_cursor)
assert second.meta.next_cursor is None
print(f"pages: {len(first.data)} + {len(second.data)} products, the last is {second.data[-1].id}")

for token in os.environ["EXPIRED_TOKEN"], os.environ["OTHER_PLATFORM_TOKEN"]:
    try:
        SyncApi(connect(token)).enqueue_sync(EntityType.PRODUCT)
    except ApiException as failed:
        error = first_error(failed)
        print(f"{error.status}: {error.title}: {error.detail}")
