"""The parent of several processes, where they misbehave."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.deployment import within
from tests.support.process_groups import is_alive

TOP = Path(__file__).parents[2]
SOON = 20  # seconds, on a busy machine


class Group:
    """A running group; `log` has what its processes have said."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: Path, works: Path) -> None:
        self.popen, self._log, self.works = popen, log, works

    @property
    def log(self) -> str:
        return self._log.read_text()

    def children(self) -> list[int]:
        """Return the numbers of its processes."""
        found = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text()
        return [int(each) for each in found.split()]


@contextmanager
def running(folder: Path, *kinds: str) -> Iterator[Group]:
    """Run a group with processes of these kinds."""
    log, works = folder / "log", folder / "works"
    with log.open("w") as out:
        command = [sys.executable, "-m", "tests.support.process_group_script", str(works), *kinds]
        popen = subprocess.Popen(command, stdout=out, stderr=out, cwd=TOP)
    try:
        yield Group(popen, log, works)
    finally:
        popen.kill()
        popen.wait()


def test_a_process_that_keeps_ending_is_replaced_ever_more_slowly(tmp_path: Path) -> None:
    """Each end is one line. The others are not concerned."""
    with running(tmp_path, "crash", "work") as group:
        within(SOON, lambda: group.log.count("Another one starts in") >= 4)
        found = re.findall(
            r"The process crash 1 \(\d+\) has ended with status 1\. Another one starts in ([\d.]+) s", group.log
        )
        pauses = [float(each) for each in found]
        assert pauses[0] < 0.3
        assert pauses[3] > 5 * pauses[0], pauses
        assert group.log.count("An unexpected error ended the process") == len(pauses)
        assert "The process work" not in group.log
        group.popen.send_signal(signal.SIGTERM)
        assert group.popen.wait(SOON) == 0


def test_a_process_that_does_not_stop_is_killed_in_time(tmp_path: Path) -> None:
    """Also one that is suspended. systemd would kill the whole unit."""
    with running(tmp_path, "hang", "work", "work") as group:
        within(SOON, group.works.exists)
        children = group.children()
        assert len(children) == 3
        subprocess.run(["kill", "-STOP", str(children[1])], check=True)
        began = time.monotonic()
        group.popen.send_signal(signal.SIGTERM)
        assert group.popen.wait(SOON) == 0
        assert 0.9 < time.monotonic() - began < 8
        assert not [each for each in children if is_alive(each)]
        killed = re.findall(r"The process (\w+ \d) \(\d+\) has not ended in time, and is killed", group.log)
        assert killed == ["hang 1", "work 2"]


def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path) -> None:
    """As with one process: status 130."""
    with running(tmp_path, "hang", "hang") as group:
        within(SOON, group.works.exists)
        children = group.children()
        group.popen.send_signal(signal.SIGINT)
        time.sleep(0.3)
        group.popen.send_signal(signal.SIGINT)
        assert group.popen.wait(SOON) == 130
        within(SOON, lambda: not [each for each in children if is_alive(each)])


def test_a_process_that_cannot_start_ends_the_group(tmp_path: Path) -> None:
    """Its traceback is in the log, and the others have stopped."""
    with running(tmp_path, "work", "fail") as group:
        assert group.popen.wait(SOON) == 1
        assert "The process fail 2 has ended with status 1 before it has started. The log says why." in group.log
        assert "a process of the test" in group.log
        assert not group.works.exists()
