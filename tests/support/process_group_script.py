"""A process group whose processes misbehave, for tests: `python -m tests.support.process_group_script FILE KIND…`.

FILE is made once all work.
"""

import signal
import sys
import time
from pathlib import Path

from product_gateway.services.member import Member
from product_gateway.services.process_group import ProcessGroup, Role
from product_gateway.telemetry import logs


def crash(member: Member) -> None:
    """Start, and end with an unexpected error once all work."""
    member.started()
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    raise ValueError("a process of the test")


def hang(member: Member) -> None:
    """Start, and never stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    member.started()
    while True:
        time.sleep(60)


def work(member: Member) -> None:
    """Start, and stop when told."""
    member.started()
    member.shutdown.wait()


def fail(_: Member) -> None:
    """End before the start."""
    raise ValueError("a process of the test")


if __name__ == "__main__":
    logs.configure("INFO")
    runs = {"crash": crash, "hang": hang, "work": work, "fail": fail}
    roles = [Role(each, number, runs[each]) for number, each in enumerate(sys.argv[2:], start=1)]
    ProcessGroup(roles, [], seconds_to_drain=1.0).run(lambda _: None, Path(sys.argv[1]).touch)
