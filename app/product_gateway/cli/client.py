"""The client commands: sync, status, cancel and history."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from product_gateway.errors import SettingsError
from product_gateway.model.syncs import EntityType, SyncStatus

if TYPE_CHECKING:
    from product_gateway.client.session import Session

app = typer.Typer()

STANDARD_INPUT = Path("-")

ENDS = "Exit status: 0 done, 1 refused or the gateway cannot be reached, 2 wrong usage"


def _address(text: str) -> str:
    from product_gateway.settings import is_http_address

    if not is_http_address(text, " \\?#@"):
        raise typer.BadParameter(
            f"{text[:200]!r} is not the address of a gateway: http:// or https://, a host and perhaps a path, such as "
            "http://127.0.0.1:8080."
        )
    return text


def _key(text: str | None) -> str | None:
    if text is not None and not re.fullmatch("[!-~]{1,255}", text):
        raise typer.BadParameter("a key is 1 to 255 visible ASCII characters, such as a UUID.")
    return text


def _given(path: Path | None) -> Path:
    if path is None:
        raise typer.BadParameter(
            "name the file that holds your bearer token, or - for standard input. `make run` writes one to "
            "var/demo.token, and `product-gateway token MERCHANT` prints one."
        )
    if path != STANDARD_INPUT and (path.is_dir() or not path.exists()):
        raise typer.BadParameter(f"there is no file {str(path)!r}.")
    return path


Type = Annotated[EntityType, typer.Argument(help="PRODUCT or COLLECTION.")]
Url = Annotated[str, typer.Option(help="Where the gateway is.", callback=_address)]
TokenFile = Annotated[
    Path | None,
    typer.Option(callback=_given, help="File with the bearer token, which must be given; - is standard input."),
]
Json = Annotated[bool, typer.Option("--json", help="Print what the gateway answers, as JSON.")]
HERE = "http://127.0.0.1:8080"


@app.command(
    epilog=f"{ENDS}, 3 a sync is active already, 4 the sync FAILED, 5 it was CANCELLED, 130 stopped with Ctrl-C (the "
    "sync goes on)."
)
def sync(
    entity_type: Type,
    url: Url = HERE,
    token_file: TokenFile = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it to its end; where one is active already, that one.")
    ] = False,
    wait_for_active: Annotated[
        bool,
        typer.Option("--wait-for-active", help="Where one is active already, wait for its end, and ask for another."),
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key brings the same sync; unset: a new one.", callback=_key)
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds without a gateway that watching goes on for.")
    ] = 60,
    json: Json = False,
) -> None:
    """Ask a gateway for a sync."""
    from uuid import uuid4

    from product_gateway.client.session import Wanted

    session = _session(url, token_file, json, patience)
    wanted = Wanted(entity_type, idempotency_key or str(uuid4()), watch, wait_for_active)
    raise typer.Exit(session.run(session.sync(wanted)))


@app.command(epilog=f"{ENDS}.")
def status(entity_type: Type, url: Url = HERE, token_file: TokenFile = None, json: Json = False) -> None:
    """Ask a gateway when its records were last updated, and how the latest sync went."""
    session = _session(url, token_file, json)
    raise typer.Exit(session.run(session.status(entity_type)))


@app.command(epilog=f"{ENDS}.")
def cancel(entity_type: Type, url: Url = HERE, token_file: TokenFile = None, json: Json = False) -> None:
    """Cancel the sync that is queued or in progress."""
    session = _session(url, token_file, json)
    raise typer.Exit(session.run(session.cancel(entity_type)))


@app.command(epilog=f"{ENDS}.")
def history(
    url: Url = HERE,
    token_file: TokenFile = None,
    entity_type: Annotated[EntityType | None, typer.Option(help="Only syncs of these records.")] = None,
    status: Annotated[SyncStatus | None, typer.Option(help="Only syncs with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, at most.")] = 20,
    json: Json = False,
) -> None:
    """List a gateway's syncs, newest first."""
    session = _session(url, token_file, json)
    raise typer.Exit(session.run(session.history(entity_type, status, limit)))


def _session(url: str, token_file: Path | None, as_json: bool, patience: float = 60) -> "Session":
    from product_gateway.client.session import Session

    token_file = _given(token_file)
    return Session(url, str(token_file), _token(token_file), as_json, patience)


def _token(path: Path) -> str:
    try:
        token = sys.stdin.readline().strip() if path == STANDARD_INPUT else path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not re.fullmatch("[!-~]+", token):
        where = "Standard input" if path == STANDARD_INPUT else str(path)
        raise SettingsError(f"{where} does not hold a bearer token: one line of ASCII without spaces.")
    return token
