"""What several commands share: arguments, the settings and the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from product_gateway.db.database import Database
    from product_gateway.settings import Settings


def _merchant_name(text: str) -> str:
    from product_gateway.auth.keys import merchant_name

    return merchant_name(text)


MerchantName = Annotated[str, typer.Argument(help="The merchant's name, as tokens have it.", callback=_merchant_name)]
ServiceTokenFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="File with the token that the product service expects.")
]


@contextmanager
def open_database(*, may_create: bool = False, secrets: bool = False) -> "Iterator[tuple[Settings, Database]]":
    """Open the database, its tables up to date, for one command; yield it with the settings.

    With `may_create`, make a missing data directory, its keys and the embedded database. With `secrets`, the command
    uses the key that encrypts merchants' secrets.
    """
    from product_gateway import data_directory
    from product_gateway.auth import keys
    from product_gateway.db import migrate
    from product_gateway.db.database import open_database

    settings = load_settings()
    if may_create:
        data_directory.prepare(settings, secrets=secrets)
        keys.make_missing(settings)
    else:
        data_directory.make_files_private()
        data_directory.require(settings, secrets=secrets)
        if secrets and settings.secret_key_file is None and settings.database_url is not None:
            data_directory.require_key(settings, data_directory.SECRET_KEY)
    with open_database(settings.database, may_create=may_create) as database:
        migrate.prepare(database)
        yield settings, database


def load_settings(**overrides: object) -> "Settings":
    """Load the settings, and warn of variables that are none."""
    from product_gateway import settings

    loaded = settings.load(**overrides)
    for name in settings.unknown_names():
        typer.echo(f"There is no setting {name}; it has no effect.", err=True)
    return loaded
