"""One whole installation for all tests that need one; see :mod:`tests.support.stack`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from certrail.settings import read_run_file
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


@contextmanager
def found_here(installation: Stack) -> Iterator[dict[str, str]]:
    """Let this process find the installation and its Prefect server while the block runs.

    The value is the variables by which another process does.
    """
    running = read_run_file(installation.data_dir)
    assert running is not None
    variables = running.environment()
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: installation.api_url}),
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables
