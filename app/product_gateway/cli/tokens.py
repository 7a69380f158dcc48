"""The command token."""

from typing import Annotated

import typer

from product_gateway.cli.shared import MerchantName, load_settings

app = typer.Typer()


@app.command()
def token(
    name: MerchantName,
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
