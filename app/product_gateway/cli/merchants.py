"""The commands `merchant …`, for the operator."""

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from product_gateway.cli.shared import App, Json, MerchantName, ServiceTokenFile, Type, one_of, open_database
from product_gateway.model.merchants import Platform
from product_gateway.telemetry.visible_text import visible

if TYPE_CHECKING:
    from product_gateway.db.database import Database
    from product_gateway.merchants.administration import WebhookChange

app = App(help="Manage merchants.", no_args_is_help=True, rich_markup_mode=None)
webhook_app = App(help="Test webhooks.", no_args_is_help=True, rich_markup_mode=None)


Url = Annotated[str | None, typer.Option(metavar="URL", help="URL of the merchant's product service.")]
Currency = Annotated[str | None, typer.Option(metavar="CODE", help="The merchant's currency (ISO 4217), such as GBP.")]
MaxRejected = Annotated[
    int | None,
    typer.Option(min=0, max=100, metavar="PERCENT", help="Largest share of rejected records of a successful sync."),
]
MaxAge = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE=AGE",
        help="Age after which a catalog is stale, such as PRODUCT=24h; 90m, 24h, 7d or off. May be repeated.",
    ),
]
WebhookUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="URL that gets a message when a sync ends, or a catalog is stale.")
]
WebhookSecretFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, metavar="FILE", help="File with the secret that signs messages: whsec_…"),
]


@app.command()
def add(
    name: MerchantName,
    platform: Annotated[
        Platform,
        typer.Option(**one_of(Platform), help="BYOP: has a product service. BENTO: has none."),
    ],
    product_service_url: Url = None,
    product_service_token_file: ServiceTokenFile = None,
    currency: Currency = None,
    max_rejected_percent: MaxRejected = 10,
    max_age: MaxAge = None,
    webhook_url: WebhookUrl = None,
    webhook_secret_file: WebhookSecretFile = None,
) -> None:
    """Add a merchant.

    Contacts nothing. Without --webhook-secret-file, the secret of the webhook is generated and printed.
    """
    from product_gateway.merchants import administration

    secrets = bool(product_service_token_file or webhook_url or webhook_secret_file)
    with open_database(may_create=True, secrets=secrets) as (settings, database):
        values = administration.validated(
            settings,
            product_service_url,
            product_service_token_file,
            currency=currency,
            max_rejected_percent=max_rejected_percent,
        )
        webhook = administration.webhook(settings, webhook_url, webhook_secret_file)
        ages = administration.max_ages(max_age or ())
        added = administration.add(database, name, platform, values, webhook, ages)
        typer.echo(f"Added {added.name}.")
        if platform is Platform.BYOP and product_service_token_file is None:
            typer.echo(
                f"Warning: {name} has no product service token, so requests carry no Authorization header. To set one: "
                f"product-gateway merchant update {name} --product-service-token-file FILE",
                err=True,
            )
        _set_webhook(database, name, webhook)


@app.command("list")
def list_merchants(json: Json = False) -> None:
    """List merchants, one per line."""
    from product_gateway.db import freshness, merchants
    from product_gateway.merchants import administration

    with open_database() as (_, database):
        found, ages = database.call(merchants.list_all), database.call(freshness.of_all)
    if json:
        typer.echo(dumps([administration.body(each, ages.get(each.name, {})) for each in found]))
    elif not found:
        typer.echo("There are no merchants. Add one: product-gateway merchant add MERCHANT --platform BYOP …", err=True)
    for each in () if json else found:
        state = "disabled" if each.disabled else "enabled"
        typer.echo("\t".join(map(visible, (each.name, each.platform, state, each.product_service_url or "-"))))


@app.command()
def show(name: MerchantName, json: Json = False) -> None:
    """Show a merchant, its latest syncs and its webhook, without secrets."""
    from product_gateway.merchants import administration

    with open_database() as (_, database):
        found = administration.Description.read(database, name)
        typer.echo(dumps(found.body()) if json else found.text())


@app.command()
def update(
    name: MerchantName,
    platform: Annotated[Platform | None, typer.Option(**one_of(Platform), help="The new platform.")] = None,
    product_service_url: Url = None,
    product_service_token_file: ServiceTokenFile = None,
    currency: Currency = None,
    max_rejected_percent: MaxRejected = None,
    max_age: MaxAge = None,
    webhook_url: WebhookUrl = None,
    webhook_secret_file: WebhookSecretFile = None,
    new_webhook_secret: Annotated[
        bool, typer.Option("--new-webhook-secret", help="Generate a new webhook secret, and print it.")
    ] = False,
    no_webhook: Annotated[bool, typer.Option("--no-webhook", help="Remove the webhook.")] = False,
    disable: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Refuse or accept requests of the merchant.")
    ] = None,
) -> None:
    """Change a merchant.

    Values without an option stay unchanged.
    """
    from product_gateway.merchants import administration

    secrets = bool(product_service_token_file or webhook_url or webhook_secret_file or new_webhook_secret)
    with open_database(secrets=secrets) as (settings, database):
        values = administration.validated(
            settings,
            product_service_url,
            product_service_token_file,
            currency=currency,
            max_rejected_percent=max_rejected_percent,
            platform=platform,
            disabled=disable,
        )
        webhook = administration.webhook(
            settings, webhook_url, webhook_secret_file, new_secret=new_webhook_secret, off=no_webhook
        )
        ages = administration.max_ages(max_age or ())
        administration.update(database, name, values, webhook, ages)
        typer.echo(f"Updated {name}.")
        _set_webhook(database, name, webhook)


@app.command("allow-mass-deletion")
def allow_mass_deletion(name: MerchantName, entity_type: Type) -> None:
    """Let the next successful sync remove any number of records."""
    from product_gateway.merchants import administration

    with open_database() as (_, database):
        administration.allow_mass_deletion(database, name, entity_type)
        typer.echo(f"The next sync of {entity_type} may remove any number of {name}'s records.")


@app.command()
def reencrypt() -> None:
    """Encrypt secrets with the first key of the key file.

    Exit status 1: a secret could not be decrypted.
    """
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
    name: MerchantName, yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False
) -> None:
    """Delete a merchant, its syncs and its catalog.

    This cannot be undone.
    """
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


@webhook_app.command("test")
def send_test(name: MerchantName, json: Json = False) -> None:
    """Send a signed test message to a merchant's webhook.

    Exit status 1: it was not accepted with 2xx. The message has the type webhook.test, and is sent once.
    """
    from product_gateway.services.worker import send_test_message

    with open_database(secrets=True) as (settings, database):
        status, error, url = send_test_message(settings, database, name)
    if json:
        typer.echo(dumps({"delivered": error is None, "status": status, "error": error}))
    elif error is None:
        typer.echo(f"Delivered: {url} answered {status}.")
    else:
        typer.echo(f"Not delivered to {url}. {error}", err=True)
    raise typer.Exit(0 if error is None else 1)


def _set_webhook(database: "Database", name: str, webhook: "WebhookChange | None") -> None:
    from product_gateway.merchants import administration

    secret = None if webhook is None else administration.set_webhook(database, name, webhook)
    if secret is not None:
        typer.echo(f"The secret of its webhook, which is not shown again: {secret}")
