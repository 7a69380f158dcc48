"""The commands that run until they are stopped: demo, serve, worker, sample-service and sandbox."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from product_gateway.cli.shared import App, ServiceTokenFile, load_settings
from product_gateway.telemetry import standard_streams

app = App()

MOST_PROCESSES = 64
SAMPLE = "the catalog that ships with the gateway"
Catalog = Annotated[
    Path | None, typer.Option(metavar="FILE", help=f"JSON, JSON Lines or Shopify CSV file; unset: {SAMPLE}.")
]
Delay = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Wait before each page.")]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port of the server; 0: any free port.")]
SamplePort = Annotated[
    int, typer.Option(min=0, max=65535, metavar="PORT", help="Port of the sample product service; 0: any free port.")
]
OperationsPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        metavar="PORT",
        help="Port of metrics, health and the monitor; 0: any free port; unset: PRODUCT_GATEWAY_OPERATIONS_PORT.",
    ),
]


def _number_of_processes(given: str | int) -> int:
    """Parse an option, or its default."""
    text = str(given)
    if text == "auto":
        from product_gateway.services.multiprocess import available_cores

        return min(available_cores(), MOST_PROCESSES)
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_PROCESSES:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a number from 1 to {MOST_PROCESSES} nor auto.")


Processes = Annotated[
    int,
    typer.Option(
        parser=_number_of_processes,
        metavar="N|auto",
        help="Number of processes; auto: one for each core that this process may use.",
    ),
]


@app.command()
def demo(
    port: Port = 8080,
    operations_port: OperationsPort = None,
    sample_port: SamplePort = 8081,
    catalog: Catalog = None,
    delay: Delay = 1.0,
) -> None:
    """Run everything on this machine, with a sample merchant and a token."""
    from product_gateway import demo
    from product_gateway.sample import catalog_file

    settings = load_settings(operations_port=operations_port, allow_private_addresses=True, page_size=5)
    demo.run(settings, port, sample_port, catalog or catalog_file.SAMPLE, delay)


@app.command()
def serve(
    port: Port = 8080,
    host: Host = "127.0.0.1",
    operations_port: OperationsPort = None,
    with_worker: Annotated[
        bool, typer.Option("--with-worker", help="Run a worker, too: in the same process, or beside several.")
    ] = False,
    processes: Processes = 1,
) -> None:
    """Serve the API until SIGTERM, SIGHUP or Ctrl-C."""
    from product_gateway.services import sockets

    settings = load_settings(operations_port=operations_port)
    listening = sockets.bind(host, port)
    for_operations = sockets.bind_operations(settings, sockets.OPERATIONS_PORT_OF_GATEWAY)
    say = functools.partial(standard_streams.say, f"The product gateway listens on {sockets.url_of(listening)}")
    if processes == 1:
        from product_gateway.services.processes import serve

        serve(settings, listening, for_operations, say, with_worker=with_worker)
    else:
        from product_gateway.services import multiprocess

        multiprocess.serve(settings, listening, for_operations, say, processes, with_worker=with_worker)


@app.command()
def worker(operations_port: OperationsPort = None, processes: Processes = 1) -> None:
    """Run syncs until SIGTERM, SIGHUP or Ctrl-C.

    Any number of workers may share a database.
    """
    settings = load_settings(operations_port=operations_port)
    if processes == 1:
        from product_gateway.services.processes import run_worker

        run_worker(settings)
    else:
        from product_gateway.services import multiprocess

        multiprocess.run_workers(settings, processes)


@app.command("sample-service")
def sample_service(
    catalog: Catalog = None,
    records: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Serve this number of generated products instead.")
    ] = None,
    port: Port = 8081,
    host: Host = "127.0.0.1",
    delay: Delay = 0.0,
    token_file: ServiceTokenFile = None,
    currency: Annotated[str, typer.Option(metavar="CODE", help="Currency of a CSV file's prices (ISO 4217).")] = "GBP",
) -> None:
    """Serve a catalog file as a product service.

    Without --token-file, the service accepts any bearer token.
    """
    from product_gateway.merchants import administration
    from product_gateway.sample import catalog_file
    from product_gateway.sample.service import create_sample_app
    from product_gateway.services import processes, sockets
    from product_gateway.telemetry import logs

    if catalog and records is not None:
        raise typer.BadParameter("give --catalog or --records, not both")
    if records is None:
        data = catalog_file.read(catalog or catalog_file.SAMPLE, currency=currency)
        standard_streams.say(f"{catalog or catalog_file.SAMPLE.name}: {data.summary()}")
    else:
        data = catalog_file.GeneratedCatalog(records)
    expected = administration.token_in(token_file) if token_file else None
    logs.configure("INFO")
    listening = sockets.bind(host, port)
    say = functools.partial(standard_streams.say, f"The sample product service listens on {sockets.url_of(listening)}")
    processes.serve_alone(create_sample_app(data, token=expected, delay=delay), listening, say)


SyncSeconds = Annotated[float, typer.Option(min=0, max=60, metavar="SECONDS", help="Duration of an ordinary sync.")]
SlowSeconds = Annotated[float, typer.Option(min=0, max=600, metavar="SECONDS", help="Duration of a sync=slow.")]
WebhookUrl = Annotated[
    str | None, typer.Option("--webhook", metavar="URL", help="Webhook of the first merchant; unset: none.")
]


@app.command()
def sandbox(
    port: Port = 0,
    host: Host = "127.0.0.1",
    sync_seconds: SyncSeconds = 1.0,
    slow_seconds: SlowSeconds = 5.0,
    latency: Annotated[
        float, typer.Option(min=0, max=60, metavar="SECONDS", help="Wait before each response of the API.")
    ] = 0.0,
    fault_percent: Annotated[
        float,
        typer.Option(min=0, max=100, metavar="PERCENT", help="Share of requests that get 500 or 503."),
    ] = 0.0,
    tolerance: Annotated[
        str | None,
        typer.Option(metavar="SEED|MUTATION", help="Change responses in ways that the spec allows; unset: do not."),
    ] = None,
    webhook: WebhookUrl = None,
    max_age: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE=AGE", help="Max age of a catalog of the first merchant, such as PRODUCT=24h."),
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Stop when standard input closes, as when the parent ends.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every request and sync on standard error.")] = False,
) -> None:
    """Run a gateway for tests of clients.

    It needs no database. Prints its addresses and tokens as one line of JSON.
    """
    from product_gateway.sandbox import runner

    changes = None
    if tolerance is not None:
        from product_gateway.sandbox.tolerance import Tolerance

        changes = Tolerance.of(tolerance)
    options = runner.Options(
        *(host, port, sync_seconds, slow_seconds, latency, fault_percent, changes, webhook, tuple(max_age or ())),
        access_log=verbose,
    )
    runner.run(typer.echo, options, until_eof=until_eof)


@app.command(context_settings={"allow_interspersed_args": False})
def tolerance(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="The command that tests the client.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="MUTATION", help="Only this mutation; may be repeated; unset: all.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Longest run of the command; a longer one has failed.")
    ] = 120.0,
    sync_seconds: SyncSeconds = 1.5,
    slow_seconds: SlowSeconds = 2.0,
    webhook: WebhookUrl = None,
    list_: Annotated[bool, typer.Option("--list", help="List the mutations instead.")] = False,
) -> None:
    """Run a client's tests against each mutation of the sandbox, and report which ones it survives.

    COMMAND gets the sandbox's address and tokens in environment variables. Exit status 1: it is broken by a mutation.
    """
    from product_gateway.sandbox import runner, tolerance_report
    from product_gateway.telemetry import logs

    mutations = tolerance_report.chosen(only or [])
    if list_:
        for each in mutations:
            typer.echo(f"{each.name}: {each.description}")
        return
    if not command:
        raise typer.BadParameter("give the command that tests the client, after --")
    logs.configure("ERROR")
    options = runner.Options(sync_seconds=sync_seconds, slow_seconds=slow_seconds, webhook=webhook)
    attempt = tolerance_report.run_command(command, timeout)
    report = tolerance_report.survey(attempt, mutations, options, functools.partial(typer.echo, err=True))
    typer.echo(report)
    if report.broken:
        raise typer.Exit(1)
