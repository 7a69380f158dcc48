"""The client commands: request, watch, report, and return an exit status for scripts."""

import asyncio
import json
import math
import shlex
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import RenderableType
from rich.text import Text

from product_gateway import gc_tuning
from product_gateway.client import context, formatting
from product_gateway.client.bodies import OneSync, Sync
from product_gateway.client.context import Context
from product_gateway.client.cursor_file import CursorFile
from product_gateway.client.gateway import SHORTEST_PAUSE, Answer, Gateway, entries_of, plain
from product_gateway.client.progress import Display, display
from product_gateway.errors import GatewayError, Refused
from product_gateway.http_client.client import MEBIBYTE, HttpClient
from product_gateway.model.syncs import EntityType, SyncStatus


class ExitStatus(IntEnum):
    """The exit statuses. 2 is wrong usage, as everywhere."""

    DONE = 0
    REFUSED = 1
    ALREADY_ACTIVE = 3
    FAILED = 4
    CANCELLED = 5
    HISTORY_GONE = 6
    INTERRUPTED = 130


ENDS = {SyncStatus.FAILED: ExitStatus.FAILED, SyncStatus.CANCELLED: ExitStatus.CANCELLED}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A requested sync. `key` is its idempotency key."""

    entity_type: EntityType
    key: str
    watch: bool
    wait_for_active: bool
    publish: str | None = None


class Session:
    """One command. Results go to standard output, all else to standard error. `patience` is in seconds."""

    def __init__(self, where: Context, as_json: bool, patience: float) -> None:
        self._context = where
        self._as_json = as_json
        self._out, self._err = formatting.console(sys.stdout), formatting.console(sys.stderr)
        self._display = display(self._err, sys.stdout, json_lines=as_json)
        # Private addresses and http are allowed: the user typed the address.
        self._client = HttpClient(allow_private_addresses=True, total_timeout=60, max_bytes=32 * MEBIBYTE)
        self._gateway = Gateway(self._client, where.url, where.token, patience, self._display.notice)
        self._wanted: Wanted | None = None
        self._watched: Sync | None = None
        self._is_ours = False  # whether the watched sync is the one that was asked for

    def run(self, command: Coroutine[Any, Any, ExitStatus]) -> ExitStatus:
        """Run a command of this session. Raises KeyboardInterrupt if no sync was requested or watched."""
        gc_tuning.freeze_startup_objects()
        try:
            return asyncio.run(self._run(command))
        except KeyboardInterrupt:
            if self._wanted is None and self._watched is None:
                raise
            self._how_to_go_on("Stopped watching")
            return ExitStatus.INTERRUPTED
        except GatewayError as error:
            self._print_error(error)
            if self._watched is not None and self._watched.is_active:
                self._how_to_go_on("Watching ended")
            return ExitStatus.REFUSED

    async def _run(self, command: Coroutine[Any, Any, ExitStatus]) -> ExitStatus:
        async with self._client:
            return await command

    def _print(self, body: object, text: RenderableType) -> None:
        """Print the gateway's body in a line of ASCII, so that nothing in it commands a terminal, or else `text`."""
        self._out.print(Text(json.dumps(body)) if self._as_json else text)

    def _print_error(self, error: GatewayError) -> None:
        if self._as_json and isinstance(error, Refused) and error.body is not None:
            self._print(error.body, "")
        invalid = isinstance(error, Refused) and error.status == 401
        source = f" The token comes from {plain(self._context.token_source)}." if invalid else ""
        self._err.print(Text(f"{error.detail}{source}"))

    async def sync(self, wanted: Wanted) -> ExitStatus:
        """Request a sync, and watch it if wanted."""
        self._wanted = wanted
        answer: Answer[OneSync] | None = None
        while answer is None:
            try:
                answer = await self._gateway.enqueue(wanted.entity_type, wanted.key, wanted.publish)
                self._is_ours = True
            except Refused as refused:
                if refused.active is None:
                    raise
                if not (wanted.watch or wanted.wait_for_active):
                    advice = "--watch follows it; --wait-for-active asks for another when it has ended."
                    return await self._report_active(refused, refused.active, advice)
                answer = await self._follow_or_outlast(wanted, refused.active)
        return await self._to_its_end(answer, watch=wanted.watch)

    async def revert(self, sync_id: UUID, *, watch: bool) -> ExitStatus:
        """Request the revert of a sync, and watch it if wanted."""
        try:
            answer = await self._gateway.act_on(sync_id, "revert")
        except Refused as refused:
            if refused.active is None:
                raise
            return await self._report_active(refused, refused.active, "Revert again when it has ended.")
        return await self._to_its_end(answer, watch=watch)

    async def _to_its_end(self, answer: Answer[OneSync], *, watch: bool) -> ExitStatus:
        if watch and answer.content.data.is_active:
            answer = await self._watch(answer)
        sync = answer.content.data
        if self._as_json:
            self._display.show(answer)
        else:
            self._out.print(formatting.described(sync))
            if sync.result.rejected and not sync.is_active:
                await self._show_rejected(sync.id)
        return ENDS.get(sync.status, ExitStatus.DONE)

    async def _follow_or_outlast(self, wanted: Wanted, active: UUID) -> Answer[OneSync] | None:
        """Return the active sync to follow, or wait for its end and return None if another one is wanted."""
        answer = await self._gateway.sync(active)
        sync = answer.content.data
        seen = f"Sync {sync.id} of {sync.entity_type} is {sync.status} already: {formatting.figures(sync)}."
        if not wanted.wait_for_active:
            self._display.notice(f"{seen} No other was asked for; this one is followed.")
            return answer
        self._display.notice(f"{seen} Another will be asked for when it has ended.")
        await self._watch(answer, shown=wanted.watch or not self._as_json)
        await asyncio.sleep(SHORTEST_PAUSE)
        return None

    async def _watch(self, answer: Answer[OneSync], *, shown: bool = True) -> Answer[OneSync]:
        self._watched = answer.content.data
        with self._display as shows:
            if shown:
                shows.show(answer)
            async for look in self._gateway.watch(answer.content.data.id, shows.pause, shows.wait):
                answer, self._watched = look, look.content.data
                if shown:
                    shows.show(look)
        self._watched = None
        return answer

    async def _report_active(self, refused: Refused, active: UUID, advice: str) -> ExitStatus:
        self._print_error(refused)
        try:
            sync = (await self._gateway.sync(active)).content.data
            seen = f"It is {sync.status}: {formatting.figures(sync)}. "
        except GatewayError:  # a token that may ask for syncs need not be one that may look at them
            seen = ""
        self._err.print(Text(f"{seen}{advice}"))
        return ExitStatus.ALREADY_ACTIVE

    async def _show_rejected(self, sync_id: UUID) -> None:
        try:
            self._out.print(formatting.rejected((await self._gateway.problems(sync_id)).content))
        except GatewayError as error:
            self._err.print(Text(f"Which records were rejected could not be read. {error.detail}"))

    def _how_to_go_on(self, why: str) -> None:
        wanted, watched = self._wanted, self._watched
        with_key = () if wanted is None else ("--idempotency-key", wanted.key)
        if watched is not None:
            name = watched.entity_type.value
            # With the key of a sync that is not ours, another would be asked for as soon as this one has ended.
            again = ("sync", name, "--watch", *(with_key if self._is_ours else ()))
            lines = [
                f"{why}: sync {watched.id} of {name} goes on. To watch it again, and to cancel it:",
                self._command(*(again if wanted is not None else ("show", str(watched.id)))),
                self._command("cancel", name),
            ]
        elif wanted is not None:
            lines = [
                f"{why} before the gateway had answered.",
                "Whether there is a sync now, and how it goes, says:",
                self._command("sync", wanted.entity_type.value, "--watch", *with_key),
            ]
        self._err.print(Text("\n".join(lines)))

    def _command(self, *arguments: str) -> str:
        return "  " + shlex.join(("product-gateway", *arguments, *self._context.options))

    async def cancel(self, entity_type: EntityType) -> ExitStatus:
        """Cancel the active sync."""
        return self._print_sync(await self._gateway.cancel(entity_type))

    async def show(self, sync_id: UUID) -> ExitStatus:
        """Show one sync."""
        return self._print_sync(await self._gateway.sync(sync_id))

    def _print_sync(self, answer: Answer[OneSync]) -> ExitStatus:
        self._print(answer.body, formatting.described(answer.content.data))
        return ExitStatus.DONE

    async def status(self, entity_type: EntityType) -> ExitStatus:
        """Show when the records were last updated, and the latest sync."""
        try:
            answer = await self._gateway.status(entity_type)
        except Refused as refused:
            if refused.status != 404 or self._as_json:
                raise
            # any server knows 404: only a gateway that can list the syncs has said that there was none
            latest = [page.content.data async for page in self._gateway.history(entity_type, None, 1)]
            self._out.print(formatting.never_synced(entity_type, latest[0][0] if latest[0] else None))
        else:
            self._print(answer.body, formatting.status(answer.content))
        return ExitStatus.DONE

    async def history(self, entity_type: EntityType | None, status: SyncStatus | None, limit: int) -> ExitStatus:
        """List syncs, newest first."""
        pages = [page async for page in self._gateway.history(entity_type, status, limit)]
        data = [each for page in pages for each in page.body["data"]][:limit]
        syncs = [each for page in pages for each in page.content.data][:limit]
        text = formatting.history(syncs, is_filtered=bool(entity_type or status))
        self._print({"data": data, "meta": pages[-1].body["meta"]}, text)
        return self._note_more(pages[-1].body)

    async def login(self) -> ExitStatus:
        """Save the context if the gateway accepts its token; a token without the right to list syncs will do."""
        try:
            _ = [page async for page in self._gateway.history(None, None, 1)]
        except Refused as refused:
            if refused.status != 403:
                raise
        path = context.save(self._context)
        self._out.print(Text(f"Saved {self._context.url} and the token in {path}."))
        return ExitStatus.DONE

    async def act_on(self, sync_id: UUID, action: str) -> ExitStatus:
        """Publish or discard the staged result of a sync."""
        return self._print_sync(await self._gateway.act_on(sync_id, action))

    async def sync_changes(self, sync_id: UUID, limit: int | None) -> ExitStatus:
        """List up to `limit` of the changes of one sync."""
        most = math.inf if limit is None else limit
        bodies = [page.body async for page in self._gateway.sync_changes(sync_id, most)]
        entries = [each for body in bodies for each in entries_of(body)][:limit]
        whole = {**bodies[-1], "data": entries}
        self._print(whole, formatting.changes(entries))
        return self._note_more(whole)

    async def changes(self, entity_type: EntityType, file: Path | None, *, follow: bool) -> ExitStatus:
        """Print the feed of changes: a change a line, or with JSON the gateway's pages. Store the cursor in the file.

        The cursor is stored after the lines of its page are written, so that no change is lost.
        """
        stored = file and CursorFile(file, self._context, entity_type)
        cursor = stored.read() if stored else None
        pages = self._gateway.changes(entity_type, cursor, follow=follow, pause=Display.pause, wait=Display.wait)
        try:
            async for page in pages:
                lines = [page.body] if self._as_json else page.body["data"]
                sys.stdout.writelines(f"{json.dumps(each)}\n" for each in lines)
                sys.stdout.flush()
                if stored:
                    stored.write(page.content.meta.next_cursor)
        except Refused as refused:
            if refused.status != 410:
                raise
            self._print_error(refused)
            delete = f", delete {plain(str(file))}" if file else ""
            self._err.print(Text(f"To start again: empty your copy{delete}, and run the command again."))
            return ExitStatus.HISTORY_GONE
        return ExitStatus.DONE

    async def problems(self, sync_id: UUID) -> ExitStatus:
        """List the records that a sync rejected."""
        answer = await self._gateway.problems(sync_id)
        found = answer.content
        self._print(answer.body, formatting.rejected(found) if found.data else Text("The sync rejected no record."))
        return ExitStatus.DONE

    async def records(self, name: str, record_id: str | None, limit: int | None) -> ExitStatus:
        """List up to `limit` of the `products` or `collections`, or show one."""
        most = math.inf if limit is None else limit
        if record_id is None:
            bodies = [page.body async for page in self._gateway.records(name, most)]
        else:
            bodies = [page.body async for page in self._gateway.record(name, record_id, most)]
        entries = [each for body in bodies for each in entries_of(body)][:limit]
        whole = {**bodies[-1], "data": entries}
        if record_id is not None:
            data = bodies[0]["data"]
            whole["data"] = {**data, "products": entries} if "products" in data else data
        self._print(whole, formatting.records(name, entries) if record_id is None else formatting.record(whole["data"]))
        return self._note_more(whole)

    def _note_more(self, body: Any) -> ExitStatus:
        if "nextCursor" in body["meta"] and not self._as_json:
            self._err.print(Text("There are more. A larger --limit lists them."))
        return ExitStatus.DONE
