"""The product gateway: one up-to-date copy of many merchants' catalogs.

Packages and modules:

    __main__        Runs the command line: `python -m product_gateway`.
    api             Implements openapi/product-gateway.yaml: handlers, error responses, long poll, cursors.
    auth            Bearer tokens, the keys that verify them, and the keys of the data directory.
    check_service   The conformance kit for product services: `product-gateway check-service`.
    cli             The command line, one module for each group of commands.
    client          The client commands: a gateway over HTTP, for people and shell scripts.
    data_directory  The private directory for keys and the embedded database.
    db              All SQL: the sync table, the catalog, merchants, webhooks and migrations.
    demo            Everything at once on one machine: `make run`.
    docs_pages      The reference and try-it-out pages.
    errors          The exception hierarchy.
    gc_tuning       How often a long-running process collects garbage.
    http            The HTTP server: protocol, limits, connections, responses.
    http_client     The HTTP client for product services, webhooks and token issuers.
    json_tools      JSON from outside: limits on nesting, tolerant parsing, and errors in words.
    merchants       Administration of merchants.
    model           Frozen values: syncs, catalog, merchants, webhooks. No I/O.
    openapi         Binds an OpenAPI document to handlers, through Connexion.
    operations      The operations port: health, metrics and the monitor.
    sample          A sample product service over a catalog file.
    sandbox         A gateway for tests of its clients, in one process.
    services        Starts and stops the long-running services of a process.
    settings        Every setting: the only place that reads the environment.
    supervisor      Keeps background loops running after unexpected errors.
    sync            The worker: claims syncs and pulls product services into the catalog.
    telemetry       Logs, metrics and traces.
    webhooks        Delivers signed messages to merchants' webhooks.
"""
