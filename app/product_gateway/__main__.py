"""The command line: `product-gateway`, also `python -m product_gateway`. No logic; every command is one call."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from product_gateway.client import commands as asking
from product_gateway.conformance import commands as checking
from product_gateway.errors import GatewayError
from product_gateway.model import EntityType, Platform

if TYPE_CHECKING:
    from product_gateway.db import Database
    from product_gateway.settings import Settings

# Imports stand in the commands, so that --help does not wait for a server that it does not start.

SAMPLE = "the catalog that ships with the gateway"

app = typer.Typer(
    help="Copies a merchant's products and collections into one catalog, on request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
merchant = typer.Typer(help="The merchants: who may ask, and where their products come from.", no_args_is_help=True)
app.add_typer(merchant, name="merchant")
app.add_typer(checking.app)  # check-service
app.add_typer(asking.app)  # sync, status, cancel, history


def _merchant_name(text: str) -> str:
    from product_gateway.keys import merchant_name

    return merchant_name(text)


Name = Annotated[str, typer.Argument(help="The merchant's name, as tokens have it.", callback=_merchant_name)]
Url = Annotated[str | None, typer.Option(help="Where the merchant's product service is.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="File with the token that the product service expects."),
]
Currency = Annotated[str | None, typer.Option(help="The merchant's currency (ISO 4217), such as GBP.")]
MaxRejected = Annotated[
    int | None,
    typer.Option(min=0, max=100, help="Share of records, in percent, that may not fit before a sync is stopped."),
]
Catalog = Annotated[Path | None, typer.Option(help=f"JSON, JSON Lines or Shopify CSV file; unset: {SAMPLE}.")]
Delay = Annotated[float, typer.Option(min=0, help="Seconds to wait before each page.")]


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the gateway listens.")] = 8080,
    sample_port: Annotated[int, typer.Option(min=0, max=65535, help="Where the sample service listens.")] = 8081,
    catalog: Catalog = None,
    delay: Delay = 1.0,
) -> None:
    """Run everything on this machine: gateway, worker, sample service, a merchant and a token."""
    from product_gateway import catalog_file, demo

    settings = _settings(allow_private_addresses=True, page_size=5)
    demo.run(settings, port, sample_port, catalog or catalog_file.SAMPLE, delay)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free port.")] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    with_worker: Annotated[bool, typer.Option("--with-worker", help="Run a worker in the same process.")] = False,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C."""
    from product_gateway import launch

    settings = _settings()
    listening = launch.bind(host, port)
    for_operations = launch.bind_operations(settings, launch.OPERATIONS_PORT_OF_GATEWAY)
    typer.echo(f"The product gateway listens on {launch.url_of(listening)}", err=True)
    launch.serve(settings, listening, for_operations, with_worker=with_worker)


@app.command()
def worker() -> None:
    """Run syncs until SIGTERM or Ctrl-C. Any number of workers may share a database."""
    from product_gateway import launch

    launch.run_worker(_settings())


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date."""
    from product_gateway import db
    from product_gateway.db import migrate

    with db.open_for_a_while(_settings().database) as database:
        typer.echo(f"The database is at revision {database.call(migrate.upgrade)}.")


@app.command()
def prune() -> None:
    """Drop the history of syncs that is older than the settings keep it. Workers do this by themselves."""
    from product_gateway import registry

    with _database() as (settings, database):
        typer.echo(f"Dropped {registry.prune(settings, database)} syncs.")


@app.command()
def token(
    name: Name,
    scope: Annotated[
        list[str] | None, typer.Option(help="A right: sync:write, sync:read or catalog:read; unset: all.")
    ] = None,
    expires: Annotated[str, typer.Option(help="How long it is good for: 90s, 30m, 1h, 7d.")] = "1h",
) -> None:
    """Print a bearer token for a merchant, signed with the data directory's own key."""
    from product_gateway import keys

    scopes = [each for given in scope for each in given.split()] if scope else list(keys.SCOPES)
    typer.echo(keys.issue_token(_settings(), name, scopes, keys.lifetime(expires)))


