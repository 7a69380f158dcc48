"""Run the commands of a Markdown page as a reader does: in order, as written, and compare what they print.

Rules for a page:
- A ```console block holds commands, which start with `$ `, and what they print. A backslash continues a command.
- Printed lines must be equal to the shown ones. `…` stands for any text within a line, and a line of `…` for any lines.
  Ids, times, durations, and the values of Retry-After and Content-Length may differ.
- If the page shows nothing, a command may print anything. It must exit with 0, or as its comment `# exit code N` says.
- A command that runs until Ctrl-C (SERVERS) keeps running. The next command is typed in another terminal: a new shell
  in the same folder, without the variables of the first.
- A code block after a line that ends with "as `NAME`:" is saved to that file before the first command.

The page has a network of its own (a Linux network namespace), so that its ports are free and it needs no internet.
"""

import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
SERVERS = re.compile(
    r"(make run|\S*product-gateway (demo|serve|worker|sandbox|sample-service)|python3 service\.py|node service\.mjs)\b"
)
NOT_RUN = {"make test": "it would run the tests of the pages again"}
STARTS_WITHIN = 120  # seconds, on a busy machine
TYPING_SECONDS = 1.0  # a reader is no faster, and a requested sync begins meanwhile
STOPS_WITHIN = 15
ENDS_WITHIN = 240  # check-service sends hundreds of requests
VARIABLE = [
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\b\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "TIME"),
    (r"\b\d+\.\d+ s\b", "SECONDS"),
    (r"(?im)^(retry-after|content-length): \d+$", r"\1: NUMBER"),
]
INTERFACE_FLAGS, UP = 0x8914, 0x1  # SIOCSIFFLAGS, IFF_UP


class PageError(Exception):
    """A command that does not do what the page says."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, the number of its line, and the lines that it prints according to the page."""

    line: int
    text: str
    shown: tuple[str, ...]

    @property
    def program(self) -> str:
        """The command without its comment."""
        return self.text.partition("#")[0].strip()

    @property
    def is_server(self) -> bool:
        """Whether it runs until Ctrl-C."""
        return SERVERS.match(self.text) is not None

    @property
    def exit_code(self) -> int:
        """The exit code that the page promises."""
        promised = re.search(r"# exit code (\d+)", self.text)
        return int(promised[1]) if promised else 0


def commands(markdown: str) -> list[Command]:
    """Return the commands of all console blocks. Raises PageError for a block that starts without a command."""
    found: list[Command] = []
    block: list[tuple[int, str]] | None = None
    for number, line in enumerate(markdown.splitlines(), 1):
        if block is None:
            block = [] if line == "```console" else None
        elif line == "```":
            found += _commands_in(block)
            block = None
        else:
            block.append((number, line))
    return found


def _commands_in(block: list[tuple[int, str]]) -> list[Command]:
    found: list[Command] = []
    continues = False
    for number, line in block:
        if continues:
            found[-1] = Command(found[-1].line, f"{found[-1].text}\n{line}", ())
        elif line.startswith("$ "):
            found.append(Command(number, line.removeprefix("$ "), ()))
        elif not found:
            raise PageError(f"line {number}: a console block must start with a command: {line!r}")
        else:
            found[-1] = Command(found[-1].line, found[-1].text, (*found[-1].shown, line))
            continue
        continues = line.endswith("\\")
    return found


