"""The product gateway: copies a merchant's products and collections into one catalog, on request.

Where things are:

    __main__           the command line
    merchant_commands  the commands `merchant …`, and what every command begins with
    pytest_sandbox     a pytest plugin for tests of the gateway's clients
    sandbox            a gateway to rehearse with, scripted by the clients that are tested
    demo               everything at once on one machine: `make run`
    launch             starts and stops the HTTP servers and the worker
    connections        all connections of a server: how many, how long
    server             the gateway's application; the one table from error to HTTP answer
    sample_service     a product service over a catalog file, for rehearsals
    client             talks to a gateway over HTTP: sync, status, cancel, history
    conformance        holds a merchant's product service to its contract: check-service
    operations         the operations port: metrics, health and the monitor, for those who run the gateway
    monitor            what operators see and do: a live page over an API, at /monitor
    handlers           one method per operationId of openapi/product-gateway.yaml
    worker             claims a sync, runs it, records how it ended
    pull               every page of a merchant's list into the catalog, and what the list lacks out of it
    waiting            clients that wait for syncs to end: one look at the database for all
    deliveries         tells merchants' webhooks how syncs ended: signs, sends, tries again
    security           bearer token -> who is asking
    claims             the claims of a token: time, issuer, audience, merchant, scopes
    registry           what the operator does to merchants
    edge               names, stamps, counts and logs every request; turns away what is too much
    http_protocol      HTTP as strangers write it, and an end to all that they can send
    http_turns         answers in the order of their requests, and a clean end
    http_rules         what a request may be, as bytes
    unsent             the memory bound of responses that clients have not taken yet
    response_framing   answers whose status allows no body are sent without one
    public_path        the path prefix under which a proxy publishes the server
    client_address     the address of a client behind trusted proxies
    cors               which origins' pages may read the answers in a browser
    rate_limits        how often a merchant and an address may ask
    answers            what a handler gives back: at once, later, or as a stream
    binding            a spec's operations bound to handlers, as one ASGI application
    json_depth         a limit on how deep JSON nests
    lean               imports Connexion without what none of us uses of it
    later              modules that are imported at their first use
    pipeline           Connexion's routing, security and validation, tuned
    paths              which operations a path has
    parameters         an operation's parameters, compiled once and read at every request
    handler_skeletons  handlers written out from the spec, for operations that have none
    garbage            how often a process looks for garbage
    tracebacks         what an exception keeps in memory
    backoff            how often a request is made, and the waits in between
    db                 the only place with SQL: syncs, merchants, catalog, webhooks, migrations
    product_service    pages of records from a merchant: paging, new attempts, failures
    preferences        what a client would like, if it can be had
    records            a page checked against openapi/product-service.yaml: what fits, what is rejected
    known_fields       the known part of a record, without what cannot be kept
    record_faults      what is wrong with a value in a record, in words
    json_faults        why a body is not JSON, in words
    tolerant_json      a JSON parser for which one unusable value spoils its record alone
    page_types         pages as types: those that fit, read at once
    unread             pages of which only what is new has to be read
    jwks               the keys of a token issuer, from where it publishes them
    outbound           the one HTTP client
    retry_headers      how long a server asks its client to wait
    status_advice      what a status of a product service means, and what its merchant can do
    content_coding     which content coding a body has, and how it is undone
    addresses          which addresses are on the public internet
    name_lookups       looks host names up, in threads of their own
    catalog_file       product data from JSON, JSON Lines and CSV files, or made up
    shopify_csv        products and collections in a Shopify product export
    public_keys        public keys for tokens, from PEM files
    keys               what the data directory keeps: signing key, secret key
    data_directory     makes the data directory for its owner alone, or requires one
    pages              what readers see in a browser: the reference, and the spec to try out
    metrics            what is counted, and what each name means
    supervisor         keeps background loops going after errors, and says which make no progress
    tracing            spans of requests and syncs, where traces are wanted
    otel               OpenTelemetry, which makes the spans and sends them
    logs               what is logged, and what each line is about
    visible_text       invisible characters of strangers made visible, for people to read
    settings           every setting
    spec               finds and reads the OpenAPI documents
    api_types          the bodies of the API as types, generated from the spec
    api_bodies         a sync as a body of the API
    errors             the one tree of errors
    model              entity types, syncs, records
"""
