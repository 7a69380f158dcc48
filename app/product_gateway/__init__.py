"""The product gateway: copies a merchant's products and collections into one catalog, on request.

Where things are:

    __main__         the command line
    demo             everything at once on one machine: `make run`
    server           the gateway's application; the one table from error to HTTP answer
    sample_service   a product service over a catalog file, for rehearsals
    binding          a spec's operations bound to handlers, through Connexion's pipeline
    handlers         one method per operationId of openapi/product-gateway.yaml
    worker           claims a sync, runs it, records how it ended
    security         bearer token -> who is asking
    db               the only place with SQL: syncs, merchants, catalog, migrations
    product_service  pages of records from a merchant, checked against openapi/product-service.yaml
    outbound         the one HTTP client
    catalog_file     product data from CSV, JSON and JSON Lines files
    keys             what the data directory keeps: signing key, secret key
    model            entity types, syncs, records, the tree of errors
    settings         every setting
    spec             finds and reads the OpenAPI documents
    api_types        the bodies of the API as types, generated from the spec
"""
