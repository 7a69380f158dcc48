"""A scripted server for the client commands."""

from collections.abc import Iterator

import pytest

from tests.support.scripted_answers import Merchant
from tests.support.serving import serve


@pytest.fixture
def gateway() -> Iterator[Merchant]:
    """Serve scripted responses in place of a gateway."""
    stranger = Merchant()
    with serve(stranger) as url:
        stranger.url = url
        yield stranger
