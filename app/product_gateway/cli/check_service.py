"""The commands check-service and check-webhook."""

from pathlib import Path
from typing import Annotated

import typer

from product_gateway.cli.shared import App, load_settings, one_of
from product_gateway.model.syncs import EntityType

app = App()

JUnit = Annotated[Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write JUnit XML to this file.")]
Json = Annotated[
    Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write the report as JSON to this file.")
]


@app.command("check-service")
def check_service(
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the product service.")],
    token_file: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="File with the token that the product service expects."
        ),
    ],
    only: Annotated[
        list[EntityType] | None,
        typer.Option(**one_of(EntityType), help="Check only this list; unset: both."),
    ] = None,
    page_size: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="Records in a page; unset: PAGE_SIZE.")
    ] = None,
    max_pages: Annotated[int, typer.Option(min=1, metavar="N", help="Most pages of each list that are read.")] = 300,
    examples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Generated requests for each operation; 0: none.")
    ] = 40,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the generated requests.")] = 1,
    timeout: Annotated[
        float | None, typer.Option(min=0.01, max=600, metavar="SECONDS", help="Time-out of one request.")
    ] = None,
    merchant: Annotated[
        str | None, typer.Option(metavar="MERCHANT", help="Compare with this merchant's catalog; unset: an empty one.")
    ] = None,
    junit: JUnit = None,
    json: Json = None,
    allow_private_addresses: Annotated[
        bool, typer.Option("--allow-private-addresses", help="Allow services on this machine and http.")
    ] = False,
) -> None:
    """Check a product service against the contract.

    Reads its lists as a sync does, but writes nothing. Exit status 1: an error was found.
    """
    from product_gateway.check_service import runner
    from product_gateway.merchants import administration

    made = load_settings(
        allow_private_addresses=allow_private_addresses or None,
        page_size=page_size,
        read_timeout_seconds=timeout,
        request_timeout_seconds=timeout,
    )
    lists = tuple(dict.fromkeys(only or EntityType))
    token = administration.token_in(token_file)
    plan = runner.Plan(url, token, lists, max_pages, examples, seed, merchant)
    raise typer.Exit(runner.execute(plan, made, junit, json))


@app.command("check-webhook")
def check_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the receiver.")],
    secret_file: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, metavar="FILE", help="File with the secret of the webhook, whsec_…"),
    ],
    merchant: Annotated[str, typer.Option(metavar="MERCHANT", help="The merchant that messages name.")] = "acme",
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, max=120, metavar="SECONDS", help="Time to answer; unset: WEBHOOK_TIMEOUT_SECONDS."),
    ] = None,
    junit: JUnit = None,
    json: Json = None,
    allow_private_addresses: Annotated[
        bool, typer.Option("--allow-private-addresses", help="Allow receivers on this machine and http.")
    ] = False,
) -> None:
    """Check a webhook receiver with valid and forged messages.

    Exit status 1: an error was found.
    """
    from product_gateway.check_service import webhooks

    made = load_settings(allow_private_addresses=allow_private_addresses or None, webhook_timeout_seconds=timeout)
    raise typer.Exit(webhooks.execute(url, secret_file, merchant, made, junit, json))
