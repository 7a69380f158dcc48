"""The command line: `product-gateway`, also `python -m product_gateway`.

Every command is one call. Commands import what they run, so that --help is fast.
"""

import sys
from typing import Annotated

import typer

from product_gateway.cli import check_service, client, merchants, operator, servers
from product_gateway.errors import GatewayError
from product_gateway.telemetry import standard_streams
from product_gateway.telemetry.visible_text import visible_lines

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's frames would slow --help down
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(merchants.app, name="merchant")
app.add_typer(merchants.webhook_app, name="webhook")
for group in (servers, operator, check_service, client):
    app.add_typer(group.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from product_gateway.telemetry.version import version

        typer.echo(f"product-gateway {version()}")
        raise typer.Exit


@app.callback()
def top(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Keep one up-to-date copy of many merchants' catalogs."""


def main() -> None:
    """Run a command. Exit codes: 0 success, 1 error (see stderr), 2 wrong usage; the client commands have more."""
    standard_streams.open_missing()
    try:
        app()
    except GatewayError as error:
        standard_streams.say(visible_lines(error.detail))
        sys.exit(1)
    except OSError as error:
        if not standard_streams.is_output_lost(error):
            raise
        standard_streams.say(f"Standard output cannot be written: {error.strerror}.")
        sys.exit(1)
