"""A tour of the API with the client that openapi-python-client makes."""

import os
import time
from http import HTTPStatus

from product_gateway_client import AuthenticatedClient
from product_gateway_client.api.catalog import list_products
from product_gateway_client.api.sync import enqueue_sync, get_sync, get_sync_status
from product_gateway_client.models import EntityType, ErrorResponse, SyncStatus
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
    answer = get_sync.sync_detailed(sync.id, client=client)
    assert answer.parsed is not None
    assert not isinstance(answer.parsed, ErrorResponse)
    sync = answer.parsed.data
    if "Retry-After" in answer.headers:
        time.sleep(int(answer.headers["Retry-After"]))
print("ended:", sync.status.value)

status = get_sync_status.sync(EntityType.PRODUCT, client=client)
assert status is not None
assert not isinstance(status, ErrorResponse)
print(f"200: {int(status.data.num_records)} records")

pages = []
cursor: str | Unset = UNSET
while True:
    page = list_products.sync(client=client, page_size=20, cursor=cursor)
    assert page is not None
    assert not isinstance(page, ErrorResponse)
    pages.append(page.data)
    if isinstance(page.meta.next_cursor, Unset):
        break
    cursor = page.meta.next_cursor
print(f"pages: {' + '.join(str(len(page)) for page in pages)} products, the last is {pages[-1][-1].id}")

for token in os.environ["EXPIRED_TOKEN"], os.environ["OTHER_PLATFORM_TOKEN"]:
    refusal = enqueue_sync.sync(EntityType.PRODUCT, client=connect(token))
    if isinstance(refusal, ErrorResponse):
        error = refusal.error[0]
        print(f"{error.status}: {error.title}: {error.detail}")
