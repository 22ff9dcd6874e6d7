"""One whole installation for all tests that need one; see :mod:`tests.support.stack`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stack import Stack, stack


@pytest.fixture(scope="session")
def installation() -> Iterator[Stack]:
    """`certrail up`, running. Tests use names of their own in its inventory."""
    # Short leases and pauses: what a killed worker left is taken over within seconds.
    extra = {
        "CERTRAIL_LEASE_SECONDS": "5",
        "CERTRAIL_RETRY_SECONDS": "0.2",
        "CERTRAIL_SETTLE_SECONDS": "5",
    }
    with stack(extra=extra) as running:
        yield running