@app.command("sample-service")
def sample_service(
    catalog: Catalog = None,
    records: Annotated[int | None, typer.Option(min=0, help="Serve so many made-up products instead.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free port.")] = 8081,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    delay: Delay = 0.0,
    token_file: TokenFile = None,
    currency: Annotated[str, typer.Option(help="The currency of a CSV file's prices (ISO 4217).")] = "GBP",
) -> None:
    """Serve a catalog file as a product service, for rehearsals. Without --token-file any bearer token will do."""
    from product_gateway import catalog_file, launch, logs, registry, sample_service

    if catalog and records is not None:
        raise typer.BadParameter("give --catalog or --records, not both")
    if records is None:
        data = catalog_file.read(catalog or catalog_file.SAMPLE, currency=currency)
    else:
        data = catalog_file.generated(records)
    expected = registry.token_in(token_file) if token_file else None
    logs.set_up("INFO")
    listening = launch.bind(host, port)
    typer.echo(f"The sample product service listens on {launch.url_of(listening)}", err=True)
    launch.serve_alone(sample_service.create_app(data, token=expected, delay=delay), listening)


@merchant.command()
def add(
    name: Name,
    platform: Annotated[Platform, typer.Option(help="BYOP: brings its own platform. BENTO: does not.")],
    product_service_url: Url = None,
    product_service_token_file: TokenFile = None,
    currency: Currency = None,
    max_rejected_percent: MaxRejected = 10,
) -> None:
    """Add a merchant. Contacts nothing."""
    from product_gateway import registry

    with _database() as (settings, database):
        values = registry.checked(
            settings, product_service_url, product_service_token_file, currency, max_rejected_percent
        )
        added = registry.add(database, name, platform, values)
        typer.echo(f"Added {added.name}.")


@merchant.command("list")
def list_merchants() -> None:
    """List the merchants, one a line."""
    from product_gateway.db import merchants

    with _database() as (_, database):
        for each in database.call(merchants.all_of_them):
            state = "disabled" if each.disabled else "enabled"
            typer.echo("\t".join((each.name, each.platform, state, each.product_service_url or "-")))


@merchant.command()
def show(name: Name) -> None:
    """Show a merchant, without its secrets, and its syncs."""
    from product_gateway import registry

    with _database() as (_, database):
        typer.echo(registry.describe(database, name))


@merchant.command()
def update(
    name: Name,
    platform: Annotated[Platform | None, typer.Option(help="BYOP or BENTO.")] = None,
    product_service_url: Url = None,
    product_service_token_file: TokenFile = None,
    currency: Currency = None,
    max_rejected_percent: MaxRejected = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Refuse, or accept, its requests.")] = None,
) -> None:
    """Change a merchant. What is not named stays as it is."""
    from product_gateway import registry

    with _database() as (settings, database):
        values = registry.checked(
            settings, product_service_url, product_service_token_file, currency, max_rejected_percent
        )
        registry.update(database, name, platform, disable, values)
        typer.echo(f"Updated {name}.")


@merchant.command("allow-mass-deletion")
def allow_mass_deletion(
    name: Name, entity_type: Annotated[EntityType, typer.Argument(help="PRODUCT or COLLECTION.")]
) -> None:
    """Let the next successful sync remove as many records as are gone. Only that one."""
    from product_gateway import registry

    with _database() as (_, database):
        registry.allow_mass_deletion(database, name, entity_type)
        typer.echo(f"The next sync of {entity_type} may remove any number of {name}'s records.")


@merchant.command()
def remove(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Don't ask whether this is meant.")] = False
) -> None:
    """Erase a merchant with its syncs and its catalog. This cannot be undone."""
    from product_gateway.db import merchants

    with _database() as (_, database):
        database.call(merchants.get, name)
        if not yes:
            _confirm(f"Erase {name} with its syncs and its catalog?")
        database.call(merchants.remove, name)
        typer.echo(f"Removed {name}.")


def _confirm(question: str) -> None:
    # typer.confirm would write a space to standard output
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(1)


@contextmanager
def _database() -> "Iterator[tuple[Settings, Database]]":
    """The settings and the database, its tables up to date, for the length of a command."""
    from product_gateway import db
    from product_gateway.db import migrate

    settings = _settings()
    with db.open_for_a_while(settings.database) as database:
        migrate.prepare(database)
        yield settings, database


def _settings(**overrides: object) -> "Settings":
    from product_gateway import settings

    loaded = settings.load(**overrides)
    for name in settings.unknown_names():
        typer.echo(f"There is no setting {name}; it has no effect.", err=True)
    return loaded


def main() -> None:
    """Exit status: 0 done, 1 something must be changed first (said on standard error), 2 wrong usage; see `client`."""
    try:
        app()
    except GatewayError as error:
        typer.echo(error.detail, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
