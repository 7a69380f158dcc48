"""What is seen while a sync is watched: a bar on a terminal, lines elsewhere, JSON lines for programs."""

import json
import time
from collections import deque
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from product_gateway.client import formatting
from product_gateway.client.bodies import OneSync, Sync
from product_gateway.client.gateway import Answer

SECONDS_OF_SPEED = 15.0
SECONDS_BETWEEN_LINES = 10.0
PERCENT_BETWEEN_LINES = 10
SECONDS_BETWEEN_MOVES = 2


class Speed:
    """Records per second over the last looks."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def after(self, sync: Sync) -> float | None:
        """Return the speed with this look; None while nothing can be said."""
        read, now = sync.progress.records_read, time.monotonic()
        if self._looks and read < self._looks[-1][1]:
            self._looks.clear()
        self._looks.append((now, read))
        while len(self._looks) > 2 and now - self._looks[0][0] > SECONDS_OF_SPEED:
            self._looks.popleft()
        first, read_first = self._looks[0]
        return (read - read_first) / (now - first) if now - first >= 0.1 and read > read_first else None


class Display:
    """Where a watched sync is shown: a context manager.

    `pause` are the seconds between two looks, and `wait` those that a gateway may hold the response to one.
    """

    pause: float = 5
    wait = 20

    def __init__(self, console: Console) -> None:
        self._console = console
        self._speed = Speed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Do nothing by default: only a bar must be stopped."""

    def show(self, answer: Answer[OneSync]) -> None:
        """Show the sync after a look at it."""
        raise NotImplementedError

    def notice(self, text: str) -> None:
        """Print a line of plain text on the console; if there is a bar, above it."""
        self._console.print(Text(text))


class Lines(Display):
    """A line when something has changed: for logs, and for terminals that can do no more."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._said: tuple[object, ...] = ()
        self._percent = 0
        self._at = 0.0

    def show(self, answer: Answer[OneSync]) -> None:
        """Print at once if the status or the attempt is another; otherwise each tenth part, or after a while."""
        sync, now = answer.content.data, time.monotonic()
        speed = self._speed.after(sync)
        what = (sync.id, sync.status, sync.attempt)
        percent = sync.progress.percent or 0
        due = percent >= self._percent + PERCENT_BETWEEN_LINES or now >= self._at + SECONDS_BETWEEN_LINES
        if sync.is_active and (what != self._said or due):
            self._said, self._percent, self._at = what, percent, now
            self._console.print(formatting.described(sync, speed))


class Bar(Display):
    """A bar that moves, for each sync that is watched a new one."""

    pause = wait = SECONDS_BETWEEN_MOVES

    def __enter__(self) -> Self:
        self._speed = Speed()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None, figures="")
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def show(self, answer: Answer[OneSync]) -> None:
        sync = answer.content.data
        total, read = sync.progress.records_total, sync.progress.records_read
        figures = formatting.figures(sync, self._speed.after(sync) if sync.is_active else None)
        self._progress.update(
            self._task, description=sync.entity_type, total=total, completed=read, figures=figures, refresh=True
        )


class JsonLines(Display):
    """The gateway's body of each look that is not the one before; notices go to `console`."""

    def __init__(self, console: Console, stream: TextIO) -> None:
        super().__init__(console)
        self._stream = stream
        self._last = ""

    def show(self, answer: Answer[OneSync]) -> None:
        line = json.dumps(answer.body)
        if line != self._last:
            self._last = line
            print(line, file=self._stream, flush=True)


def display(console: Console, stream: TextIO, *, json_lines: bool) -> Display:
    """Return the display that fits `console`, which is standard error, and `json_lines`."""
    if json_lines:
        return JsonLines(console, stream)
    return Bar(console) if console.is_interactive and not console.is_dumb_terminal else Lines(console)
