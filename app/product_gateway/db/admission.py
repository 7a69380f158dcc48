"""Merchant admission: whether a merchant may use the merchant operations."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Row, bindparam, select

from product_gateway.db.tables import merchants
from product_gateway.errors import MerchantDisabled, NotAllowed, NotBringYourOwnPlatform, UnknownMerchant
from product_gateway.model.merchants import Merchant, Platform

P = ParamSpec("P")
T = TypeVar("T")

ADMISSION_COLUMNS = [merchants.c.disabled, merchants.c.platform]

_select_one = select(merchants).where(merchants.c.name == bindparam("m"))


def refusal_of(row: Row[Any] | Merchant) -> NotAllowed | None:
    """Return why the merchant is refused: UnknownMerchant, MerchantDisabled or NotBringYourOwnPlatform.

    A row has the ADMISSION_COLUMNS; they are NULL where there is no such merchant.
    """
    if row.platform is None:
        return UnknownMerchant()
    if row.disabled:
        return MerchantDisabled()
    return None if row.platform == Platform.BYOP else NotBringYourOwnPlatform()


def find(connection: Connection, name: str) -> Merchant | None:
    """Return the merchant, admitted or not."""
    row = connection.execute(_select_one, {"m": name}).first()
    return None if row is None else merchant_of(row)


def require_active(connection: Connection, name: str) -> Merchant:
    """Return the merchant if it is admitted; raise its refusal otherwise."""
    merchant = find(connection, name)
    if merchant is None:
        raise UnknownMerchant
    if refusal := refusal_of(merchant):
        raise refusal
    return merchant


def for_active_merchant(
    work: Callable[Concatenate[Connection, str, P], T],
) -> Callable[Concatenate[Connection, str, P], tuple[Merchant, T]]:
    """Wrap `work` so that it checks admission first, in the same transaction, and also returns the merchant."""

    def both(connection: Connection, name: str, /, *args: P.args, **kwargs: P.kwargs) -> tuple[Merchant, T]:
        merchant = require_active(connection, name)
        return merchant, work(connection, name, *args, **kwargs)

    both.__name__ = work.__name__  # in traces
    return both


def merchant_of(row: Row[Any]) -> Merchant:
    values = row._asdict()
    return Merchant(**{**values, "platform": Platform(values["platform"])})
