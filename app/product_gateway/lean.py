"""Imports Connexion and uvicorn without what they bring along for things that the gateway does not do.

To be imported before either. HTTP clients, templates, test clients, Flask's requests and uvicorn's command line would
be two fifths of a second of every start.
"""

from product_gateway import later

with later.leaving(
    "httpx",
    "requests",
    "jinja2",
    parts_of=("uvicorn", "werkzeug", "werkzeug.wsgi", "starlette.templating", "starlette.testclient"),
):
    import connexion
    import uvicorn.lifespan.on
    import uvicorn.loops.uvloop
    import uvicorn.protocols.http.httptools_impl
    import uvicorn.server  # noqa: F401
