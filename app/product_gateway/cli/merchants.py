"""The commands `merchant …`, for the operator."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from product_gateway.cli.shared import MerchantName, ServiceTokenFile, open_database
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.telemetry.visible_text import visible

if TYPE_CHECKING:
    from product_gateway.db.database import Database
    from product_gateway.merchants.administration import WebhookChange

app = typer.Typer(
    help="The merchants: who may ask, and where their products come from.", no_args_is_help=True, rich_markup_mode=None
)


Url = Annotated[str | None, typer.Option(help="Where the merchant's product service is.")]
Currency = Annotated[str | None, typer.Option(help="The merchant's currency (ISO 4217), such as GBP.")]
MaxRejected = Annotated[
    int | None,
    typer.Option(min=0, max=100, help="Share of records, in percent, that may not fit before a sync is stopped."),
]
WebhookUrl = Annotated[str | None, typer.Option(help="Where the merchant is told how each of its syncs ended.")]
WebhookSecretFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="File with the secret that messages are signed with: whsec_…"),
]


@app.command()
def add(
    name: MerchantName,
    platform: Annotated[Platform, typer.Option(help="BYOP: brings its own platform. BENTO: does not.")],
    product_service_url: Url = None,
    product_service_token_file: ServiceTokenFile = None,
    currency: Currency = None,
    max_rejected_percent: MaxRejected = 10,
    webhook_url: WebhookUrl = None,
    webhook_secret_file: WebhookSecretFile = None,
) -> None:
    """Add a merchant. Contacts nothing. A webhook without --webhook-secret-file gets a secret, which is printed."""
    from product_gateway.merchants import administration

    secrets = bool(product_service_token_file or webhook_url or webhook_secret_file)
    with open_database(may_create=True, secrets=secrets) as (settings, database):
        values = administration.validated(
            settings, product_service_url, product_service_token_file, currency, max_rejected_percent
        )
        webhook = administration.webhook(settings, webhook_url, webhook_secret_file)
        added = administration.add(database, name, platform, values, webhook)
        typer.echo(f"Added {added.name}.")
        _set_webhook(database, name, webhook)


@app.command("list")
def list_merchants() -> None:
    """List the merchants, one a line."""
    from product_gateway.db import merchants

    with open_database() as (_, database):
        for each in database.call(merchants.list_all):
            state = "disabled" if each.disabled else "enabled"
            typer.echo("\t".join(map(visible, (each.name, each.platform, state, each.product_service_url or "-"))))


@app.command()
def show(name: MerchantName) -> None:
    """Show a merchant, without its secrets, and its syncs."""
    from product_gateway.merchants import administration

    with open_database() as (_, database):
        typer.echo(administration.describe(database, name))


@app.command()
def update(
    name: MerchantName,
    platform: Annotated[Platform | None, typer.Option(help="BYOP or BENTO.")] = None,
    product_service_url: Url = None,
    product_service_token_file: ServiceTokenFile = None,
    currency: Currency = None,
    max_rejected_percent: MaxRejected = None,
    webhook_url: WebhookUrl = None,
    webhook_secret_file: WebhookSecretFile = None,
    new_webhook_secret: Annotated[
        bool, typer.Option("--new-webhook-secret", help="Make a new secret for the webhook, and print it.")
    ] = False,
    no_webhook: Annotated[bool, typer.Option("--no-webhook", help="Turn the webhook off.")] = False,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Refuse, or accept, its requests.")] = None,
) -> None:
    """Change a merchant. Settings without an option keep their values."""
    from product_gateway.merchants import administration

    secrets = bool(product_service_token_file or webhook_url or webhook_secret_file or new_webhook_secret)
    with open_database(secrets=secrets) as (settings, database):
        values = administration.validated(
            settings, product_service_url, product_service_token_file, currency, max_rejected_percent
        )
        webhook = administration.webhook(
            settings, webhook_url, webhook_secret_file, new_secret=new_webhook_secret, off=no_webhook
        )
        administration.update(database, name, platform, disable, values, webhook)
        typer.echo(f"Updated {name}.")
        _set_webhook(database, name, webhook)


@app.command("allow-mass-deletion")
def allow_mass_deletion(
    name: MerchantName, entity_type: Annotated[EntityType, typer.Argument(help="PRODUCT or COLLECTION.")]
) -> None:
    """Let the next successful sync remove as many records as are gone. Only that one."""
    from product_gateway.merchants import administration

    with open_database() as (_, database):
        administration.allow_mass_deletion(database, name, entity_type)
        typer.echo(f"The next sync of {entity_type} may remove any number of {name}'s records.")


@app.command()
def reencrypt() -> None:
    """Encrypt all merchants' secrets with the first key in the key file. Exit status 1: some could not be read."""
    from product_gateway.merchants import administration

    with open_database(secrets=True) as (settings, database):
        renewed, unchanged, unreadable = administration.reencrypt(settings, database)
        typer.echo(f"Encrypted {renewed} secrets with the first key; {unchanged} already were.")
        if unreadable:
            typer.echo(
                f"No key in the key file reads {len(unreadable)}: {', '.join(unreadable)}. Add the key that "
                "they were encrypted with, or set them again: product-gateway merchant update",
                err=True,
            )
            raise typer.Exit(1)


@app.command()
def remove(
    name: MerchantName, yes: Annotated[bool, typer.Option("--yes", help="Don't ask whether this is meant.")] = False
) -> None:
    """Erase a merchant with its syncs and its catalog. This cannot be undone."""
    from product_gateway.db import merchants

    with open_database() as (_, database):
        database.call(merchants.get, name)
        if not yes:
            # typer.confirm would write a space to standard output
            typer.echo(f"Erase {name} with its syncs and its catalog? [y/N] ", nl=False, err=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                typer.echo("Nothing was done.", err=True)
                raise typer.Exit(1)
        database.call(merchants.remove, name)
        typer.echo(f"Removed {name}.")


def _set_webhook(database: "Database", name: str, webhook: "WebhookChange | None") -> None:
    from product_gateway.merchants import administration

    secret = None if webhook is None else administration.set_webhook(database, name, webhook)
    if secret is not None:
        typer.echo(f"The secret of its webhook, which is not shown again: {secret}")
