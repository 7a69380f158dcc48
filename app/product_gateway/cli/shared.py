"""What several commands share: arguments, the settings and the database."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from product_gateway.model.syncs import EntityType

if TYPE_CHECKING:
    from product_gateway.db.database import Database
    from product_gateway.settings import Settings


Function = TypeVar("Function", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command whose help shows placeholders without Python's types."""

    def get_help(self, ctx: Any) -> str:
        return re.sub(r" <[\w|\[\] ]+>|[{}]", "", super().get_help(ctx))

    def get_usage(self, ctx: Any) -> str:
        return super().get_usage(ctx).replace("{", "").replace("}", "")


class App(typer.Typer):
    """A group of commands of the class Command."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[Function], Function]:
        made: Callable[[Function], Function] = super().command(name, cls=Command, **more)
        return made


def one_of(values: type[StrEnum]) -> dict[str, Any]:
    """Return what a parameter needs to accept the values in any case, and to list them in its help and errors."""

    def parse(text: str) -> StrEnum:
        try:
            return values(text.upper())
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(values)}.") from None

    def complete(incomplete: str) -> list[str]:
        return [each for each in values if each.startswith(incomplete.upper())]

    return {"parser": parse, "metavar": "|".join(values), "autocompletion": complete}


def _merchant_name(text: str) -> str:
    from product_gateway.auth.keys import merchant_name

    return merchant_name(text)


MerchantName = Annotated[
    str, typer.Argument(metavar="MERCHANT", help="The merchant's name, as in tokens.", callback=_merchant_name)
]
Type = Annotated[EntityType, typer.Argument(**one_of(EntityType), help="The entity type.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ServiceTokenFile = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, metavar="FILE", help="File with the token that the product service expects."
    ),
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
    """Load the settings, and warn of variables that are none. Overrides that are None are not given."""
    from product_gateway import settings

    loaded = settings.load(**{name: value for name, value in overrides.items() if value is not None})
    warn_of_unknown_settings()
    return loaded


def warn_of_unknown_settings() -> None:
    """Name variables with our prefix that are no setting."""
    from product_gateway import settings
    from product_gateway.telemetry import standard_streams

    for name in settings.unknown_names():
        standard_streams.say(f"There is no setting {name}; it has no effect.")
