"""The commands for the database: migrate and prune."""

import typer

from product_gateway.cli.shared import load_settings, open_database

app = typer.Typer()


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
