"""The operator's commands besides `merchant`: migrate, distribute, prune and token."""

from typing import Annotated

import typer

from product_gateway.cli.shared import App, MerchantName, load_settings, open_database

app = App()


@app.command()
def migrate() -> None:
    """Bring the tables of the database up to date."""
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
def distribute(
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the SQL for a database that is not distributed.")
    ] = False,
) -> None:
    """Distribute the tables of a PostgreSQL with Citus over its machines.

    Can be run again: it does what is still to do.
    """
    from product_gateway.db import distribute

    if only_print:
        for each in distribute.statements():
            typer.echo(f"{each};")
        return
    with open_database() as (_, database):
        done = distribute.run(database)
        for each in done:
            typer.echo(f"{each};")
        typer.echo("The tables are distributed." if done else "The tables were distributed already.")


@app.command()
def prune() -> None:
    """Delete syncs that are past their retention.

    Workers also do this.
    """
    from product_gateway.merchants import administration

    with open_database() as (settings, database):
        typer.echo(f"Dropped {administration.prune(settings, database)} syncs.")


@app.command()
def token(
    name: MerchantName,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="sync:write, sync:read or catalog:read; repeatable; unset: all."),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="Lifetime of the token: 90s, 30m, 1h, 7d.")] = "1h",
) -> None:
    """Print a bearer token for a merchant.

    It is signed with the key in the data directory.
    """
    from product_gateway import data_directory
    from product_gateway.auth import keys

    good_for = keys.lifetime(expires)
    settings = load_settings()
    if data_directory.signs(settings):
        data_directory.require_key(settings, data_directory.SIGNING_KEY)
    scopes = [each for given in scope for each in given.split()] if scope else list(keys.SCOPES)
    typer.echo(keys.issue_token(settings, name, scopes, good_for))
