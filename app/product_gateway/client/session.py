"""The client commands: request, watch, report, and return an exit status for scripts."""

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from rich.console import Console
from rich.text import Text

from product_gateway import gc_tuning
from product_gateway.client import formatting
from product_gateway.client.bodies import OneSync, Sync
from product_gateway.client.gateway import SHORTEST_PAUSE, Answer, Gateway, to_gateway
from product_gateway.client.progress import Display, as_json, display
from product_gateway.errors import GatewayError, Refused
from product_gateway.model.syncs import EntityType, SyncStatus


class ExitStatus(IntEnum):
    """The exit statuses. 2 is wrong usage, as everywhere."""

    DONE = 0
    REFUSED = 1
    ALREADY_ACTIVE = 3
    FAILED = 4
    CANCELLED = 5
    INTERRUPTED = 130


ENDS = {SyncStatus.FAILED: ExitStatus.FAILED, SyncStatus.CANCELLED: ExitStatus.CANCELLED}


@dataclass(frozen=True, slots=True)
class Target:
    """The gateway and the token. `token_file` is the path as typed; `patience` is in seconds."""

    url: str
    token_file: str
    token: str
    as_json: bool
    patience: float = 60

    def command(self, *arguments: str) -> str:
        """A command line for the same gateway."""
        formatting = ("product-gateway", *arguments, "--url", self.url, "--token-file", self.token_file)
        return shlex.join(formatting)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A requested sync. `key` is its idempotency key."""

    entity_type: EntityType
    key: str
    watch: bool
    wait_for_active: bool


class Session:
    """One command. Results go to standard output, all else to standard error."""

    def __init__(self, access: Target) -> None:
        self.access = access
        self.out: Console = formatting.console(sys.stdout)
        self.err: Console = formatting.console(sys.stderr)
        self.display: Display = display(self.err, sys.stdout, json_lines=access.as_json)
        self.asked = False  # whether a PUT went out
        self.watched: Sync | None = None
        self.ours = False  # whether the watched sync is the one that was asked for

    def run(self, command: Callable[["Session", Gateway], Awaitable[ExitStatus]]) -> ExitStatus:
        """Run a command. Raises KeyboardInterrupt."""
        gc_tuning.freeze_startup_objects()
        try:
            return asyncio.run(self._run(command))
        except Refused as refused:
            if self.access.as_json and refused.body is not None:
                self.print_json(refused.body)
            self.err.print(Text(refused.detail))
        except GatewayError as error:
            self.err.print(Text(error.detail))
        return ExitStatus.REFUSED

    async def _run(self, command: Callable[["Session", Gateway], Awaitable[ExitStatus]]) -> ExitStatus:
        async with to_gateway() as outbound:
            access = self.access
            gateway = Gateway(outbound, access.url, access.token, patience=access.patience, noticed=self._notice)
            return await command(self, gateway)

    def _notice(self, text: str) -> None:
        self.display.notice(text)

    def print_json(self, body: object) -> None:
        """Print one JSON document in one line."""
        self.out.print(Text(as_json(body)))

    def show(self, answer: "Answer[OneSync]", text: Text) -> None:
        """Print the gateway's body, or `text` for people."""
        if self.access.as_json:
            self.display.show(answer)
        else:
            self.out.print(text)


def sync(access: Target, wanted: Wanted) -> ExitStatus:
    """Request a sync, and watch it if wanted."""
    session = Session(access)
    try:
        end = session.run(lambda session, gateway: _sync(session, gateway, wanted))
    except KeyboardInterrupt:
        _how_to_go_on(session, wanted, "Stopped watching")
        return ExitStatus.INTERRUPTED
    if end is ExitStatus.REFUSED and session.watched is not None and session.watched.is_active:
        _how_to_go_on(session, wanted, "Watching ended")
    return end


def _how_to_go_on(session: Session, wanted: Wanted, why: str) -> None:
    access, name = session.access, wanted.entity_type.value
    again = access.command("sync", name, "--watch", "--idempotency-key", wanted.key)
    if session.watched is None:
        lines = [
            f"{why} before the gateway had answered." if session.asked else f"{why} before anything was asked for."
        ]
        if session.asked:
            lines += ["Whether there is a sync now, and how it goes, says:", f"  {again}"]
    else:
        if not session.ours:  # with the key, another sync would be asked for as soon as this one has ended
            again = access.command("sync", name, "--watch")
        lines = [
            f"{why}: sync {session.watched.id} of {name} goes on. To watch it again, and to cancel it:",
            f"  {again}",
            f"  {access.command('cancel', name)}",
        ]
    session.err.print(Text("\n".join(lines)))


