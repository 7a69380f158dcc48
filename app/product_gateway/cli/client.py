"""The client commands: they talk to a gateway over HTTP."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer

from product_gateway.cli.shared import App, Json, Type, one_of
from product_gateway.model.syncs import EntityType, SyncStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from product_gateway.client.session import ExitStatus, Session

app = App()


class Publish(StrEnum):
    """When the result of a sync is published."""

    AUTOMATIC = "AUTOMATIC"
    MANUAL = "MANUAL"


ENDS = "Exit status: 0 done, 1 refused or the gateway cannot be reached, 2 wrong usage"


def _key(text: str | None) -> str | None:
    if text is not None and not re.fullmatch("[!-~]{1,255}", text):
        raise typer.BadParameter("a key is 1 to 255 visible ASCII characters, such as a UUID.")
    return text


def _address(text: str | None) -> str | None:
    from product_gateway.client.context import checked_url
    from product_gateway.errors import SettingsError

    try:
        return text and checked_url(text)
    except SettingsError as error:
        raise typer.BadParameter(error.detail) from None


def _file(text: str | None) -> str | None:
    if text is not None and text != "-":
        from product_gateway.settings import file_fault
        from product_gateway.telemetry.logs import redact

        if reason := file_fault(Path(text)):
            raise typer.BadParameter(f"{redact(reason)}. Name a file that holds the token.")
    return text


def _sync_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not the id of a sync. `product-gateway history` lists them.") from None


Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The gateway; unset: PRODUCT_GATEWAY_URL, the saved context, or http://127.0.0.1:8080.",
        callback=_address,
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File with the bearer token, - for standard input; unset: PRODUCT_GATEWAY_TOKEN or the saved context.",
        callback=_file,
    ),
]
Patience = Annotated[
    float,
    typer.Option(min=0.1, max=86400, metavar="SECONDS", help="Longest outage of the gateway while watching."),
]
SyncId = Annotated[UUID, typer.Argument(metavar="SYNC", parser=_sync_id, help="The id of the sync.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Most entries to list.")]
All = Annotated[bool, typer.Option("--all", help="List all entries.")]
RecordId = Annotated[str | None, typer.Argument(metavar="ID", help="Show only the record with this id.")]


@app.command(epilog=f"{ENDS}.")
def login(url: Url = None, token_file: TokenFile = None) -> None:
    """Save a gateway URL and a token for later commands.

    The gateway must accept the token. The file is readable by this user only.
    """
    _run(url, token_file, False, lambda session: session.login())


@app.command()
def logout() -> None:
    """Delete the saved URL and token."""
    from product_gateway.client import context

    typer.echo("Logged out." if context.forget() else "There is no saved context.")


@app.command(
    epilog=f"{ENDS}, 3 a sync is active already, 4 the sync FAILED, 5 it was CANCELLED, 130 stopped with Ctrl-C (the "
    "sync goes on)."
)
def sync(
    entity_type: Type,
    url: Url = None,
    token_file: TokenFile = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the sync to its end, also one that is active.")
    ] = False,
    wait_for_active: Annotated[
        bool, typer.Option("--wait-for-active", help="If a sync is active, wait for its end and request another.")
    ] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key returns the same sync; unset: a new key.", callback=_key),
    ] = None,
    publish: Annotated[
        Publish | None,
        typer.Option(**one_of(Publish), help="MANUAL stages the result, for review, instead of publishing it."),
    ] = None,
    patience: Patience = 60,
    json: Json = False,
) -> None:
    """Request a sync."""
    from uuid import uuid4

    from product_gateway.client.session import Wanted

    wanted = Wanted(entity_type, idempotency_key or str(uuid4()), watch, wait_for_active, publish and publish.lower())
    _run(url, token_file, json, lambda session: session.sync(wanted), patience)


@app.command(epilog=f"{ENDS}.")
def status(entity_type: Type, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Show the age of the catalog and the latest sync."""
    _run(url, token_file, json, lambda session: session.status(entity_type))


