"""The merchants: who may ask, and where their products come from."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from product_gateway.db import syncs, tables
from product_gateway.db.tables import merchants
from product_gateway.db.types import now
from product_gateway.errors import MerchantDisabled, NotAllowed, NotBringYourOwnPlatform, SettingsError, UnknownMerchant
from product_gateway.model.merchants import Merchant, Platform

P = ParamSpec("P")
T = TypeVar("T")

DISABLED = "because its merchant was disabled"
NO_LONGER_BYOP = "because its merchant no longer brings its own platform"

_select_one = select(merchants).where(merchants.c.name == bindparam("m"))


def find(connection: Connection, name: str) -> Merchant | None:
    """The merchant of this name."""
    row = connection.execute(_select_one, {"m": name}).first()
    return None if row is None else _merchant(row)


def get(connection: Connection, name: str) -> Merchant:
    """For the operator: raises SettingsError where there is none."""
    merchant = find(connection, name)
    if merchant is None:
        raise SettingsError(f"There is no merchant {name}. `product-gateway merchant list` shows those that there are.")
    return merchant


def require_active(connection: Connection, name: str) -> Merchant:
    """The merchant, if it may use the merchant operations.

    Raises UnknownMerchant, MerchantDisabled or NotBringYourOwnPlatform.
    """
    merchant = find(connection, name)
    if merchant is None:
        raise UnknownMerchant
    if refusal := refusal_of(disabled=merchant.disabled, platform=merchant.platform):
        raise refusal
    return merchant


def refusal_of(*, disabled: bool | None, platform: str | None) -> NotAllowed | None:
    """What a merchant has to hear instead of an answer, if anything; None stands for one that there is not."""
    if platform is None:
        return UnknownMerchant()
    if disabled:
        return MerchantDisabled()
    return None if platform == Platform.BYOP else NotBringYourOwnPlatform()


def for_active_merchant(
    work: Callable[Concatenate[Connection, str, P], T],
) -> Callable[Concatenate[Connection, str, P], tuple[Merchant, T]]:
    """`work` for the merchant of this name, if it is admitted, and the merchant: of one moment, in one transaction."""

    def both(connection: Connection, name: str, /, *args: P.args, **kwargs: P.kwargs) -> tuple[Merchant, T]:
        merchant = require_active(connection, name)
        return merchant, work(connection, name, *args, **kwargs)

    both.__name__ = work.__name__  # in traces
    return both


def list_all(connection: Connection) -> list[Merchant]:
    """In order of their names."""
    return [_merchant(row) for row in connection.execute(select(merchants).order_by(merchants.c.name))]


def add(
    connection: Connection,
    name: str,
    platform: Platform,
    product_service_url: str | None = None,
    product_service_token: str | None = None,
    currency: str | None = None,
    max_rejected_percent: int = 10,
) -> Merchant:
    """A new merchant; the token comes encrypted. Raises SettingsError where the name is taken."""
    if find(connection, name) is not None:
        raise SettingsError(
            f"There is a merchant {name} already. `product-gateway merchant update {name} …` changes it."
        )
    connection.execute(
        insert(merchants).values(
            name=name,
            platform=platform,
            product_service_url=product_service_url,
            product_service_token=product_service_token,
            currency=currency,
            max_rejected_percent=max_rejected_percent,
            disabled=False,
            created_at=now(),
            updated_at=now(),
        )
    )
    return get(connection, name)


def update_merchant(connection: Connection, name: str, /, **values: Any) -> Merchant:
    """Set columns of the merchant. Raise SettingsError where there is none, or where the values do not fit together.

    A merchant that may no longer use the merchant operations could not cancel its active syncs itself. So they are
    cancelled in the same transaction.
    """
    merchant = get(connection, name)
    url = values.get("product_service_url", merchant.product_service_url)
    if values.get("platform", merchant.platform) == Platform.BYOP and not url:
        raise SettingsError(f"{name} needs a product service to bring its own platform: add --product-service-url.")
    connection.execute(update(merchants).where(merchants.c.name == name).values(**values, updated_at=now()))
    changed = get(connection, name)
    if refusal_of(disabled=changed.disabled, platform=changed.platform):
        syncs.cancel_all(connection, name, DISABLED if changed.disabled else NO_LONGER_BYOP)
    return changed


def remove(connection: Connection, name: str) -> None:
    """Erases the merchant with its syncs and records; a worker that is at one of them loses its claim."""
    get(connection, name)
    for table in (
        tables.webhook_deliveries,
        tables.webhooks,
        tables.syncs,
        tables.sync_problems,
        tables.sync_events,
        tables.seen_records,
        tables.catalog_records,
        tables.catalog_counts,
    ):
        connection.execute(delete(table).where(table.c.merchant == name))
    connection.execute(delete(merchants).where(merchants.c.name == name))


def _merchant(row: Row[Any]) -> Merchant:
    return Merchant(
        name=row.name,
        platform=Platform(row.platform),
        product_service_url=row.product_service_url,
        product_service_token=row.product_service_token,
        currency=row.currency,
        max_rejected_percent=row.max_rejected_percent,
        disabled=row.disabled,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
