"""The command line: `product-gateway`, also `python -m product_gateway`.

Every command is one call. Commands import what they run, so that --help is fast.
"""

import sys

import typer

from product_gateway.cli import check_service, client, merchants, operator, servers
from product_gateway.errors import GatewayError
from product_gateway.telemetry.visible_text import visible_lines

app = typer.Typer(
    help="Copies a merchant's products and collections into one catalog, on request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's frames would slow --help down
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(merchants.app, name="merchant")
for group in (servers, operator, check_service, client):
    app.add_typer(group.app)


def main() -> None:
    """Run a command. Exit codes: 0 success, 1 error (see stderr), 2 wrong usage; the client commands have more."""
    try:
        app()
    except GatewayError as error:
        typer.echo(visible_lines(error.detail), err=True)
        sys.exit(1)