async def _sync(session: Session, gateway: Gateway, wanted: Wanted) -> ExitStatus:
    while True:
        session.asked = True
        try:
            answer = await gateway.enqueue(wanted.entity_type, wanted.key)
            session.ours = True
            break
        except Refused as refused:
            if refused.active is None:
                raise
            if not (wanted.watch or wanted.wait_for_active):
                return await _already_active(session, gateway, refused)
            answer = await gateway.sync(refused.active)
            found = answer.content.data
            if not wanted.wait_for_active:
                session.display.notice(f"{_active(found)} No other was asked for; this one is followed.")
                break
            session.display.notice(f"{_active(found)} Another will be asked for when it has ended.")
            await _watched(session, gateway, answer, shown=wanted.watch or not session.access.as_json)
            session.watched = None
            await asyncio.sleep(SHORTEST_PAUSE)
    found = answer.content.data
    if wanted.watch and found.is_active:
        answer = await _watched(session, gateway, answer)
        found = answer.content.data
    session.watched = None
    session.show(answer, formatting.described(found))
    if found.result.rejected and not found.is_active and not session.access.as_json:
        await _show_rejected(session, gateway, found.id)
    return ENDS.get(found.status, ExitStatus.DONE)


async def _watched(
    session: Session, gateway: Gateway, answer: Answer[OneSync], *, shown: bool = True
) -> Answer[OneSync]:
    session.watched = answer.content.data
    with session.display as shows:
        if shown:
            shows.show(answer)
        async for look in gateway.watch(answer.content.data.id, shows.pause, shows.wait):
            answer, session.watched = look, look.content.data
            if shown:
                shows.show(look)
    return answer


async def _already_active(session: Session, gateway: Gateway, refused: Refused) -> ExitStatus:
    if session.access.as_json:
        session.print_json(refused.body)
    session.err.print(Text(refused.detail))
    if refused.active is not None:
        try:
            found = (await gateway.sync(refused.active)).content.data
        except GatewayError:
            found = None  # a token that may ask for syncs need not be one that may look at them
        name = "" if found is None else f"It is {found.status}: {formatting.figures(found)}. "
        session.err.print(Text(f"{name}--watch follows it; --wait-for-active asks for another when it has ended."))
    return ExitStatus.ALREADY_ACTIVE


def _active(found: Sync) -> str:
    return f"Sync {found.id} of {found.entity_type} is {found.status} already: {formatting.figures(found)}."


async def _show_rejected(session: Session, gateway: Gateway, sync_id: UUID) -> None:
    try:
        session.out.print(formatting.rejected((await gateway.problems(sync_id)).content))
    except GatewayError as error:
        session.err.print(Text(f"Which records were rejected could not be read. {error.detail}"))


def cancel(access: Target, entity_type: EntityType) -> ExitStatus:
    """Cancel the active sync."""

    async def command(session: Session, gateway: Gateway) -> ExitStatus:
        answer = await gateway.cancel(entity_type)
        session.show(answer, formatting.described(answer.content.data))
        return ExitStatus.DONE

    return Session(access).run(command)


def status(access: Target, entity_type: EntityType) -> ExitStatus:
    """Show when the records were last updated, and the latest sync."""

    async def command(session: Session, gateway: Gateway) -> ExitStatus:
        try:
            answer = await gateway.status(entity_type)
        except Refused as refused:
            if refused.status != 404 or session.access.as_json:
                raise
            # any server knows 404: only a gateway that can list the syncs has said that there was none
            latest = [page.content.data async for page in gateway.history(entity_type, None, 1)]
            session.out.print(formatting.never_synced(entity_type, latest[0][0] if latest[0] else None))
        else:
            if session.access.as_json:
                session.print_json(answer.body)
            else:
                session.out.print(formatting.status(answer.content))
        return ExitStatus.DONE

    return Session(access).run(command)


def history(access: Target, entity_type: EntityType | None, status: SyncStatus | None, limit: int) -> ExitStatus:
    """List syncs, newest first."""

    async def command(session: Session, gateway: Gateway) -> ExitStatus:
        pages = [page async for page in gateway.history(entity_type, status, limit)]
        if session.access.as_json:
            data = [each for page in pages for each in page.body["data"]][:limit]
            session.print_json({"data": data, "meta": pages[-1].body["meta"]})
        else:
            session.out.print(formatting.history([each for page in pages for each in page.content.data][:limit]))
        return ExitStatus.DONE

    return Session(access).run(command)
