"""Holds a merchant's product service to openapi/product-service.yaml, and to what no schema can say.

Where things are:

    commands   the command check-service, and its options
    checkup    what it does with what it was given
    run        a whole run: which checks, in which order
    rules      what must hold, by code
    sheet      what came out of each check
    client     requests, each kept so that it can be shown
    reading    one reading of a list, page by page
    lists      pages, cursors, page sizes, order
    by_id      records by id
    access     who may read
    problems   error bodies: the contract's, and those of Bento's public page
    contents   the records themselves
    fuzzing    made-up requests (Schemathesis)
    rehearsal  a sync that writes nothing
    report     the report for people
    files      JUnit XML and JSON
"""
