"""The command line: `product-gateway`, also `python -m product_gateway`. No logic; every command is one call."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from product_gateway.cli import check_service as checking
from product_gateway.cli import client as asking
from product_gateway.cli import merchants as keeping
from product_gateway.cli import sandbox as rehearsing
from product_gateway.cli.merchants import Name, TokenFile, load_settings, open_database
from product_gateway.errors import GatewayError
from product_gateway.telemetry.visible_text import visible_lines

# Imports stand in the commands, so that --help does not wait for a server that it does not start.

SAMPLE = "the catalog that ships with the gateway"

app = typer.Typer(
    help="Copies a merchant's products and collections into one catalog, on request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's frames take longer than all the rest
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(keeping.app, name="merchant")
app.add_typer(checking.app)  # check-service
app.add_typer(asking.app)  # sync, status, cancel, history
app.add_typer(rehearsing.app)  # sandbox


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
    from product_gateway import demo
    from product_gateway.sample import catalog_file

    settings = load_settings(allow_private_addresses=True, page_size=5)
    demo.run(settings, port, sample_port, catalog or catalog_file.SAMPLE, delay)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free port.")] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    with_worker: Annotated[bool, typer.Option("--with-worker", help="Run a worker in the same process.")] = False,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C."""
    from product_gateway.services import processes, sockets

    settings = load_settings()
    listening = sockets.bind(host, port)
    for_operations = sockets.bind_operations(settings, sockets.OPERATIONS_PORT_OF_GATEWAY)
    typer.echo(f"The product gateway listens on {sockets.url_of(listening)}", err=True)
    processes.serve(settings, listening, for_operations, with_worker=with_worker)


@app.command()
def worker() -> None:
    """Run syncs until SIGTERM or Ctrl-C. Any number of workers may share a database."""
    from product_gateway.services import processes

    processes.run_worker(load_settings())


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date."""
    from product_gateway import data_directory
    from product_gateway.db import migrate
    from product_gateway.db.database import open_database

    settings = load_settings()
    data_directory.make_files_private()
    if settings.database_url is None:
        data_directory.make(settings.data_dir)
    with open_database(settings.database) as database:
        typer.echo(f"The database is at revision {database.call(migrate.upgrade)}.")


@app.command()
def prune() -> None:
    """Drop the history of syncs that is older than the settings keep it. Workers do this by themselves."""
    from product_gateway.merchants import administration

    with open_database() as (settings, database):
        typer.echo(f"Dropped {administration.prune(settings, database)} syncs.")


@app.command()
def token(
    name: Name,
    scope: Annotated[
        list[str] | None, typer.Option(help="A right: sync:write, sync:read or catalog:read; unset: all.")
    ] = None,
    expires: Annotated[str, typer.Option(help="How long it is good for: 90s, 30m, 1h, 7d.")] = "1h",
) -> None:
    """Print a bearer token for a merchant, signed with the data directory's own key."""
    from product_gateway import data_directory
    from product_gateway.auth import keys

    good_for = keys.lifetime(expires)
    settings = load_settings()
    if data_directory.signs(settings):
        data_directory.require_key(settings, data_directory.SIGNING_KEY)
    scopes = [each for given in scope for each in given.split()] if scope else list(keys.SCOPES)
    typer.echo(keys.issue_token(settings, name, scopes, good_for))


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
    from product_gateway.merchants import administration
    from product_gateway.sample import catalog_file
    from product_gateway.sample.service import create_sample_app
    from product_gateway.services import processes, sockets
    from product_gateway.telemetry import logs

    if catalog and records is not None:
        raise typer.BadParameter("give --catalog or --records, not both")
    if records is None:
        data = catalog_file.read(catalog or catalog_file.SAMPLE, currency=currency)
        typer.echo(f"{catalog or catalog_file.SAMPLE.name}: {data.summary()}", err=True)
    else:
        data = catalog_file.generated(records)
    expected = administration.token_in(token_file) if token_file else None
    logs.configure("INFO")
    listening = sockets.bind(host, port)
    typer.echo(f"The sample product service listens on {sockets.url_of(listening)}", err=True)
    processes.serve_alone(create_sample_app(data, token=expected, delay=delay), listening)


def main() -> None:
    """Exit status: 0 done, 1 something must be changed first (said on standard error), 2 wrong usage; see `client`."""
    try:
        app()
    except GatewayError as error:
        typer.echo(visible_lines(error.detail), err=True)
        sys.exit(1)
