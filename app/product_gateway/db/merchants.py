"""Merchants: their settings, and whether they may use the API."""

from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from product_gateway.db import syncs
from product_gateway.db.admission import find as find
from product_gateway.db.admission import merchant_of, refusal_of
from product_gateway.db.tables import merchants, metadata
from product_gateway.db.types import now
from product_gateway.errors import SettingsError
from product_gateway.model.merchants import Merchant, Platform

DISABLED = "because its merchant was disabled"
NO_LONGER_BYOP = "because its merchant no longer brings its own platform"


def get(connection: Connection, name: str) -> Merchant:
    """Return the merchant. Raises SettingsError, for commands of the operator."""
    merchant = find(connection, name)
    if merchant is None:
        raise SettingsError(f"There is no merchant {name}. `product-gateway merchant list` shows all merchants.")
    return merchant


def list_all(connection: Connection) -> list[Merchant]:
    """Return all merchants in order of name."""
    return [merchant_of(row) for row in connection.execute(select(merchants).order_by(merchants.c.name))]


def add(
    connection: Connection,
    name: str,
    platform: Platform,
    product_service_url: str | None = None,
    product_service_token: str | None = None,
    currency: str | None = None,
    max_rejected_percent: int = 10,
) -> Merchant:
    """Add a merchant; the token is already encrypted. Raises SettingsError if the name is taken."""
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
    """Set columns of the merchant. Raises SettingsError if there is none, or if BYOP lacks a product service URL.

    If the merchant may no longer use the API, its syncs go QUEUED or IN_PROGRESS -> CANCELLED: it cannot cancel them.
    """
    merchant = get(connection, name)
    url = values.get("product_service_url", merchant.product_service_url)
    if values.get("platform", merchant.platform) == Platform.BYOP and not url:
        raise SettingsError(f"{name} needs a product service to bring its own platform: add --product-service-url.")
    connection.execute(update(merchants).where(merchants.c.name == name).values(**values, updated_at=now()))
    changed = get(connection, name)
    if refusal_of(changed):
        syncs.cancel_all(connection, name, DISABLED if changed.disabled else NO_LONGER_BYOP)
    return changed


def remove(connection: Connection, name: str) -> None:
    """Delete the merchant with its syncs and records. A worker that runs one of its syncs loses the claim."""
    get(connection, name)
    for table in reversed(metadata.sorted_tables):  # foreign keys first
        if "merchant" in table.c:
            connection.execute(delete(table).where(table.c.merchant == name))
    connection.execute(delete(merchants).where(merchants.c.name == name))
