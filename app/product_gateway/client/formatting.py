"""Syncs, histories and problems as people read them. Nothing that a gateway sends reaches a terminal as it came."""

import json
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from product_gateway.client.bodies import OneStatus, Problems, Result, Sync
from product_gateway.client.gateway import plain
from product_gateway.model.syncs import EntityType, Publication, SyncStatus

COLOURS = {SyncStatus.SUCCEEDED: "green", SyncStatus.FAILED: "bold red", SyncStatus.CANCELLED: "yellow"}
SAMPLES = 3
WIDTH = 80  # columns of the history
PLAIN_WIDTH = 200  # where no terminal says how wide it is


def console(stream: TextIO, *, plain_width: int = PLAIN_WIDTH, soft_wrap: bool = True) -> Console:
    """Writes to `stream`; in colour on a terminal alone, and there not where NO_COLOR is set (no-color.org)."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # a detail may have what the terminal's encoding lacks
    make = partial(Console, file=stream, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)
    made = make()
    if stream.isatty() and made.is_terminal:
        return made
    return make(force_terminal=False, color_system=None, width=plain_width)


def figures(sync: Sync, speed: float | None = None) -> str:
    """How far it is: `15 of 24 records, 62 %`; `speed` is in records per second."""
    if sync.is_active and not sync.progress.records_read:
        return "no record read yet"
    read, total, percent = sync.progress.records_read, sync.progress.records_total, sync.progress.percent
    parts = [f"{read:,} records" if total is None else f"{read:,} of {total:,} records"]
    if percent is not None:
        parts.append(f"{percent} %")
    if speed is not None:
        parts.append(f"{speed:,.0f} records/s")
    if sync.attempt > 1:
        parts.append(f"attempt {sync.attempt}")
    return ", ".join(parts)


def described(sync: Sync, speed: float | None = None) -> Text:
    """What became of it, or how far it is; its counts and the reason of a failure on lines of their own."""
    text = Text.assemble(f"Sync {sync.id} of {sync.entity_type} ", "is " if sync.is_active else "", _status(sync))
    if sync.is_active:
        return text.append(f": {figures(sync, speed)}.")
    counts = ", ".join(f"{name} {getattr(sync.result, name):,}" for name in Result.model_fields)
    text.append(f" after {sync.seconds:.1f} s: {figures(sync)}.\n  {counts}")
    if sync.failure is not None:
        text.append("\n  ").append(plain(sync.failure.code), "bold red").append(f": {plain(sync.failure.detail)}")
    for each in sync.warnings:
        text.append("\n  ").append(plain(each.code), "yellow").append(f": {plain(each.detail)}")
    if published := _publication(sync):
        text.append(f"\n  {published[0].upper()}{published[1:]}.")
    if sync.publication == Publication.STAGED:
        text.append(f" To review it: product-gateway show {sync.id} --changes")
        text.append(f"\n  Then: product-gateway publish {sync.id}, or discard")
    return text


def rejected(problems: Problems) -> Text:
    """The records that were left out, by what is wrong with them; the first ones by name."""
    text = Text("  Rejected, by what is wrong:")
    for group in problems.data:
        text.append(f"\n    {plain(group.code)}: {group.count:,}")
        shown = group.samples[:SAMPLES]
        for sample in shown:
            name = "a record without an id" if sample.record_id is None else repr(sample.record_id)
            text.append(f"\n      {plain(name)} at {plain(sample.pointer) or '/'}: {plain(sample.message)}")
        if group.count > len(shown):
            text.append(f"\n      and {group.count - len(shown):,} more")
    return text


def status(found: OneStatus) -> Text:
    data = found.data
    text = Text(f"{data.entity_type}: {data.num_records:,.0f} records, last updated {_in_utc(data.updated_at)} UTC.")
    if found.meta.stale_after is not None:
        said = "Fresh until" if found.meta.fresh else "Stale since"
        text.append(f"\n{said} {_in_utc(found.meta.stale_after)} UTC.", style="" if found.meta.fresh else "yellow")
    return text if found.meta.sync is None else text.append("\n").append_text(_latest(found.meta.sync))


def never_synced(entity_type: EntityType, latest: Sync | None) -> Text:
    text = Text(f"{entity_type}: no sync has succeeded yet.\n")
    if latest is None:
        return text.append(f"None was requested. Request one: product-gateway sync {entity_type}")
    return text.append_text(_latest(latest))


def history(syncs: Sequence[Sync], *, is_filtered: bool) -> Text:
    """Two lines for each sync, at most WIDTH columns: when, what, how it ended and its id; then its counts."""
    if not syncs:
        hint = "There are no syncs yet. Request one: product-gateway sync PRODUCT"
        return Text("There are no such syncs." if is_filtered else hint)
    text = Text(f"{'requested (UTC)':20}{'type':11}{'status':12}sync")
    for sync in syncs:
        text.append(f"\n{_in_utc(sync.queued_at)} {sync.entity_type:10} ").append_text(_status(sync))
        text.append(f"{'':{12 - len(sync.status)}}{sync.id}")
        counts = [f"{getattr(sync.result, name):,} {name}" for name in Result.model_fields]
        ended = "" if sync.is_active else f"{sync.seconds:.1f} s, "
        nonzero = ", ".join([f"{sync.progress.records_read:,} read", *(each for each in counts if each[:2] != "0 ")])
        published = f"; {_publication(sync)}" if _publication(sync) else ""
        text.append("\n" + _indented(f"{ended}{nonzero}{published}"))
        if sync.failure is not None:
            text.append("\n" + _indented(f"{plain(sync.failure.code)}: {plain(sync.failure.detail)}"), "red")
    return text


def records(name: str, entries: Sequence[dict[str, Any]]) -> Text:
    """One line for each record: id and title."""
    if not entries:
        return Text(f"The catalog has no {name}. Request a sync: product-gateway sync {name[:-1].upper()}")
    width = min(40, max(len(plain(str(each.get("id")))) for each in entries))
    return Text(
        "\n".join(f"{plain(str(each.get('id'))):{width}}  {plain(str(each.get('title', '')))}" for each in entries)
    )


def changes(entries: Sequence[dict[str, Any]]) -> Text:
    """One line for each change: what happened, the record's id, and its title unless it was deleted."""
    if not entries:
        return Text("The sync changed no record.")
    width = min(40, max(len(plain(str(each.get("id")))) for each in entries))
    lines = []
    for each in entries:
        title = plain(str((each.get("product") or each.get("collection") or {}).get("title", "")))
        lines.append(f"{plain(str(each.get('change'))):8} {plain(str(each.get('id'))):{width}}  {title}".rstrip())
    return Text("\n".join(lines))


def record(entry: dict[str, Any]) -> Text:
    """One line for each field; lists and objects as JSON."""
    values = {name: each if isinstance(each, str) else json.dumps(each) for name, each in entry.items()}
    return Text("\n".join(f"{plain(name)}: {plain(each)}" for name, each in values.items()))


def _indented(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _latest(sync: Sync) -> Text:
    return Text(f"The latest was requested {_in_utc(sync.queued_at)} UTC: ").append_text(described(sync))


def _publication(sync: Sync) -> str:
    """Return what became of the result, and what the sync reverts; "" if there is nothing to say."""
    generation = f"generation {sync.generation:,}" if sync.generation is not None else ""
    parts = [f"{plain(sync.publication.lower())} {generation}".rstrip()] if sync.publication else []
    return ", ".join([*parts, *([f"reverts sync {sync.reverts}"] if sync.reverts else [])])


def _status(sync: Sync) -> Text:
    return Text(sync.status, COLOURS.get(sync.status, ""))


def _in_utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
