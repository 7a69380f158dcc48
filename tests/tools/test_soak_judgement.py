"""The judgement of `make soak`: growth is reported, noise is not."""

import random

import pytest

from tests.support.load import Footprint
from tests.tools.soak import LIVE, LOOKS, MEBIBYTE, READ, Watch


def watched(rss: float = 0, threads: float = 0, files: float = 0, slower: float = 0) -> Watch:
    """Return a noisy run in which one value grows with each sample."""
    dice, watch = random.Random(1), Watch()
    for look in range(LOOKS):
        memory = 150 * MEBIBYTE + dice.randrange(4 * MEBIBYTE) + look * rss
        watch.footprints["server"].append(Footprint(int(memory), int(20 + look * threads), int(40 + look * files)))
        for _ in range(10):
            busy = dice.uniform(1, 3)  # a machine that has something else to do makes both slow
            watch.seconds[LIVE].append(0.002 * busy)
            watch.seconds[READ].append(0.008 * busy * (1 + look * slower))
    return watch


def test_noise_is_no_growth() -> None:
    """A busy machine, or a list that is freed later, is no leak."""
    assert watched().growth() == []


@pytest.mark.parametrize(
    ("grows", "said"),
    [
        ({"rss": MEBIBYTE / 2}, "the server's memory"),
        ({"threads": 0.1}, "the server's threads"),
        ({"files": 0.5}, "the server's open files"),
        ({"slower": 0.5}, "a read took"),
    ],
)
def test_slow_steady_growth_is_reported(grows: dict[str, float], said: str) -> None:
    """Half a megabyte in ten seconds would end a process within days."""
    (found,) = watched(**grows).growth()
    assert found.startswith(said)


def test_growth_during_warm_up_is_ignored() -> None:
    """Caches fill and connections open."""
    watch = watched()
    seen = watch.footprints["server"]
    for look in range(LOOKS // 5):
        seen[look] = Footprint(40 * MEBIBYTE + look * 8 * MEBIBYTE, 4 + look, 10 + look)
    assert watch.growth() == []
