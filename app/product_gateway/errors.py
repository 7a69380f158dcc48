"""The exception hierarchy. api/error_responses maps it to HTTP."""

from collections.abc import Sequence
from uuid import UUID

from product_gateway.model.syncs import EntityType, Sync, SyncStatus


class GatewayError(Exception):
    """The base of all errors that this project raises. `detail` is written for the reader of the message.

    GatewayError
    ├── SettingsError             the operator must change something
    │   └── NoToken               a client command has no bearer token
    ├── InvalidRequest            the request does not fit the spec
    ├── NotAuthenticated          no bearer token, or not a valid one
    ├── NotAllowed
    │   ├── MissingScope          the token does not carry the right
    │   ├── UnknownMerchant       the token names a merchant that we don't have
    │   ├── MerchantDisabled
    │   └── NotBringYourOwnPlatform   it has no product service, so there is nothing to sync
    ├── NotFound
    │   ├── NeverSynced           no sync of this entity type has succeeded
    │   ├── NoActiveSync          there is nothing to cancel
    │   ├── SyncNotFound          of this merchant
    │   ├── PageNotFound          there is no such page, or the operator shows none
    │   └── RecordNotFound        in this merchant's catalog
    ├── GenerationGone            of the catalog: the history no longer has it
    ├── NotPublishable            the sync has no result that can be published, discarded or reverted
    ├── SyncAlreadyActive         one of this merchant and entity type is queued or in progress
    ├── RateLimited               this merchant or address asks too often
    ├── LeaseLost                 the claim is no longer ours: stop, write nothing
    ├── Unavailable               something that we need is away; trying again later helps
    │   └── Overloaded            there is more to do than this process can
    ├── OutboundError             an outbound request failed, or its response cannot be used
    │   ├── AddressNotAllowed     the address is not one that we may call
    │   ├── Unreachable           no answer, or not a whole one; trying again may help
    │   ├── AnswerTooLarge
    │   └── AnswerUnreadable      it is compressed in a way that cannot be undone, or nested too deep
    ├── Refused                   a gateway that the client command asked did not do it
    ├── PullFailed                the sync ends FAILED with this code
    │   └── PullInterrupted       the same, where trying the request again may help
    └── TurnOver                  the sync gives its slot to a waiting merchant
    """

    detail = ""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.detail)
        self.detail = detail or self.detail


class SettingsError(GatewayError):
    """A setting, file or argument that the operator must change."""


class NoToken(SettingsError):
    """A client command has no bearer token: wrong usage."""


class InvalidRequest(GatewayError):
    """The request does not fit the spec."""


class NotAuthenticated(GatewayError):
    """No bearer token (`presented` is False), or one that is not valid."""

    def __init__(self, detail: str, *, presented: bool = True) -> None:
        super().__init__(detail)
        self.presented = presented


class NotAllowed(GatewayError):
    """The caller is known and may not do this."""


class MissingScope(NotAllowed):
    def __init__(self, scope: str, claims: Sequence[str]) -> None:
        super().__init__(
            f"The token does not carry the scope {scope}, which this operation needs. Scopes are read from "
            f"{'the claim' if len(claims) == 1 else 'the claims'} {', '.join(claims)}: a string with spaces between "
            "the scopes, or a list of strings."
        )
        self.scope = scope


class UnknownMerchant(NotAllowed):
    detail = "The token is valid, but the gateway does not know its merchant."


class MerchantDisabled(NotAllowed):
    detail = "This merchant is disabled."


class NotBringYourOwnPlatform(NotAllowed):
    detail = "This merchant does not use bring your own platform for its products, so there is nothing to sync."


class NotFound(GatewayError):
    """The requested object does not exist for this caller."""


