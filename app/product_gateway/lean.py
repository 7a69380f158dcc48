"""Imports Connexion without what it brings along for things that the gateway does not do.

To be imported before Connexion itself. HTTP clients, templates and test clients would be a third of a second of every
start.
"""

from product_gateway import later

with later.leaving(
    "httpx",
    "requests",
    "jinja2",
    parts_of=("werkzeug.serving", "werkzeug.test", "starlette.templating", "starlette.testclient"),
):
    import connexion  # noqa: F401
