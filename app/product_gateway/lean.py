"""Imports Connexion and uvicorn without what they bring along for things that the gateway does not do.

To be imported before them. HTTP clients, templates, test clients, Flask's side of things and a command line would be
a third of a second of every start.
"""

from product_gateway import later

with later.leaving(
    "httpx",
    "requests",
    "jinja2",
    parts_of=(
        *("starlette.templating", "starlette.testclient"),
        # Flask's side of it, and the request as a global, which is Werkzeug's
        *("connexion.apps.flask", "connexion.frameworks.flask", "connexion.context", "werkzeug"),
        "uvicorn.main",
    ),
):
    import connexion  # noqa: F401
    import uvicorn  # noqa: F401
