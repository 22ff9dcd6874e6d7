"""One installation for all tests of the runtime that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.prefect_api import PrefectApi
from tests.support.stack import Stack, stack


@pytest.fixture(scope="session")
def installation() -> Iterator[Stack]:
    """A running ``certrail up``."""
    with stack() as running:
        yield running


@pytest.fixture
def api(installation: Stack) -> Iterator[PrefectApi]:
    """Prefect's API of the shared installation."""
    api = PrefectApi(installation.api_url)
    yield api
    api.close()
