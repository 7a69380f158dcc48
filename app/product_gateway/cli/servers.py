"""The commands that run until they are stopped: demo, serve, worker, sample-service and sandbox."""

from pathlib import Path
from typing import Annotated

import typer

from product_gateway.cli.shared import ServiceTokenFile, load_settings

app = typer.Typer()

SAMPLE = "the catalog that ships with the gateway"
Catalog = Annotated[Path | None, typer.Option(help=f"JSON, JSON Lines or Shopify CSV file; unset: {SAMPLE}.")]
Delay = Annotated[float, typer.Option(min=0, help="Seconds to wait before each page.")]


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the gateway listens.")] = 8080,
    sample_port: Annotated[int, typer.Option(min=0, max=65535, help="Where the sample service listens.")] = 8081,
    catalog: Catalog = None,
    delay: Delay = 1.0,
) -> None:
    """Run everything on this machine: gateway, worker, sample service, a merchant and a token."""
    from product_gateway import demo
    from product_gateway.sample import catalog_file

    settings = load_settings(allow_private_addresses=True, page_size=5)
    demo.run(settings, port, sample_port, catalog or catalog_file.SAMPLE, delay)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free port.")] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    with_worker: Annotated[bool, typer.Option("--with-worker", help="Run a worker in the same process.")] = False,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C."""
    from product_gateway.services import processes, sockets

    settings = load_settings()
    listening = sockets.bind(host, port)
    for_operations = sockets.bind_operations(settings, sockets.OPERATIONS_PORT_OF_GATEWAY)
    typer.echo(f"The product gateway listens on {sockets.url_of(listening)}", err=True)
    processes.serve(settings, listening, for_operations, with_worker=with_worker)


@app.command()
def worker() -> None:
    """Run syncs until SIGTERM or Ctrl-C. Any number of workers may share a database."""
    from product_gateway.services import processes

    processes.run_worker(load_settings())


@app.command("sample-service")
def sample_service(
    catalog: Catalog = None,
    records: Annotated[int | None, typer.Option(min=0, help="Serve this number of generated products instead.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free port.")] = 8081,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    delay: Delay = 0.0,
    token_file: ServiceTokenFile = None,
    currency: Annotated[str, typer.Option(help="The currency of a CSV file's prices (ISO 4217).")] = "GBP",
) -> None:
    """Serve a catalog file as a product service, for rehearsals. Without --token-file any bearer token will do."""
    from product_gateway.merchants import administration
    from product_gateway.sample import catalog_file
    from product_gateway.sample.service import create_sample_app
    from product_gateway.services import processes, sockets
    from product_gateway.telemetry import logs

    if catalog and records is not None:
        raise typer.BadParameter("give --catalog or --records, not both")
    if records is None:
        data = catalog_file.read(catalog or catalog_file.SAMPLE, currency=currency)
        typer.echo(f"{catalog or catalog_file.SAMPLE.name}: {data.summary()}", err=True)
    else:
        data = catalog_file.generated(records)
    expected = administration.token_in(token_file) if token_file else None
    logs.configure("INFO")
    listening = sockets.bind(host, port)
    typer.echo(f"The sample product service listens on {sockets.url_of(listening)}", err=True)
    processes.serve_alone(create_sample_app(data, token=expected, delay=delay), listening)


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

    runner.run(typer.echo, host, port, sync_seconds, slow_seconds, latency, fault_percent, until_eof, verbose)
