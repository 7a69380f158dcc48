"""The bodies of the API as types. Generated from openapi/product-gateway.yaml by `make generate`: do not edit."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict


EntityType: TypeAlias = Literal["PRODUCT", "COLLECTION"]


SyncId: TypeAlias = str


IdempotencyKey: TypeAlias = str


Preferences: TypeAlias = str


RecordId: TypeAlias = str


Cursor: TypeAlias = str


class SyncProgress(TypedDict):
    """
    How far the sync is
    """

    recordsRead: int
    recordsTotal: int | None
    percent: int | None


class SyncResult(TypedDict):
    """
    What the sync has done to the catalog so far, in records
    """

    created: int
    updated: int
    unchanged: int
    deleted: int
    rejected: int


class SyncFailure(TypedDict):
    """
    Why the sync failed; null where it did not
    """

    code: str
    detail: str


class SyncWarning(TypedDict):
    """
    Something that a reader of the result should know
    """

    code: str
    detail: str


SyncStatus: TypeAlias = Literal["QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "CANCELLED"]


class Meta(TypedDict):
    """
    Additional information about the resource
    """


class SyncListMeta(TypedDict):
    """
    Additional information about the resource
    """

    nextCursor: NotRequired[Cursor]


class EntitySyncStatus(TypedDict):
    """
    The details of the last sync
    """

    entityType: EntityType
    updatedAt: str
    numRecords: float


class SyncProblemSample(TypedDict):
    """
    One of the rejected records
    """

    recordId: str | None
    pointer: str
    message: str


class SyncProblemGroup(TypedDict):
    """
    Rejected records that have the same thing wrong with them
    """

    code: str
    count: int
    samples: list[SyncProblemSample]


class SyncProblemsResponse(TypedDict):
    """
    The rejected records of a sync
    """

    data: list[SyncProblemGroup]
    meta: Meta


class Thumbnail(TypedDict):
    """
    A picture of the product
    """

    url: NotRequired[str]
    altText: NotRequired[str]


class Product(TypedDict):
    """
    Something that the merchant sells. Fields that the merchant's record does not have are left out.
    """

    id: RecordId
    title: str
    description: NotRequired[str]
    thumbnail: NotRequired[Thumbnail]
    listPrice: NotRequired[int]
    sku: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]


class CollectionSummary(TypedDict):
    """
    A group of products. Fields that the merchant's record does not have are left out.
    """

    id: RecordId
    title: str
    description: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]
    productCount: int


class Collection(TypedDict):
    """
    A group of products. Fields that the merchant's record does not have are left out.
    """

    id: RecordId
    title: str
    description: NotRequired[str]
    createdAt: NotRequired[str]
    updatedAt: NotRequired[str]
    meta: NotRequired[Meta]
    productCount: int
    productIds: list[RecordId]
    products: list[Product]


class CatalogMeta(TypedDict):
    """
    Additional information about the resource
    """

    currency: NotRequired[str]
    nextCursor: NotRequired[Cursor]


class ProductListResponse(TypedDict):
    """
    A page of products
    """

    data: list[Product]
    meta: CatalogMeta


class ProductResponse(TypedDict):
    """
    A product
    """

    data: Product
    meta: CatalogMeta


class CollectionListResponse(TypedDict):
    """
    A page of collections
    """

    data: list[CollectionSummary]
    meta: CatalogMeta


class CollectionResponse(TypedDict):
    """
    A collection
    """

    data: Collection
    meta: CatalogMeta


class Health(TypedDict):
    """
    How the server is
    """

    status: Literal["ok"]


class HealthResponse(TypedDict):
    """
    How the server is
    """

    data: Health
    meta: Meta


class Error(TypedDict):
    """
    One thing that went wrong
    """

    status: str
    title: str
    detail: str


class ErrorResponse(TypedDict):
    """
    What went wrong
    """

    error: list[Error]


class Sync(TypedDict):
    """
    One run of a sync
    """

    id: SyncId
    entityType: EntityType
    status: SyncStatus
    queuedAt: str
    startedAt: str | None
    finishedAt: str | None
    attempt: int
    progress: SyncProgress
    result: SyncResult
    failure: SyncFailure | None
    warnings: NotRequired[list[SyncWarning]]


class SyncEventData(Sync):
    """
    The ended sync, in the form of `GET /syncs/{syncId}`, and its merchant
    """

    merchant: str


class SyncEvent(TypedDict):
    """
    A message to a webhook
    """

    type: str
    timestamp: str
    data: SyncEventData


class SyncResponse(TypedDict):
    """
    A sync
    """

    data: Sync
    meta: Meta


class SyncListResponse(TypedDict):
    """
    A page of syncs
    """

    data: list[Sync]
    meta: SyncListMeta


class SyncStatusMeta(TypedDict):
    """
    Additional information about the resource
    """

    sync: NotRequired[Sync]


class SyncStatusResponse(TypedDict):
    """
    The details of the last sync
    """

    data: EntitySyncStatus
    meta: SyncStatusMeta