class NeverSynced(NotFound):
    """No sync of this entity type has succeeded yet; `latest` is the last one that was asked for."""

    def __init__(self, entity_type: EntityType, latest: Sync | None) -> None:
        if latest is None:
            now = f"None has been asked for: PUT /product-gateway/v1/sync/{entity_type} starts one."
        elif latest.status is SyncStatus.QUEUED:
            now = f"Sync {latest.id} is queued."
        elif latest.status is SyncStatus.IN_PROGRESS:
            now = f"Sync {latest.id} is running."
        else:
            now = f"The last one, sync {latest.id}, ended {latest.status}; none is queued or running."
        super().__init__(f"No sync of {entity_type} has succeeded yet. {now}")


class NoActiveSync(NotFound):
    def __init__(self, entity_type: EntityType) -> None:
        super().__init__(f"No sync of {entity_type} is queued or in progress, so there is nothing to cancel.")


class SyncNotFound(NotFound):
    def __init__(self, sync_id: UUID) -> None:
        super().__init__(f"There is no sync {sync_id}.")


class PageNotFound(NotFound):
    detail = "There is nothing at this path."


class RecordNotFound(NotFound):
    def __init__(self, entity_type: EntityType, record_id: str) -> None:
        super().__init__(f"The catalog has no {entity_type.lower()} with the id {record_id!r}.")


class GenerationGone(GatewayError):
    """The history no longer has the generation of the catalog."""


class NotPublishable(GatewayError):
    """The sync has no result that can be published, discarded or reverted."""


class SyncAlreadyActive(GatewayError):
    def __init__(self, active: Sync) -> None:
        super().__init__(
            f"Sync {active.id} of {active.entity_type} is {active.status}. Only one sync per entity type may be "
            "queued or in progress; wait for it to end."
        )
        self.active = active


class RateLimited(GatewayError):
    """The rate limit is exceeded; the next request is allowed after `seconds`."""

    def __init__(self, detail: str, seconds: int) -> None:
        super().__init__(detail)
        self.seconds = seconds


class LeaseLost(GatewayError):
    """Another worker has the sync, or it has ended."""


class Unavailable(GatewayError):
    """A dependency is unavailable. `detail` names no host, address or credential."""

    @property
    def with_cause(self) -> str:
        """The detail and its cause in one line, for the operator: the cause may name hosts."""
        return " ".join(f"{self.detail} {self.__cause__ or ''}".split())


class Overloaded(Unavailable):
    detail = "The gateway has more requests than it can serve at the moment."


class OutboundError(GatewayError):
    """An outgoing request failed. `detail` holds no token and no query string."""


class AddressNotAllowed(OutboundError):
    """The address is private, not https, or carries a password."""


class Unreachable(OutboundError):
    """No answer, or not a whole one: DNS, connection, TLS, time-out or broken transfer."""


class AnswerTooLarge(OutboundError):
    """The answer has more bytes than we read: `size` of them, if that can be told or estimated, and not `limit`."""

    def __init__(self, detail: str, size: int | None = None, limit: int = 1) -> None:
        super().__init__(detail)
        self.size = size
        self.limit = limit


class AnswerUnreadable(OutboundError):
    """The answer came, but cannot be decompressed, or nests too deep."""


class Refused(GatewayError):
    """A gateway answered that it does not do what the client command asked for.

    `status` is that of HTTP, `body` what it said, parsed, `wait` its Retry-After in seconds, and `active` the sync
    that is in the way.
    """

    def __init__(
        self, detail: str, status: int, *, body: object = None, wait: float | None = None, active: UUID | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.body = body
        self.wait = wait
        self.active = active


class PullFailed(GatewayError):
    """The sync cannot go on: it ends FAILED with `code` (UPPER_SNAKE) and the detail."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class TurnOver(GatewayError):
    """The sync gives its slot to a waiting merchant and continues later after its last page."""


class PullInterrupted(PullFailed):
    """A failure that may pass: the same request may be tried again, at best after `retry_after` seconds."""

    def __init__(self, code: str, detail: str, retry_after: float | None = None, status: str = "no answer") -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after
        self.status = status  # of the HTTP response
