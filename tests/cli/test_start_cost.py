"""later, lean and garbage: a start is spared what nobody needs, and whoever needs it after all has it."""

import subprocess
import sys

NOT_LOADED = """
import sys
from product_gateway import __main__, launch, server

names = ["starlette.templating", "starlette.testclient", "werkzeug", "flask", "uvicorn.main", "click"]
names += ["asyncpg", "alembic", "schemathesis", "rich", "sqlalchemy.dialects.postgresql", "psycopg"]
print(*[each for each in names if each in sys.modules])
lazy = ["httpx", "requests", "jinja2", "cryptography.x509"]
print(*[each for each in lazy if type(sys.modules[each]).__name__ != "_LazyModule"])
"""
USED_AFTER_ALL = """
from product_gateway import __main__, launch, server

import httpx, jwt, requests, starlette.templating, starlette.testclient, uvicorn, werkzeug, werkzeug.test
from connexion.apps.abstract import TestClient
from sqlalchemy.dialects.postgresql import asyncpg

assert isinstance(werkzeug.Client(lambda *_: []), werkzeug.test.Client)
assert isinstance(TestClient(lambda *_: None), starlette.testclient.TestClient)
assert not jwt.algorithms.HMACAlgorithm._is_der_key(b"no certificate")
assert type(jwt.algorithms.x509).__name__ == "module"
assert isinstance(jwt.PyJWKClient("https://issuer.example"), jwt.jwks_client.PyJWKClient)
starlette.templating.Jinja2Templates("docs")
assert uvicorn.Server(uvicorn.Config(None)).started is False
print(httpx.Client, requests.Session, asyncpg.dialect)
"""
GARBAGE = """
import gc
from product_gateway import garbage

print(gc.isenabled())
with garbage.let_lie():
    print(gc.isenabled())
    garbage.keep_what_is_there()
    print(gc.isenabled(), gc.get_freeze_count() > 1000, gc.get_threshold()[0])
print(gc.isenabled())
"""


def said(code: str) -> list[str]:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_server_starts_without_what_it_does_not_use() -> None:
    """Each of these would make every start longer, and every process larger."""
    assert said(NOT_LOADED) == ["", ""]


def test_whoever_uses_it_after_all_has_the_real_one() -> None:
    """In the same process: a test suite or a plugin may."""
    (line,) = said(USED_AFTER_ALL)
    assert "httpx" in line
    assert "PGDialect_asyncpg" in line


def test_a_process_that_goes_on_looks_for_garbage_again() -> None:
    """Not among what it began with; and to import us changes nothing for anybody."""
    assert said(GARBAGE) == ["True", "False", "True True 50000", "True"]