@app.command(epilog=f"{ENDS}.")
def cancel(entity_type: Type, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Cancel the active sync."""
    _run(url, token_file, json, lambda session: session.cancel(entity_type))


@app.command(epilog=f"{ENDS}.")
def history(
    url: Url = None,
    token_file: TokenFile = None,
    entity_type: Annotated[
        EntityType | None, typer.Option(**one_of(EntityType), help="Only syncs of this entity type.")
    ] = None,
    status: Annotated[
        SyncStatus | None,
        typer.Option(**one_of(SyncStatus), help="Only syncs with this status."),
    ] = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """List syncs, newest first."""
    _run(url, token_file, json, lambda session: session.history(entity_type, status, limit))


@app.command(epilog=f"{ENDS}.")
def show(
    sync_id: SyncId,
    url: Url = None,
    token_file: TokenFile = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="List what it changed, or would change when it is published.")
    ] = False,
    limit: Limit = 20,
    everything: All = False,
    json: Json = False,
) -> None:
    """Show one sync, or the records that it changed."""
    most = None if everything else limit
    _run(
        url, token_file, json, lambda session: session.sync_changes(sync_id, most) if changes else session.show(sync_id)
    )


@app.command(epilog=f"{ENDS}, 3 a sync is active, 4 the revert FAILED, 5 it was CANCELLED, 130 stopped with Ctrl-C.")
def revert(
    sync_id: SyncId,
    url: Url = None,
    token_file: TokenFile = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the revert to its end.")] = False,
    patience: Patience = 60,
    json: Json = False,
) -> None:
    """Publish the catalog as it was before a sync."""
    _run(url, token_file, json, lambda session: session.revert(sync_id, watch=watch), patience)


@app.command(epilog=f"{ENDS}.")
def publish(sync_id: SyncId, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Publish the staged result of a sync."""
    _run(url, token_file, json, lambda session: session.act_on(sync_id, "publish"))


@app.command(epilog=f"{ENDS}.")
def discard(sync_id: SyncId, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Drop the staged result of a sync."""
    _run(url, token_file, json, lambda session: session.act_on(sync_id, "discard"))


@app.command(
    epilog=f"{ENDS}, 6 the history no longer reaches back to the cursor: start again, 130 stopped with Ctrl-C."
)
def changes(
    entity_type: Type,
    url: Url = None,
    token_file: TokenFile = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for later changes, until Ctrl-C.")] = False,
    cursor_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, metavar="FILE", help="Go on after the cursor in this file, and store the new one."
        ),
    ] = None,
    patience: Patience = 60,
    json: Annotated[bool, typer.Option("--json", help="Print the gateway's pages, with their cursors.")] = False,
) -> None:
    """Print the changes of the catalog, as JSON Lines.

    Without a cursor, every record is CREATED. A change may come twice if the command is interrupted.
    """
    _run(url, token_file, json, lambda session: session.changes(entity_type, cursor_file, follow=follow), patience)


@app.command(epilog=f"{ENDS}.")
def problems(sync_id: SyncId, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """List the records that a sync rejected."""
    _run(url, token_file, json, lambda session: session.problems(sync_id))


def _add_list(name: str, meaning: str) -> None:
    @app.command(name, help=meaning, epilog=f"{ENDS}.")
    def records(
        record_id: RecordId = None,
        url: Url = None,
        token_file: TokenFile = None,
        limit: Limit = 20,
        everything: All = False,
        json: Json = False,
    ) -> None:
        most = None if everything else limit
        _run(url, token_file, json, lambda session: session.records(name, record_id, most))


_add_list("products", "List the catalog's products, or show one.")
_add_list("collections", "List the catalog's collections, or show one with its products.")


def _run(
    url: str | None,
    token_file: str | None,
    as_json: bool,
    command: "Callable[[Session], Coroutine[Any, Any, ExitStatus]]",
    patience: float = 60,
) -> NoReturn:
    """Run a command of a session, and end with its exit status."""
    from product_gateway.cli.shared import warn_of_unknown_settings
    from product_gateway.client import context
    from product_gateway.client.session import Session
    from product_gateway.errors import NoToken

    warn_of_unknown_settings()
    try:
        session = Session(context.resolve(url, token_file), as_json, patience)
    except NoToken as error:
        raise typer.BadParameter(error.detail) from None
    raise typer.Exit(session.run(command(session)))
