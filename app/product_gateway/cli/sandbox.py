"""The command sandbox."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the gateway listens; 0 is any free port.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    sync_seconds: Annotated[float, typer.Option(min=0, max=60, help="How long an ordinary sync takes.")] = 1.0,
    slow_seconds: Annotated[float, typer.Option(min=0, max=600, help="How long a sync=slow takes.")] = 5.0,
    latency: Annotated[float, typer.Option(min=0, max=60, help="Seconds to wait before each answer of the API.")] = 0.0,
    fault_percent: Annotated[
        float, typer.Option(min=0, max=100, help="Share of the API's requests that are answered 500 or 503.")
    ] = 0.0,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Stop when standard input closes, as when the parent ends.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every request and sync on standard error.")] = False,
) -> None:
    """Run a gateway for tests of its clients, without a database. Says as one line of JSON where it is."""
    from product_gateway.sandbox import runner

    asked = runner.Options(host, port, sync_seconds, slow_seconds, latency, fault_percent, until_eof, verbose)
    runner.run(asked, typer.echo)
