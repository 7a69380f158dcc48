"""The bodies of the API as types. Generated from openapi/product-gateway.yaml by `make generate`: do not edit."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict


IdempotencyKey: TypeAlias = str


EntityTags: TypeAlias = str


Preferences: TypeAlias = str


class SyncProgress(TypedDict):
    recordsRead: int
    recordsTotal: int | None
    percent: int | None


class SyncResult(TypedDict):
    created: int
    updated: int
    unchanged: int
    deleted: int
    rejected: int


class SyncFailure(TypedDict):
    code: str
    detail: str


class SyncWarning(TypedDict):
    code: str
    detail: str


class CatalogStaleEventData(TypedDict):
    merchant: str
    entityType: Literal["PRODUCT", "COLLECTION"]
    updatedAt: str | None
    staleAfter: str


class TestEventData(TypedDict):
    merchant: str


class Meta(TypedDict):
    pass


class SyncListMeta(TypedDict):
    nextCursor: NotRequired[str]


class EntitySyncStatus(TypedDict):
    entityType: Literal["PRODUCT", "COLLECTION"]
    updatedAt: str
    numRecords: float


class SyncProblemSample(TypedDict):
    recordId: str | None
    pointer: str
    message: str


class SyncProblemGroup(TypedDict):
    code: str
    count: int
    samples: list[SyncProblemSample]


class SyncProblemsResponse(TypedDict):
    data: list[SyncProblemGroup]
    meta: Meta


class Thumbnail(TypedDict):
    url: NotRequired[str]
    altText: NotRequired[str]


class Product(TypedDict):
    id: str
    title: str
    description: NotRequired[str]
    thumbnail: NotRequired[Thumbnail]
    listPrice: NotRequired[int]
    sku: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]


class CollectionSummary(TypedDict):
    id: str
    title: str
    description: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]
    productCount: int


class Collection(TypedDict):
    id: str
    title: str
    description: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]
    productCount: int
    productIds: list[str]
    products: list[Product]


class CatalogMeta(TypedDict):
    currency: NotRequired[str]
    generation: NotRequired[int]
    nextCursor: NotRequired[str]


class ChangedProduct(TypedDict):
    id: str
    title: str
    description: NotRequired[str]
    thumbnail: NotRequired[Thumbnail]
    listPrice: NotRequired[int]
    sku: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]


class ChangedCollection(TypedDict):
    id: str
    title: str
    description: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]
    productCount: int
    productIds: list[str]


class Change(TypedDict):
    change: Literal["CREATED", "UPDATED", "DELETED"]
    id: str
    generation: int
    product: NotRequired[ChangedProduct | None]
    collection: NotRequired[ChangedCollection | None]


class ChangeMeta(TypedDict):
    currency: NotRequired[str]
    generation: int
    nextCursor: str
    hasMore: bool


class ChangeListResponse(TypedDict):
    data: list[Change]
    meta: ChangeMeta


class SyncChangeListResponse(TypedDict):
    data: list[Change]
    meta: CatalogMeta


class ProductListResponse(TypedDict):
    data: list[Product]
    meta: CatalogMeta


class ProductResponse(TypedDict):
    data: Product
    meta: CatalogMeta


class CollectionListResponse(TypedDict):
    data: list[CollectionSummary]
    meta: CatalogMeta


class CollectionResponse(TypedDict):
    data: Collection
    meta: CatalogMeta


class Health(TypedDict):
    status: Literal["ok"]
    version: str


class HealthResponse(TypedDict):
    data: Health
    meta: Meta


class ResourceMetadata(TypedDict):
    resource: str
    authorization_servers: NotRequired[list[str]]
    bearer_methods_supported: list[Literal["header"]]
    scopes_supported: list[str]
    resource_name: str
    resource_documentation: NotRequired[str]


class Error(TypedDict):
    status: str
    title: str
    detail: str


class ErrorResponse(TypedDict):
    error: list[Error]


class Sync(TypedDict):
    id: str
    entityType: Literal["PRODUCT", "COLLECTION"]
    status: Literal["QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "CANCELLED"]
    queuedAt: str
    startedAt: str | None
    finishedAt: str | None
    attempt: int
    progress: SyncProgress
    result: SyncResult
    failure: SyncFailure | None
    warnings: NotRequired[list[SyncWarning]]
    publication: NotRequired[str | None]
    generation: NotRequired[int | None]
    reverts: NotRequired[str | None]


class SyncEventData(Sync):
    merchant: str


class SyncEvent(TypedDict):
    type: str
    timestamp: str
    specversion: Literal["1.0"]
    id: str
    source: str
    subject: str
    time: str
    data: SyncEventData


class CatalogStaleEvent(TypedDict):
    type: Literal["catalog.stale"]
    timestamp: str
    specversion: Literal["1.0"]
    id: str
    source: str
    subject: str
    time: str
    data: CatalogStaleEventData


class TestEvent(TypedDict):
    type: Literal["webhook.test"]
    timestamp: str
    specversion: Literal["1.0"]
    id: str
    source: str
    subject: str
    time: str
    data: TestEventData


class SyncResponse(TypedDict):
    data: Sync
    meta: Meta


class SyncListResponse(TypedDict):
    data: list[Sync]
    meta: SyncListMeta


class SyncStatusMeta(TypedDict):
    sync: NotRequired[Sync]
    fresh: NotRequired[bool]
    staleAfter: NotRequired[str]
    generation: NotRequired[int]


class SyncStatusResponse(TypedDict):
    data: EntitySyncStatus
    meta: SyncStatusMeta