def files(markdown: str) -> dict[str, str]:
    """Return the files that the page tells its reader to save."""
    return dict(re.findall(r"\bas `([\w.-]+)`:\n+```\w+\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL))


def prints(shown: tuple[str, ...], printed: str, *, whole: bool = True) -> bool:
    """Return whether a command has printed what the page shows; with `whole` False, at least the beginning."""
    lines = [r"(?:.*\n)*?" if line == "…" else _pattern(line) for line in shown]
    printed = _without_variables(printed.replace("\r", ""))
    printed += "" if printed.endswith("\n") else "\n"
    compare = re.fullmatch if whole else re.match
    return compare("".join(lines), printed) is not None


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in _without_variables(line).split("…")) + r"\n"


def _without_variables(text: str) -> str:
    for pattern, name in VARIABLE:
        text = re.sub(pattern, name, text)
    return text


class Terminal:
    """A shell, which keeps its variables from one command to the next."""

    def __init__(self, folder: Path, environment: dict[str, str], scratch: Path) -> None:
        self._scratch = scratch
        scratch.mkdir(parents=True)
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def type(self, command: Command) -> None:
        """Run the command. Raises PageError if it does not do what the page says."""
        name = self._scratch / str(command.line)
        name.with_suffix(".sh").write_text(command.text + "\n")
        assert self._shell.stdin is not None
        self._shell.stdin.write(
            f". {name}.sh > {name}.out 2>&1 < /dev/null; echo $? > {name}.part; mv {name}.part {name}.status\n"
        )
        self._shell.stdin.flush()
        deadline = time.monotonic() + (STARTS_WITHIN if command.is_server else ENDS_WITHIN)
        while time.monotonic() < deadline:
            ended = name.with_suffix(".status").exists()
            printed = name.with_suffix(".out").read_text() if name.with_suffix(".out").exists() else ""
            if command.is_server and ended:
                raise PageError(f"line {command.line}: `{command.text}` has ended. It printed:\n{printed}")
            if command.is_server and command.shown and prints(command.shown, printed, whole=False):
                return
            if ended:
                _compare(command, printed, int(name.with_suffix(".status").read_text()))
                return
            time.sleep(0.05)
        raise PageError(f"line {command.line}: `{command.text}` does not do what the page says. It printed:\n{printed}")

    def close(self) -> None:
        """End the shell and everything that runs in it."""
        os.killpg(self._shell.pid, signal.SIGTERM)
        try:
            self._shell.communicate(timeout=STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.communicate()


def _compare(command: Command, printed: str, status: int) -> None:
    if status != command.exit_code:
        raise PageError(f"line {command.line}: `{command.text}` has exit code {status}. It printed:\n{printed}")
    if command.shown and not prints(command.shown, printed):
        shown = "\n".join(command.shown)
        raise PageError(f"line {command.line}: `{command.text}` shows:\n{shown}\nIt printed:\n{printed}")


def run(markdown: str, folder: Path) -> int:
    """Run the page in the folder, and return the number of commands that ran. Raises PageError."""
    project, home = folder / "project", folder / "home"
    home.mkdir()
    (home / ".curlrc").write_text("no-progress-meter\n")  # as where curl writes to a terminal
    _check_out(project)
    for name, text in files(markdown).items():
        (project / name).write_text(text)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(home)}
    terminals = [Terminal(project, environment, folder / "terminal-1")]
    done = 0
    try:
        for command in commands(markdown):
            if command.program in NOT_RUN:
                continue
            time.sleep(TYPING_SECONDS)
            terminals[-1].type(command)
            done += 1
            if command.is_server:
                terminals.append(Terminal(project, environment, folder / f"terminal-{len(terminals) + 1}"))
    finally:
        for terminal in reversed(terminals):
            terminal.close()
    return done


def _check_out(project: Path) -> None:
    """Make a folder that looks like a checkout after `make install`. Commands write to it, not to the real one."""
    project.mkdir()
    for name in ("Makefile", "pyproject.toml", "app", "docs", "openapi", "requirements"):
        (project / name).symlink_to(TOP / name)
    (project / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (project / ".venv" / path.name).symlink_to(path)
    (project / ".venv" / "installed").touch()  # newer than the lock file: `make` installs nothing


def in_own_network(*arguments: str) -> list[str] | None:
    """Return the command line that runs this module in a network of its own, or None if that is not possible."""
    unshare = shutil.which("unshare")
    prefix = [unshare or "", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if unshare is None or subprocess.run([*prefix, "true"], capture_output=True, timeout=60).returncode != 0:
        return None
    return [*prefix, sys.executable, "-m", __name__, *arguments]


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, INTERFACE_FLAGS, struct.pack("16sh14x", b"lo", UP))


def main() -> None:
    """Run the page that the first argument names, in the folder that the second names."""
    page, folder = sys.argv[1:]
    _bring_loopback_up()
    try:
        done = run(Path(page).read_text(encoding="utf-8"), Path(folder))
    except PageError as error:
        sys.exit(f"{page}, {error}")
    print(f"{done} commands")


if __name__ == "__main__":
    main()
