"""The columns with encrypted secrets, for a change of the encryption key."""

from dataclasses import dataclass, field

from sqlalchemy import Column, Connection, select, update

from product_gateway.db.tables import merchants, webhooks

# Name, merchant column and secret column.
_PLACES: tuple[tuple[str, Column[str], Column[str]], ...] = (
    ("product service token", merchants.c.name, merchants.c.product_service_token),
    ("webhook secret", webhooks.c.merchant, webhooks.c.secret),
    ("previous webhook secret", webhooks.c.merchant, webhooks.c.previous_secret),
)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A stored secret, encrypted."""

    what: str
    merchant: str
    value: str = field(repr=False)


def all_of_them(connection: Connection) -> list[Encrypted]:
    """Return every stored secret."""
    return [
        Encrypted(what, *row)
        for what, merchant, secret in _PLACES
        for row in connection.execute(select(merchant, secret).where(secret.is_not(None)).order_by(merchant))
    ]


def replace(connection: Connection, old: Encrypted, value: str) -> bool:
    """Replace the old value. Return False if it was changed meanwhile."""
    merchant, secret = next((merchant, secret) for what, merchant, secret in _PLACES if what == old.what)
    statement = update(secret.table).where(merchant == old.merchant, secret == old.value).values({secret: value})
    return connection.execute(statement).rowcount > 0
