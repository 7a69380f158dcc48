"""The command check-service."""

from pathlib import Path
from typing import Annotated

import typer

from product_gateway.cli.shared import load_settings
from product_gateway.model.syncs import EntityType

app = typer.Typer()


@app.command("check-service")
def check_service(
    url: Annotated[str, typer.Argument(help="Where the product service is.")],
    token_file: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="File with the token that the product service expects.")
    ],
    only: Annotated[list[EntityType] | None, typer.Option(help="Check this list alone; unset: both.")] = None,
    page_size: Annotated[int | None, typer.Option(min=1, max=500, help="Records in a page; unset: PAGE_SIZE.")] = None,
    max_pages: Annotated[int, typer.Option(min=1, help="Pages of each list that are read.")] = 300,
    examples: Annotated[int, typer.Option(min=0, help="Generated requests for each operation; 0: none.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated requests.")] = 1,
    timeout: Annotated[float | None, typer.Option(min=0.01, max=600, help="Seconds that one request may take.")] = None,
    merchant: Annotated[
        str | None, typer.Option(help="Compare with this merchant's catalog; unset: with an empty one.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(dir_okay=False, help="Write JUnit XML to this file.")] = None,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Write everything as JSON to this file.")] = None,
    allow_private_addresses: Annotated[
        bool, typer.Option("--allow-private-addresses", help="The service may be on this machine, or without https.")
    ] = False,
) -> None:
    """Hold a product service to its contract, and rehearse a sync that writes nothing. Exit status 1: an error."""
    from product_gateway.check_service import runner
    from product_gateway.merchants import administration

    made = load_settings(**runner.overrides(allow_private_addresses, page_size, timeout))
    lists = tuple(dict.fromkeys(only or EntityType))
    token = administration.token_in(token_file)
    plan = runner.Plan(url, token, lists, max_pages, examples, seed, merchant)
    raise typer.Exit(runner.execute(plan, made, junit, json))
